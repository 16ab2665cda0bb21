"""Losses on logits and offsets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BALANCE = 0.25  # alpha of the focal loss: weight of positive against negative targets


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.mean() if loss.numel() else loss.sum()
    return loss


def sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = BALANCE, gamma: float = 2.0, reduction: str = "none"
) -> Tensor:
    """Focal loss (Lin et al., 2017) on logits; targets have the same shape, in [0, 1]. alpha < 0: no class balance."""
    probability = torch.sigmoid(inputs)
    loss = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    correct = probability * targets + (1 - probability) * (1 - targets)
    loss = loss * (1 - correct) ** gamma
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return _reduce(loss, reduction)


def log_one_minus_softmax(logits: Tensor) -> Tensor:
    """log(1 - softmax(logits)), (..., K); -inf for K = 1.

    Computing 1 - p would cancel for the most probable class, so the probabilities of the other classes are summed.
    """
    log_p = F.log_softmax(logits, dim=-1)
    top = torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, logits.argmax(dim=-1, keepdim=True), True)
    if logits.shape[-1] == 1:
        return torch.full_like(logits, -torch.inf)
    others = logits.masked_fill(top, -torch.inf)
    log_top = torch.logsumexp(others, dim=-1, keepdim=True) - torch.logsumexp(logits, dim=-1, keepdim=True)
    log_others = torch.log1p(-log_p.masked_fill(top, -1.0).exp())  # p <= 1/2; the fill value keeps gradients finite
    return torch.where(top, log_top, log_others)


def sigmoid_class_loss(
    logits: Tensor, target: Tensor, weight: Tensor, *, alpha: float = BALANCE, gamma: float = 2.0
) -> Tensor:
    """sum_c W_c (alpha Y + (1 - alpha)(1 - Y)) |Y_c - s_c|^gamma BCE(s_c, Y_c) with s = sigmoid; (...,).

    For Y in {0, 1} this is the focal loss. For fractional Y it is the quality focal loss (Li et al., 2020); its minimum
    is at s = Y, which the focal loss does not guarantee. alpha < 0: no class balance; gamma = 0: binary cross-entropy.
    """
    logits = logits.float()
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if gamma:
        loss = loss * (target - logits.sigmoid()).abs() ** gamma
    if alpha >= 0:
        loss = loss * (alpha * target + (1 - alpha) * (1 - target))
    return (weight * loss).sum(dim=-1)


def softmax_class_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """sum_c W_c (-Y_c log p_c - (1 - Y_c) log(1 - p_c)) with p = softmax; (...,).

    Args:
        target, weight: Y and W, (..., K).
    """
    logits = logits.float()
    pull, push = weight * target, weight * (1 - target)
    return -(
        torch.where(pull > 0, pull * F.log_softmax(logits, dim=-1), 0.0)
        + torch.where(push > 0, push * log_one_minus_softmax(logits), 0.0)
    ).sum(dim=-1)


def with_background(logits: Tensor, background: float = 0.0) -> Tensor:
    """Appends a background logit: (..., C) -> (..., C + 1)."""
    return F.pad(logits, (0, 1), value=background)


def _overlap_1d(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intersection, union and enclosing length of two segments, given as distances (..., 2) from a common point."""
    inter = torch.minimum(inputs, targets).sum(-1)
    union = inputs.sum(-1) + targets.sum(-1) - inter
    enclosing = torch.maximum(inputs, targets).sum(-1)
    return inter, union, enclosing


def ctr_giou_loss_1d(inputs: Tensor, targets: Tensor, reduction: str = "none", eps: float = 1e-8) -> Tensor:
    """Generalised IoU loss in one dimension. Segments around a common point overlap, so GIoU equals IoU: 1 - IoU."""
    inter, union, _ = _overlap_1d(inputs, targets)
    return _reduce(1.0 - inter / union.clamp(min=eps), reduction)


def ctr_diou_loss_1d(inputs: Tensor, targets: Tensor, reduction: str = "none", eps: float = 1e-8) -> Tensor:
    """Distance IoU loss (Zheng et al., 2020) in one dimension.

    Args:
        inputs, targets: (..., 2) distances from a common point to start and end, >= 0.
    """
    inter, union, enclosing = _overlap_1d(inputs, targets)
    centre_distance = 0.5 * ((inputs[..., 1] - inputs[..., 0]) - (targets[..., 1] - targets[..., 0]))
    penalty = (centre_distance / enclosing.clamp(min=eps)).square()
    return _reduce(1.0 - inter / union.clamp(min=eps) + penalty, reduction)


def iou_matrix(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every pair of segments, (N, 2) and (M, 2) start and end -> (N, M)."""
    inter = (torch.minimum(a[:, None, 1], b[None, :, 1]) - torch.maximum(a[:, None, 0], b[None, :, 0])).clamp(min=0)
    union = (a[:, 1] - a[:, 0])[:, None] + (b[:, 1] - b[:, 0])[None, :] - inter
    return inter / union.clamp(min=1e-8)
