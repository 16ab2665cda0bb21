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
    kept: np.ndarray  # (N',) bool: which of the given segments these are


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
    """Draws the part of a video that a training step sees; None: all of it.

    A longer video is cropped to `max_seq_len`; a shorter one to a random share between `crop_ratio`, if given.
    Windows are drawn (at most 200 times) until one holds an event; an event belongs to a window if at least
    `trunc_thresh` of it lies inside, `offset` steps of tolerance at both ends included.

    Args:
        segments: (N, 2) in grid steps, float32.
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
    offset = np.float32(offset)
    for _ in range(MAX_TRIALS):
        start = rng.randint(0, num_steps - length)
        clipped = np.stack(
            [np.maximum(segments[:, 0], start - offset), np.minimum(segments[:, 1], start + length + offset)], axis=1
        )
        inside = (clipped[:, 1] - clipped[:, 0]).clip(min=0)
        whole = np.abs(segments[:, 1] - segments[:, 0])
        kept = (inside >= trunc_thresh * whole) & (whole > 0)
        if kept.any() or not len(segments):
            break
    return Crop(start, length, (clipped[kept] - np.float32(start)).astype(np.float32), kept)
