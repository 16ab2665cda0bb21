"""Clips of a video: windows of frames at even steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor


def rows(frames: int, window: int, stride: int) -> int:
    """Number of clips of a video: those that lie inside it, and one, padded, of a video that is shorter than a clip."""
    return max((frames - window) // stride + 1, 1) if frames else 0


def clips(frames: Iterable[Tensor], *, window: int, stride: int) -> Iterator[Tensor]:
    """Clip k of the frames k * stride to k * stride + window - 1, stacked along the first dimension, (window, ...).

    Every frame is taken once, and no more than `window` of them are kept. A video that is shorter than a clip gives one
    clip that ends with copies of its last frame; what does not fill a last clip is left out.
    """
    frames = iter(frames)
    held: deque[Tensor] = deque(islice(frames, window), maxlen=window)
    if not held:
        return
    while len(held) < window:
        held.append(held[-1])
    yield torch.stack(tuple(held))
    while True:
        for _ in range(stride):
            if (frame := next(frames, None)) is None:
                return
            held.append(frame)
        yield torch.stack(tuple(held))


def batches(items: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Stacks of at most `size` items, (B, ...)."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield torch.stack(batch)
