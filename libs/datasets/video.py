"""A video as the data sets hand it out and the models take it: still a plain dict, for ActionFormer's users."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor
from typing_extensions import NotRequired


class VideoItem(TypedDict):
    """One video, or the part of it that a training step sees."""

    video_id: str
    feats: Tensor  # (C, T) float32
    segments: Tensor | None  # (N, 2) float32, start and end in steps of `feats`; None: a test video without events
    labels: Tensor | None  # (N,) int64; None where `segments` is
    fps: float
    duration: float  # seconds
    feat_stride: float  # frames from one step to the next
    feat_num_frames: float  # frames that one step looks at
    feat_start: NotRequired[int]  # step of the video's grid where `feats` begin
