"""Learning from target, negative and positive classes (Eq. 5, 9, 11 and 12), and the two forms a head uses.

All losses are per point and unreduced: (..., K) logits -> (...). Logarithms come from logits, never from clamped
probabilities, so that they are finite wherever the loss is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from libs.modeling.losses import log_one_minus_softmax, softmax_class_loss

from .label_space import Partition

FORMS = ("sigmoid", "softmax")


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

    Labeled points: target and negative loss, every class but the targets being negative. Unlabeled points: target,
    negative and positive loss of the teacher's partition.
    """
    if labeled:
        return target_loss(logits, parts.target) + negative_loss(logits, ~parts.target)
    return (
        target_loss(logits, parts.target)
        + negative_loss(logits, parts.negative)
        + positive_loss(logits, parts.positive, reduction=positive_reduction)
    )


def sigmoid_class_loss(
    logits: Tensor, target: Tensor, weight: Tensor, *, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """sum_c W_c (alpha Y + (1 - alpha)(1 - Y)) |Y_c - s_c|^gamma BCE(s_c, Y_c) with s = sigmoid; (...,).

    With Y in {0, 1} this is the stock focal loss; with a fractional Y (quality focal loss, Li et al., 2020) its minimum
    is at s = Y, where that of the stock focal loss is elsewhere. alpha < 0: no class balance; gamma 0: plain BCE.
    """
    logits = logits.float()
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if gamma:
        loss = loss * (target - logits.sigmoid()).abs() ** gamma
    if alpha >= 0:
        loss = loss * (alpha * target + (1 - alpha) * (1 - target))
    return (weight * loss).sum(dim=-1)


def class_loss(form: str, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The loss that a head applies to a method's Y and W."""
    if form not in FORMS:
        raise ValueError(f"loss form '{form}' is not one of {list(FORMS)}")
    return (sigmoid_class_loss if form == "sigmoid" else softmax_class_loss)(logits, target, weight)
