"""All levels of a pyramid as one sequence, so that shared layers run once instead of level by level.

Between the levels lie gaps as wide as a convolution reaches. They are held at zero, which is what a level alone would
see beyond its ends.
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
        valid: (B, 1, P) 1 where a step is valid, else 0; of the type of the features.
        inside: (1, 1, P) 1 on the levels, padding included, 0 in the gaps.
    """

    def __init__(self, feats: list[Tensor], masks: list[Tensor], gap: int) -> None:
        self.lengths, self.gap = [x.shape[2] for x in feats], gap
        batch, channels, _ = feats[0].shape
        empty = feats[0].new_zeros(batch, gap, channels).transpose(1, 2)
        self.feats = _join(feats, empty)
        self.valid = _join([mask.to(self.feats.dtype) for mask in masks], empty[:, :1])
        self.inside = _join([torch.ones_like(x[:1, :1]) for x in feats], empty[:1, :1])

    def levels(self, x: Tensor) -> list[Tensor]:
        """(B, D, P) -> (B, D, T_l) per level."""
        found, start = [], 0
        for length in self.lengths:
            found.append(x[:, :, start : start + length])
            start += length + self.gap
        return found


def _join(parts: list[Tensor], between: Tensor) -> Tensor:
    """Along time; lies in memory as (B, T, C)."""
    pieces = [piece for part in parts for piece in (part, between)][:-1]
    return torch.cat([piece.transpose(1, 2) for piece in pieces], dim=1).transpose(1, 2)
