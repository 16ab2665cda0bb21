"""The partition of the label space of a predicted class distribution (Eq. 4, 7, 8 and 10 of the paper)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Partition(NamedTuple):
    """Boolean masks of the shape of the distribution; every class is in exactly one."""

    target: Tensor  # the most probable class
    positive: Tensor  # almost as probable
    negative: Tensor  # together no more probable than the target
    ambiguous: Tensor  # the rest, from which nothing is learned


def partition(probs: Tensor, lam: float = 0.85) -> Partition:
    """Splits the classes of each distribution.

    Target: the class of the highest probability, the lowest index on a tie. Positive (Eq. 10): other classes with
    p >= lam * max p. Negative (Eq. 8): classes c for which the probabilities of all classes no more probable than c,
    c among them, add up to at most max p; a class that is positive too is positive. Equally probable classes move
    together, so that the order of the classes matters for the tie of the target only.

    Args:
        probs: (..., K) probabilities, K >= 1; sums are taken in float64.
        lam: lambda in (0, 1].

    Raises:
        ValueError: lam outside (0, 1], no class, or probabilities that are not finite or negative.
    """
    if not 0 < lam <= 1:
        raise ValueError(f"lambda {lam}: expected 0 < lambda <= 1")
    if probs.ndim == 0 or probs.shape[-1] == 0:
        raise ValueError(f"expected class distributions (..., K) with K >= 1, found shape {tuple(probs.shape)}")
    p = probs.detach().double().contiguous()
    if not (torch.isfinite(p) & (p >= 0)).all():
        raise ValueError("class distributions hold probabilities that are negative or not finite")
    highest, index = p.max(dim=-1, keepdim=True)
    target = torch.zeros_like(p, dtype=torch.bool).scatter_(-1, index, True)
    positive = (p >= lam * highest) & ~target

    ascending = p.sort(dim=-1).values
    up_to = ascending.cumsum(dim=-1)
    last_equal = torch.searchsorted(ascending, p, right=True) - 1  # of the classes as probable as c, the last in order
    negative = (up_to.gather(-1, last_equal) <= highest) & ~target & ~positive
    return Partition(target, positive, negative, ~(target | positive | negative))
