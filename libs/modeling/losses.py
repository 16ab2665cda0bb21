"""Losses on logits and offsets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.mean() if loss.numel() else loss.sum()
    return loss


def sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "none"
) -> Tensor:
    """Focal loss (Lin et al., 2017) on logits; targets of the same shape in [0, 1]. alpha < 0: no class balance."""
    probability = torch.sigmoid(inputs)
    loss = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    correct = probability * targets + (1 - probability) * (1 - targets)
    loss = loss * (1 - correct) ** gamma
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return _reduce(loss, reduction)


def _overlap_1d(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intersection, union and enclosing length of segments given as distances (..., 2) from one common point."""
    inter = torch.minimum(inputs, targets).sum(-1)
    union = inputs.sum(-1) + targets.sum(-1) - inter
    enclosing = torch.maximum(inputs, targets).sum(-1)
    return inter, union, enclosing


def ctr_giou_loss_1d(inputs: Tensor, targets: Tensor, reduction: str = "none", eps: float = 1e-8) -> Tensor:
    """1 - IoU of segments around a common point (which enclose it, so that generalised IoU equals IoU)."""
    inter, union, _ = _overlap_1d(inputs, targets)
    return _reduce(1.0 - inter / union.clamp(min=eps), reduction)


def ctr_diou_loss_1d(inputs: Tensor, targets: Tensor, reduction: str = "none", eps: float = 1e-8) -> Tensor:
    """Distance IoU loss (Zheng et al., 2020) in one dimension.

    Args:
        inputs, targets: (..., 2) distances to start and end, >= 0.
    """
    inter, union, enclosing = _overlap_1d(inputs, targets)
    centre_distance = 0.5 * ((inputs[..., 1] - inputs[..., 0]) - (targets[..., 1] - targets[..., 0]))
    penalty = (centre_distance / enclosing.clamp(min=eps)).square()
    return _reduce(1.0 - inter / union.clamp(min=eps) + penalty, reduction)
