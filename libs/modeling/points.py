"""Points of the pyramid: where the heads predict."""

from __future__ import annotations

import torch
from torch import Tensor


def pyramid_points(
    level_lengths: list[int], strides: list[int], regression_range: list[tuple[float, float]], device: torch.device
) -> list[Tensor]:
    """(T_l, 4) per level: time of the point, range of the distances it answers for (low, high), stride; all in
    steps of the feature grid. Point i of a level with stride S lies at i * S, without a half-cell offset."""
    points = []
    for length, stride, (low, high) in zip(level_lengths, strides, regression_range, strict=True):
        level = torch.empty(length, 4, device=device)
        level[:, 0] = torch.arange(length, device=device) * stride
        level[:, 1], level[:, 2], level[:, 3] = low, high, stride
        points.append(level)
    return points
