"""A network that turns clips into features, with the transform of its frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .flow import Flow
from .pipeline import in_order

OWN = "preset"  # `spatial` of presets without a choice


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
        fps: frames per second that the network is used to; None: those of the video.
        flow: optical flow, which the network sees too; its channels follow those of the image.
        packages: that decide the values, beside torch, torchvision and PyAV.
        flow_transform: flow (2, *flow.size) -> (..., 2, h, w) float32.
    """

    name: str
    window: int
    stride: int
    channels: int
    spatial: str
    transform: Callable[[np.ndarray], Tensor]
    network: nn.Module
    weights: str
    fps: Fraction | None = None
    packages: tuple[str, ...] = ()
    flow: Flow | None = None
    flow_transform: Callable[[Tensor], Tensor] | None = None
    dtype: str = "float32"  # in which the network computes

    def on(self, device: str, dtype: str = "float32") -> Extractor:
        """The same on a device, computing in "float32", "float16" or "bfloat16"."""
        flow = None if self.flow is None else self.flow.on(device)
        return replace(self, network=self.network.to(device), flow=flow, dtype=dtype)

    def frames(self, images: Iterable[np.ndarray], *, workers: int = 0) -> Iterator[Tensor]:
        """The images of a video, (H, W, 3) uint8, as the network sees them, (..., C, h, w) float32.

        Args:
            workers: threads that transform them; 0: none but the caller's.
        """
        if self.flow is None or self.flow_transform is None:
            return in_order(self.transform, images, workers)
        return in_order(self._both, self.flow(images), workers)

    def _both(self, pair: tuple[np.ndarray, Tensor]) -> Tensor:
        """An image and its flow as the network sees them."""
        image, flow = pair
        assert self.flow_transform is not None
        return torch.cat([self.transform(image), self.flow_transform(flow)], dim=-3)

    def settings(self) -> dict[str, Any]:
        """What the sidecars of all videos have in common (`Sidecar.settings`)."""
        same = ("weights", "window", "stride", "channels", "spatial", "dtype")
        flow = None if self.flow is None else str(self.flow)
        return {"preset": self.name, "flow": flow} | {name: getattr(self, name) for name in same}

    @property
    def batch(self) -> int:
        """Clips at once that are fast on the network's device."""
        return 2 if next(self.network.parameters()).device.type == "cpu" else 16

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        """Clips (B, T, ..., C, h, w) -> features (B, channels) on the CPU: the mean over the crops."""
        device = next(self.network.parameters()).device
        crops = clips.movedim(1, -3)  # (B, ..., C, T, h, w)
        with torch.autocast(device.type, getattr(torch, self.dtype), enabled=self.dtype != "float32"):
            x = crops.flatten(0, -5).to(device).contiguous(memory_format=torch.channels_last_3d)
            features = self.network(x).float().cpu()
        return features.view(len(clips), -1, self.channels).mean(dim=1)


class Wanted(NamedTuple):
    """What a preset is asked for; None: the preset's own."""

    name: str
    weights: str | os.PathLike | None
    spatial: str | None = None
    seed: int | None = None  # of random weights
    flow: str | None = None
    flow_weights: str | os.PathLike | None = None

    def needs_file(self, example: str, *, flow: bool = False) -> ValueError:
        """The error that a weight file is missing."""
        options = "--flow-weights FILE" if flow else "--weights FILE (of predict: --video-weights FILE)"
        return ValueError(f"preset {self.name} needs a weight file, such as {example}: give {options}")

    def refuse(self, *options: str) -> None:
        """Raises ValueError if one of the options is given, since the preset does not have it."""
        for option in options:
            if (value := getattr(self, option)) is not None:
                raise ValueError(f"{option.replace('_', '-')} {value}: preset {self.name} has no choice of it")
