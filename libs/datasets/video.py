"""Videos between data sets and models: keys that ask for them, and the plain dicts that ActionFormer has too."""

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


class SampleKey(int):
    """The index of a video together with what seeds its random crop. It is an int, so it can index any data set.

    Attributes:
        epoch: number of the epoch.
        repeat: 0, or how often the video came before in the same batch, where a batch is larger than the data set.
    """

    epoch: int
    repeat: int

    def __new__(cls, index: int, epoch: int, repeat: int = 0) -> SampleKey:
        key = super().__new__(cls, index)
        key.epoch, key.repeat = epoch, repeat
        return key

    def __reduce__(self) -> tuple:
        return SampleKey, (int(self), self.epoch, self.repeat)
