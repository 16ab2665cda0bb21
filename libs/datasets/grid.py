"""The time grid of a feature sequence, and interpolation of features to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F


class Grid(NamedTuple):
    """The time grid of a feature sequence: step x is centred at (x * stride + num_frames / 2) / fps seconds."""

    stride: float  # frames between consecutive steps
    num_frames: float  # frames covered by one step
    length: int  # number of steps
    resize: bool  # whether the features are interpolated to `length`

    @property
    def offset(self) -> float:
        """Half of a step's width, in steps."""
        return 0.5 * self.num_frames / self.stride


@dataclass(frozen=True, kw_only=True)
class GridRule:
    """The keys of the `dataset` section that determine a video's grid.

    There are three cases, as in ActionFormer's ActivityNet reader: features at a fixed stride, features spread over the
    video's duration (`feat_stride` <= 0), and features interpolated to `max_seq_len` (`force_upsampling`).

    Attributes:
        feat_stride: frames between consecutive features; <= 0: the features are spread over the video.
        num_frames: frames covered by one feature.
        downsample_rate: every `downsample_rate`-th feature is used.
        max_seq_len: number of steps to which `force_upsampling` interpolates.
    """

    feat_stride: float
    num_frames: float
    downsample_rate: int
    max_seq_len: int
    force_upsampling: bool

    @property
    def regular(self) -> bool:
        """Whether features lie at a fixed stride of `feat_stride` frames."""
        return self.feat_stride > 0 and not self.force_upsampling

    def grid(self, video_id: str, steps: int, video_frames: float) -> Grid:
        """The grid of a video.

        Args:
            steps: number of steps in the feature file.
            video_frames: duration of the video in frames; used only if the features are spread over the video.

        Raises:
            ValueError: features spread over the video have more than `max_seq_len` steps; names the video.
        """
        if self.regular:
            rate = self.downsample_rate
            return Grid(self.feat_stride * rate, self.num_frames, -(-steps // rate), resize=False)
        length = self.max_seq_len if self.force_upsampling else steps
        if self.feat_stride > 0:
            stride = float((steps - 1) * self.feat_stride + self.num_frames) / length
        elif steps > self.max_seq_len and not self.force_upsampling:
            raise ValueError(
                f"video '{video_id}': {steps} steps, but feat_stride <= 0 needs at most max_seq_len={self.max_seq_len} "
                f"or force_upsampling: true, which rescales to it"
            )
        else:
            stride = video_frames / length
        return Grid(stride, stride, length, resize=length != steps)


def resize(feats: np.ndarray, grid: Grid) -> torch.Tensor:
    """(T, C) features -> (C, T'), interpolated linearly to `grid.length` if `grid.resize`. Without interpolation the
    result is a transposed view, so that memory stays ordered by time as in the file."""
    by_channel = torch.from_numpy(np.require(feats, requirements=["C", "W"])).T  # (C, T)
    if grid.resize:
        by_channel = F.interpolate(by_channel[None], size=grid.length, mode="linear", align_corners=False)[0]
    return by_channel
