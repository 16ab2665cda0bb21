"""Events in grid steps -> targets of snippets, and back.

Snippet j covers [j - 1/2, j + 1/2] on the grid, so that T snippets cover [-1/2, T - 1/2].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

HALF = 0.5  # of a snippet


class SpotTargets(NamedTuple):
    classes: Tensor  # (B, T) long; C is the background
    masks: Tensor  # (B, T, T) bool; row i marks the snippets of the instance that snippet i belongs to


def quantise(segments: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Events (N, 2) in grid steps -> half-open ranges of snippets [a, b), (N, 2) long, and which events lie on the
    grid at all, (N,) bool.

    Ends go to the nearest snippet border; an event has at least one snippet and none outside [0, length).
    """
    border = segments.double() + HALF  # in [0, length] on the grid
    on_grid = (border[:, 1] > 0) & (border[:, 0] < length)
    begin = (border[:, 0] + HALF).floor().clamp(0, max(length - 1, 0))
    end = torch.maximum((border[:, 1] + HALF).floor().clamp(max=length), begin + 1)
    return torch.stack([begin, end], dim=1).long(), on_grid


def to_segments(ranges: Tensor) -> Tensor:
    """Half-open ranges of snippets [a, b), (N, 2) -> segments in grid steps: the inverse of `quantise`."""
    return ranges.to(torch.get_default_dtype()) - HALF


def assign_targets(
    segments: list[Tensor], labels: list[Tensor], lengths: list[int], *, num_steps: int, num_classes: int
) -> SpotTargets:
    """Targets of a batch of windows.

    Of the events over a snippet the shortest owns it (of equal ones the earlier, then that of the lower class, so that
    the order of the list has no say). The snippet has the owner's class, and its mask is all of the owner, including
    what a shorter event owns.

    Args:
        segments: per window (N, 2) in grid steps; labels: per window (N,) in [0, C); lengths: valid snippets.
        num_steps: T; num_classes: C.
    """
    classes, masks = [], []
    step = torch.arange(num_steps)
    for s, y, length in zip(segments, labels, lengths, strict=True):
        step = step.to(s.device)
        cls = torch.full((num_steps,), num_classes, device=s.device)
        mask = torch.zeros(num_steps, num_steps, dtype=torch.bool, device=s.device)
        ranges, on_grid = quantise(s, length)
        if bool(on_grid.any()):
            inside = (step >= ranges[:, :1]) & (step < ranges[:, 1:]) & on_grid[:, None]  # (N, T)
            rank = _rank(s, y)  # (N,)
            owner = torch.where(inside, rank[:, None], len(s)).argmin(dim=0)  # (T,), ranks differ
            owned = inside.any(dim=0)
            cls = torch.where(owned, y.to(cls)[owner], cls)
            mask = inside[owner] & owned[:, None]
        classes.append(cls)
        masks.append(mask)
    return SpotTargets(torch.stack(classes), torch.stack(masks))


def _rank(segments: Tensor, labels: Tensor) -> Tensor:
    """(N,) place of each event in the order of length, then start, then class, then index."""
    order = labels.argsort(stable=True)
    order = order[segments[order, 0].argsort(stable=True)]
    order = order[(segments[order, 1] - segments[order, 0]).argsort(stable=True)]
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


def class_weights(classes: Tensor, mask: Tensor, *, num_classes: int, form: str = "target") -> tuple[Tensor, Tensor]:
    """Y and W, each (B, T, C + 1), of class targets (B, T), for `libs.modeling.losses.softmax_class_loss`.

    Args:
        mask: (B, T) bool; W is 0 where a snippet is not valid.
        form: "target": only the target class has a weight (Eq. 5); "hybrid": all other classes are negatives too.
    """
    if form not in ("target", "hybrid"):
        raise ValueError(f"class form '{form}' is neither 'target' nor 'hybrid'")
    y = F.one_hot(classes, num_classes + 1).float()
    w = y if form == "target" else torch.ones_like(y)
    return y, w * mask[..., None]
