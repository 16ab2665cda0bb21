"""The partition of the label space of a predicted class distribution (Eq. 4, 7, 8 and 10 of the paper)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Partition(NamedTuple):
    """Boolean masks of the shape of the distribution; every class is in exactly one."""

    target: Tensor  # the most probable class
    positive: Tensor  # almost as probable
    negative: Tensor  # their probabilities sum to at most the target's
    ambiguous: Tensor  # all other classes; ignored in training


def partition(probs: Tensor, lam: float = 0.85) -> Partition:
    """Partitions the classes of each distribution.

    Target: the class of the highest probability; of several, the one with the lowest index. Positive (Eq. 10): other
    classes with p >= lam * max p. Negative (Eq. 8): classes c such that the probabilities of all classes at most as
    probable as c, including c, sum to at most max p; a class that meets both conditions is positive. Equally probable
    classes get the same part, so that the order of the classes matters only for ties of the target.

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
    sums = ascending.cumsum(dim=-1)
    last_equal = torch.searchsorted(ascending, p, right=True) - 1  # last index of p(c) in `ascending`
    negative = (sums.gather(-1, last_equal) <= highest) & ~target & ~positive
    return Partition(target, positive, negative, ~(target | positive | negative))
