"""Videos longer than T snippets: windows of T with overlap, and one list of candidates from all of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from libs.modeling.decode import Candidates

from .targets import HALF


class Window(NamedTuple):
    start: int  # first snippet
    length: int  # snippets


def windows(length: int, num_steps: int, overlap: float) -> list[Window]:
    """Windows of `num_steps` snippets over a video of `length`, each at least `overlap` of its length into the one
    before. The last ends with the video; a video that is not longer has one window, of its own length."""
    if length <= num_steps:
        return [Window(0, length)]
    hop = max(math.floor(num_steps * (1 - overlap)), 1)
    starts = [*range(0, length - num_steps, hop), length - num_steps]
    return [Window(start, num_steps) for start in starts]


def merge(found: list[tuple[Window, Candidates]]) -> Candidates:
    """Candidates of the windows of one video, in order -> of the video, in steps of its grid.

    A candidate that ends where its window is cut off is dropped if the neighbouring window sees all of it, and more.
    """
    parts = []
    for place, (window, candidates) in enumerate(found):
        segments = candidates.segments + window.start
        first, last = window.start - HALF, window.start + window.length - HALF
        keep = torch.ones(len(segments), dtype=torch.bool, device=segments.device)
        if place > 0:
            before = found[place - 1][0]
            end = before.start + before.length - HALF
            keep &= (segments[:, 0] > first) | (segments[:, 1] > end)
        if place + 1 < len(found):
            after = found[place + 1][0]
            keep &= (segments[:, 1] < last) | (segments[:, 0] <= after.start - HALF)
        parts.append(Candidates(segments[keep], candidates.scores[keep], candidates.labels[keep]))
    return Candidates(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
