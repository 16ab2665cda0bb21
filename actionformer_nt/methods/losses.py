"""Losses of target, negative and positive classes (Eq. 5, 9, 11 and 12 of the paper).

All losses are per point and unreduced: (..., K) logits -> (...). Log probabilities are computed from logits, never from
clamped probabilities, so that they are finite.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from libs.modeling.losses import log_one_minus_softmax

from .label_space import Partition


def _sum_where(mask: Tensor, values: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum(dim=-1)


def target_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Eq. 5: minus the log probability of the classes in `mask` (..., K)."""
    return -_sum_where(mask, F.log_softmax(logits.float(), dim=-1))


def negative_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Eq. 9: minus the sum of log(1 - p) over the classes in `mask`."""
    return -_sum_where(mask, log_one_minus_softmax(logits.float()))


def positive_loss(logits: Tensor, mask: Tensor, *, reduction: str = "sum") -> Tensor:
    """Eq. 11: minus the sum (as in the paper) or mean of log p over the classes in `mask`."""
    loss = target_loss(logits, mask)
    return loss / mask.sum(dim=-1).clamp(min=1) if reduction == "mean" else loss


def hybrid_loss(logits: Tensor, parts: Partition, *, labeled: bool, positive_reduction: str = "sum") -> Tensor:
    """The classification part of Eq. 12.

    Labeled points: target loss, and negative loss of all other classes. Unlabeled points: target, negative and positive
    loss of the teacher's partition.
    """
    if labeled:
        return target_loss(logits, parts.target) + negative_loss(logits, ~parts.target)
    return (
        target_loss(logits, parts.target)
        + negative_loss(logits, parts.negative)
        + positive_loss(logits, parts.positive, reduction=positive_reduction)
    )
