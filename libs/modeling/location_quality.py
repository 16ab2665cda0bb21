"""The quality of a predicted location: its tIoU with the event, and the distance of their centres.

Source: Zhou et al., "Towards Adaptive Pseudo-label Learning for Semi-Supervised Temporal Action Localization" (ECCV
2024), where a branch predicts both, and scores are multiplied by their difference. The losses are reconstructed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

INITIAL_LOGITS = (0.0, -2.0)  # of tIoU and distance: .5 and .12, since a head that knows nothing must not rule all out


def location_quality(segments: Tensor, events: Tensor) -> Tensor:
    """What a quality head should predict, (N, 2) in [0, 1]: tIoU of segments and events, each (N, 2) start and end, and
    the distance of their centres divided by the length that both enclose. Without any length: 0 and 1."""
    inter = (torch.minimum(segments[:, 1], events[:, 1]) - torch.maximum(segments[:, 0], events[:, 0])).clamp(min=0)
    union = (segments[:, 1] - segments[:, 0]) + (events[:, 1] - events[:, 0]) - inter
    enclosing = torch.maximum(segments[:, 1], events[:, 1]) - torch.minimum(segments[:, 0], events[:, 0])
    distance = 0.5 * ((segments[:, 0] + segments[:, 1]) - (events[:, 0] + events[:, 1])).abs()
    iou = torch.where(union > 0, inter / union.clamp(min=1e-8), 0.0)
    return torch.stack([iou, torch.where(enclosing > 0, distance / enclosing.clamp(min=1e-8), 1.0)], dim=1)


def offset_quality(offsets: Tensor, targets: Tensor) -> Tensor:
    """`location_quality` of segments that are given as distances (N, 2) from a common point to start and end."""
    sign = offsets.new_tensor([-1.0, 1.0])
    return location_quality(offsets * sign, targets * sign)


def quality_factor(quality: Tensor) -> Tensor:
    """tIoU and centre distance (..., 2) -> the factor of scores clip(tIoU - distance, 0, 1), (...,)."""
    return (quality[..., 0] - quality[..., 1]).clamp(0, 1)


def predicted_factor(logits: Tensor) -> Tensor:
    """`quality_factor` of the logits (..., 2) of a quality head."""
    return quality_factor(logits.sigmoid())


def quality_loss(logits: Tensor, quality: Tensor) -> Tensor:
    """Cross-entropy (N,) between a quality head's logits and `location_quality`, both (N, 2): the sum over the two."""
    return F.binary_cross_entropy_with_logits(logits, quality, reduction="none").sum(dim=-1)
