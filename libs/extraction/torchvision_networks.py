"""Presets of torchvision's video networks, and of TSP, whose network is made of their parts."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from libs.core.extras import need_torchvision

from .extractor import OWN, Extractor, Wanted
from .weights import load_weights, sha256


def torchvision_preset(last: str, weights_class: str) -> Callable[[Wanted], Extractor]:
    """A preset of torchvision's video networks, whose last part `last` is left out."""

    def build(wanted: Wanted) -> Extractor:
        wanted.refuse("spatial", "flow", "flow_weights")
        module = need_torchvision("torchvision.models.video", what=f"preset {wanted.name}")
        own, digest = getattr(module, weights_class).DEFAULT, f"random {wanted.seed}"
        given = wanted.seed is not None or wanted.weights is not None
        network = getattr(module, wanted.name)(weights=None if given else own)
        if wanted.weights is not None:
            load_weights(network, wanted.weights)
            digest = sha256(wanted.weights)
        elif wanted.seed is None:
            digest = sha256(Path(torch.hub.get_dir()) / "checkpoints" / own.url.rpartition("/")[2])
        *_, linear = (m for m in getattr(network, last).modules() if isinstance(m, (nn.Linear, nn.Conv3d)))
        setattr(network, last, nn.Identity())
        transform = own.transforms()
        return Extractor(
            name=wanted.name, window=16, stride=4, channels=linear.weight.shape[1], spatial=OWN,
            network=Pooled(network), weights=digest,
            transform=lambda image: transform(torch.from_numpy(image).permute(2, 0, 1)[None])[:, 0],
        )  # fmt: skip

    return build


TSP_SIZE, TSP_CROP = (128, 171), (8, 30, 112)  # height and width; top, left and side
TSP_MEAN, TSP_STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)


def tsp(wanted: Wanted) -> Extractor:
    """Preset tsp: R(2+1)D-34 with the frames, and the names of weights, of TSP (Alwassel et al., ICCVW 2021)."""
    wanted.refuse("spatial", "flow", "flow_weights")
    module = need_torchvision("torchvision.models.video.resnet", what="preset tsp")
    network, digest = r2plus1d_34(module), f"random {wanted.seed}"
    if wanted.weights is not None:
        load_weights(network, wanted.weights, within=("features", "backbone"), but="fc")
        digest = sha256(wanted.weights)
    elif wanted.seed is None:
        raise wanted.needs_file("r2plus1d_34-tsp_on_activitynet of HumamAlwassel/TSP")
    network.fc = nn.Identity()
    return Extractor(
        name="tsp", window=16, stride=16, fps=Fraction(15), channels=512, spatial=OWN, network=network, weights=digest,
        transform=tsp_frame,
    )  # fmt: skip


def r2plus1d_34(module: Any) -> nn.Module:
    """R(2+1)D with 34 layers, of the parts in torchvision's module. It differs from torchvision's smaller ones: each
    convolution has as many channels between its two halves as its own widths ask for, and eps is Caffe2's."""
    network: Any = module.VideoResNet(
        module.BasicBlock, [module.Conv2Plus1D] * 4, layers=[3, 4, 6, 3], stem=module.R2Plus1dStem
    )
    for layer, width in ((network.layer2, 128), (network.layer3, 256), (network.layer4, 512)):
        layer[0].conv2[0] = module.Conv2Plus1D(width, width, 27 * width * width // (9 * width + 3 * width))
    for part in network.modules():
        if isinstance(part, nn.BatchNorm3d):
            part.eps = 1e-3
    return network


def tsp_frame(image: np.ndarray) -> Tensor:
    """Image (H, W, 3) uint8 -> the middle of it at 128 x 171, (3, 112, 112)."""
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    x = F.interpolate(x, TSP_SIZE, mode="bilinear", align_corners=False)[0]
    x = (x - torch.tensor(TSP_MEAN)[:, None, None]) / torch.tensor(TSP_STD)[:, None, None]
    top, left, side = TSP_CROP
    return x[:, top : top + side, left : left + side]


class Pooled(nn.Module):
    """A network whose features (B, C, ...) are averaged over all other dimensions."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, C)."""
        x: Tensor = self.network(clips)
        return x.flatten(2).mean(dim=2) if x.ndim > 2 else x
