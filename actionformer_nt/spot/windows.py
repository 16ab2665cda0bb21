"""Overlapping windows over videos longer than T snippets, and merging of the candidates of all windows."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from libs.modeling.decode import Candidates

from .targets import HALF


class Window(NamedTuple):
    """A range of snippets of a video."""

    start: int  # first snippet
    length: int  # number of snippets


def windows(length: int, num_steps: int, overlap: float) -> list[Window]:
    """Windows of `num_steps` snippets over a video of `length` snippets. The last one ends at the end of the video.

    A video of at most `num_steps` snippets has a single window of its own length.

    Args:
        overlap: smallest overlap of neighbouring windows, as a share of their length.
    """
    if length <= num_steps:
        return [Window(0, length)]
    hop = max(math.floor(num_steps * (1 - overlap)), 1)
    starts = [*range(0, length - num_steps, hop), length - num_steps]
    return [Window(start, num_steps) for start in starts]


def merge(windows_with_candidates: list[tuple[Window, Candidates]]) -> Candidates:
    """Merges the candidates of the windows of one video, in the order of time, into grid steps of the video.

    A candidate that touches the border between its window and the rest of the video may be incomplete. It is dropped if
    the neighbouring window contains it.
    """
    parts = []
    for i, (window, candidates) in enumerate(windows_with_candidates):
        segments = candidates.segments + window.start
        first, last = window.start - HALF, window.start + window.length - HALF
        keep = torch.ones(len(segments), dtype=torch.bool, device=segments.device)
        if i > 0:
            previous = windows_with_candidates[i - 1][0]
            end = previous.start + previous.length - HALF
            keep &= (segments[:, 0] > first) | (segments[:, 1] > end)
        if i + 1 < len(windows_with_candidates):
            following = windows_with_candidates[i + 1][0]
            keep &= (segments[:, 1] < last) | (segments[:, 0] <= following.start - HALF)
        parts.append(Candidates(segments[keep], candidates.scores[keep], candidates.labels[keep]))
    return Candidates(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
