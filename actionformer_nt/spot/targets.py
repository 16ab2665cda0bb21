"""Events in grid steps -> targets of snippets; ranges of snippets -> segments.

Snippet j covers [j - 1/2, j + 1/2] on the grid, so that T snippets cover [-1/2, T - 1/2].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

HALF = 0.5  # half the length of a snippet, in grid steps


class SpotTargets(NamedTuple):
    """Targets of the snippets of B windows."""

    classes: Tensor  # (B, T) long; C is the background
    masks: Tensor  # (B, T, T) bool; row i marks the snippets of the instance that snippet i belongs to


def quantise(segments: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Events (N, 2) in grid steps -> half-open ranges of snippets [a, b), (N, 2) long, and a mask (N,) of the events
    that overlap the grid.

    Ends are rounded to the nearest snippet border and clipped to [0, length]. An event has at least one snippet.
    """
    border = segments.double() + HALF  # in [0, length] on the grid
    on_grid = (border[:, 1] > 0) & (border[:, 0] < length)
    begin = (border[:, 0] + HALF).floor().clamp(0, max(length - 1, 0))
    end = torch.maximum((border[:, 1] + HALF).floor().clamp(max=length), begin + 1)
    return torch.stack([begin, end], dim=1).long(), on_grid


def to_segments(ranges: Tensor) -> Tensor:
    """Half-open ranges of snippets [a, b), (N, 2) -> segments (N, 2) in grid steps, a - 1/2 to b - 1/2."""
    return ranges.to(torch.get_default_dtype()) - HALF


def assign_targets(
    segments: list[Tensor], labels: list[Tensor], lengths: list[int], *, num_steps: int, num_classes: int
) -> SpotTargets:
    """Targets of a batch of windows.

    The owner of a snippet is the shortest event that covers it; ties are broken by the earlier start, then by the lower
    class, so that the order of the events does not matter. A snippet has the class of its owner. Its mask covers the
    whole owner, including snippets that a shorter event owns.

    Args:
        segments: per window (N, 2) in grid steps; labels: per window (N,) in [0, C).
        lengths: number of valid snippets per window.
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
            owner, owned = owners(inside, rank_of(s, y))
            cls = torch.where(owned, y.to(cls)[owner], cls)
            mask = inside[owner] & owned[:, None]
        classes.append(cls)
        masks.append(mask)
    return SpotTargets(torch.stack(classes), torch.stack(masks))


def owners(inside: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """Owner of each snippet: the event of the lowest rank that covers it.

    Args:
        inside: (N, T) bool, the snippets of each event; N > 0.
        rank: (N,) long, 0 .. N - 1, all different.

    Returns:
        (T,) index of the owner, 0 where there is none, and (T,) bool whether there is one.
    """
    owned = inside.any(dim=0)
    owner = torch.where(inside, rank[:, None], len(rank)).argmin(dim=0)
    return torch.where(owned, owner, 0), owned


def rank_of(segments: Tensor, labels: Tensor) -> Tensor:
    """Rank (N,) of each event by length, then start, then class, then index."""
    order = labels.argsort(stable=True)
    order = order[segments[order, 0].argsort(stable=True)]
    order = order[(segments[order, 1] - segments[order, 0]).argsort(stable=True)]
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


def class_weights(classes: Tensor, mask: Tensor, *, num_classes: int, form: str = "target") -> tuple[Tensor, Tensor]:
    """Class indices (B, T) -> Y and W, each (B, T, C + 1), for `libs.modeling.losses.softmax_class_loss`.

    Args:
        mask: (B, T) bool, valid snippets; the others have W = 0.
        form: "target": W is 1 for the target class only (Eq. 5 of SPOT); "hybrid": W is 1 for all classes.

    Raises:
        ValueError: unknown form.
    """
    if form not in ("target", "hybrid"):
        raise ValueError(f"class form '{form}' is neither 'target' nor 'hybrid'")
    y = F.one_hot(classes, num_classes + 1).float()
    w = y if form == "target" else torch.ones_like(y)
    return y, w * mask[..., None]
