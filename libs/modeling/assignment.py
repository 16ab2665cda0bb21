"""Label assignment: which pyramid point answers for which event."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SAME_LENGTH = 1e-3  # grid steps; eligible events this much longer than the shortest one share a point's class target


class Targets(NamedTuple):
    """Per pyramid point, all levels concatenated (P points in all)."""

    cls: Tensor  # Y (B, P, C) in [0, 1]
    cls_weight: Tensor  # W (B, P, 1 or C); 0: ignored
    offsets: Tensor  # R (B, P, 2) distances to start and end in units of the stride
    offset_weight: Tensor  # V (B, P); 0: no regression


def assign_labels(
    points: Tensor,
    mask: Tensor,
    segments: list[Tensor],
    labels: list[Tensor],
    *,
    num_classes: int,
    center_sample: str = "radius",
    center_sample_radius: float = 1.5,
) -> Targets:
    """Supervised targets as in ActionFormer: every valid point counts for every class, points inside an event
    (within `center_sample_radius` strides of its centre, or anywhere) whose distances fit the level's range are
    positive, and the shortest event wins.

    Args:
        points: (P, 4) of `pyramid_points`, concatenated.
        mask: (B, P) valid points.
        segments: per video (N, 2) in grid steps; labels: per video (N,).
    """
    assigned = [
        _assign_video(points, s, y, num_classes, center_sample, center_sample_radius)
        for s, y in zip(segments, labels, strict=True)
    ]
    cls = torch.stack([c for c, _ in assigned])
    offsets = torch.stack([o for _, o in assigned])
    positive = (cls.sum(-1) > 0) & mask
    return Targets(cls, mask[..., None].to(cls.dtype), offsets, positive.to(cls.dtype))


def _assign_video(
    points: Tensor, segments: Tensor, labels: Tensor, num_classes: int, center_sample: str, radius: float
) -> tuple[Tensor, Tensor]:
    """Class target (P, C) and offsets (P, 2) of one video."""
    if not len(segments):
        return points.new_zeros(len(points), num_classes), points.new_zeros(len(points), 2)
    time, low, high, stride = points[:, :, None].unbind(1)  # each (P, 1)
    start, end = segments[None].unbind(-1)  # each (1, N)
    left, right = time - start, end - time  # (P, N)
    if center_sample == "radius":
        center = 0.5 * (start + end)
        inside = (time - torch.maximum(center - radius * stride, start) > 0) & (
            torch.minimum(center + radius * stride, end) - time > 0
        )
    else:
        inside = (left > 0) & (right > 0)
    reach = torch.maximum(left, right)
    eligible = inside & (reach >= low) & (reach <= high)

    length = torch.where(eligible, (end - start).expand_as(eligible), torch.inf)
    shortest, chosen = length.min(dim=1)
    shared = eligible & (length <= shortest[:, None] + SAME_LENGTH)  # (P, N)
    one_hot = F.one_hot(labels, num_classes).to(points.dtype)  # (N, C)
    cls = (shared.to(points.dtype) @ one_hot).clamp(max=1.0)
    offsets = torch.stack([left, right], dim=-1)[torch.arange(len(points), device=points.device), chosen]
    return cls, offsets / points[:, 3:4]
