"""The type of a video between data sets and models: a plain dict, as in ActionFormer."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor
from typing_extensions import NotRequired


class VideoItem(TypedDict):
    """One video, or its crop in a training step."""

    video_id: str
    feats: Tensor  # (C, T) float32
    segments: Tensor | None  # (N, 2) float32, start and end in steps of `feats`; None: a test video without events
    labels: Tensor | None  # (N,) int64; None if `segments` is None
    fps: float
    duration: float  # seconds
    feat_stride: float  # frames between consecutive steps
    feat_num_frames: float  # frames covered by one step
    clean: NotRequired[Tensor]  # (C, T) of a perturbed view: `feats` before masking, dropout and noise
    repeat: NotRequired[int]  # how often the video came before in the same batch
    feat_start: NotRequired[int]  # step of the video's grid at which `feats` start
