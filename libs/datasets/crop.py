"""Random crops of training videos, in grid steps, as ActionFormer draws them."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np

MAX_TRIALS = 200


class Crop(NamedTuple):
    start: int  # first step
    length: int  # steps
    segments: np.ndarray  # (N, 2) float32, clipped to the crop and relative to it
    kept: np.ndarray  # (M,) bool: which of the M given segments are in `segments`


def random_crop(
    num_steps: int,
    segments: np.ndarray,
    offset: float,
    rng: random.Random,
    *,
    max_seq_len: int,
    trunc_thresh: float,
    crop_ratio: tuple[float, float] | None = None,
) -> Crop | None:
    """Draws a random crop of a training video; None if the whole video is used.

    Videos longer than `max_seq_len` are cropped to it, shorter ones to a random share within `crop_ratio`, if given.
    Windows are drawn until one contains an event, at most `MAX_TRIALS` times; then the last window is used. A window
    contains an event if at least `trunc_thresh` of the event lies in the window extended by `offset` at both ends.

    Args:
        num_steps: length of the video in grid steps.
        segments: (M, 2) float32 events in grid steps.
        offset: half the width of a step, in steps.
    """
    if num_steps > max_seq_len:
        length = max_seq_len
    elif crop_ratio is None:
        return None
    else:
        low, high = crop_ratio
        length = rng.randint(max(round(low * num_steps), 1), min(round(high * num_steps), num_steps))
        if length == num_steps:
            return None
    for _ in range(MAX_TRIALS):
        start = rng.randint(0, num_steps - length)
        crop = crop_at(start, length, segments, offset, trunc_thresh=trunc_thresh)
        if crop.kept.any() or not len(segments):
            break
    return crop


def crop_at(start: int, length: int, segments: np.ndarray, offset: float, *, trunc_thresh: float) -> Crop:
    """The window of `length` steps at `start`, with the segments (N, 2) that belong to it, see `random_crop`."""
    offset = np.float32(offset)
    clipped = np.stack(
        [np.maximum(segments[:, 0], start - offset), np.minimum(segments[:, 1], start + length + offset)], axis=1
    )
    inside = (clipped[:, 1] - clipped[:, 0]).clip(min=0)
    whole = np.abs(segments[:, 1] - segments[:, 0])
    kept = (inside >= trunc_thresh * whole) & (whole > 0)
    return Crop(start, length, (clipped[kept] - np.float32(start)).astype(np.float32), kept)
