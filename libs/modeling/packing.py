"""Concatenates the levels of a pyramid into one sequence, so that layers shared by all levels run once.

Levels are separated by gaps as wide as half a kernel. The gaps are kept at zero, so that convolutions see the same
zero padding as on each level alone.
"""

from __future__ import annotations

import torch
from torch import Tensor


class PackedPyramid:
    """
    Args:
        feats: (B, C, T_l) per level.
        masks: (B, 1, T_l) bool per level.
        gap: steps between two levels.

    Attributes:
        feats: (B, C, P).
        valid: (B, 1, P), 1 at valid steps, else 0; same type as `feats`.
        inside: (1, 1, P), 1 on the levels (padding included), 0 in the gaps.
    """

    def __init__(self, feats: list[Tensor], masks: list[Tensor], gap: int) -> None:
        self.lengths, self.gap = [x.shape[2] for x in feats], gap
        batch, channels, _ = feats[0].shape
        empty = feats[0].new_zeros(batch, gap, channels).transpose(1, 2)
        self.feats = _join(feats, empty)
        self.valid = _join([mask.to(self.feats.dtype) for mask in masks], empty[:, :1])
        self.inside = _join([torch.ones_like(x[:1, :1]) for x in feats], empty[:1, :1])

    def levels(self, x: Tensor) -> list[Tensor]:
        """Splits (B, D, P) into levels (B, D, T_l)."""
        levels, start = [], 0
        for length in self.lengths:
            levels.append(x[:, :, start : start + length])
            start += length + self.gap
        return levels


def _join(parts: list[Tensor], between: Tensor) -> Tensor:
    """Concatenates along time with `between` as separator; the result lies in memory as (B, T, C)."""
    sequence = [x for part in parts for x in (part, between)][:-1]
    return torch.cat([x.transpose(1, 2) for x in sequence], dim=1).transpose(1, 2)
