"""Losses of SPOT's class and mask branch, from logits, in float32. They are finite even without any target."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from libs.modeling.losses import softmax_class_loss

SMOOTHING = 10.0  # added to the numbers of ones and zeros in `weighted_bce`


def class_loss(
    logits: Tensor, target: Tensor, weight: Tensor, *, focal_gamma: float = 0.0, count: float | None = None
) -> Tensor:
    """Sum of `softmax_class_loss` over the snippets with a positive weight, divided by the number of snippets.

    Args:
        logits, target, weight: logits, Y and W, each (B, T, C + 1).
        focal_gamma: > 0: multiplies the loss l of a snippet by (1 - exp(-l))^gamma. For the cross-entropy this is the
            focal factor (1 - p)^gamma.
        count: number to divide by; None: the number of snippets with a positive weight.
    """
    used = weight.amax(dim=-1) > 0
    loss = softmax_class_loss(logits[used], target[used], weight[used])
    if focal_gamma:
        loss = loss * (-torch.expm1(-loss)).clamp(min=1e-6) ** focal_gamma
    return (loss.sum() + 0.0 * _anchor(logits)) / max(int(used.sum()) if count is None else count, 1)


def mask_loss(logits: Tensor, target: Tensor, rows: Tensor, valid: Tensor, *, bce: float = 0.4) -> Tensor:
    """bce * `weighted_bce` + (1 - bce) * `dice_loss`.

    Args:
        logits, target: (B, T, T), row = query.
        rows: (B, T) bool, queries with a loss; valid: (B, T) bool, valid snippets.
    """
    weight = ((rows & valid)[:, :, None] & valid[:, None, :]).float()  # (B, T, T)
    logits, target = logits.float(), target.float()
    return bce * weighted_bce(logits, target, weight) + (1 - bce) * dice_loss(logits, target, weight)


def weighted_bce(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy, balanced between ones and zeros:

        -1/2 [sum w y log p / (n1 + 10) + sum w (1 - y) log(1 - p) / (n0 + 10)],

    with the numbers n1 of ones and n0 of zeros in the batch. This equals SPOT's cross-entropy with the weights
    c+ = r / 2 and c- = r / (2 (r - 1)), r = N / (n1 + 10), divided by N.

    Args:
        logits, target, weight: (B, T, T).
    """
    ones, zeros = weight * target, weight * (1 - target)
    pull = (ones * F.logsigmoid(logits)).sum() / (ones.sum() + SMOOTHING)
    push = (zeros * F.logsigmoid(-logits)).sum() / (zeros.sum() + SMOOTHING)
    return -0.5 * (pull + push)


def dice_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Dice loss 1 - (2 sum p y + 1) / (sum p^2 + sum y^2 + 1) of every sample; mean over the samples with a positive
    weight.

    Args:
        logits, target, weight: (B, ...).
    """
    p = (logits.sigmoid() * weight).flatten(1)
    y = (target * weight).flatten(1)
    loss = 1 - (2 * (p * y).sum(1) + 1) / (p.square().sum(1) + y.square().sum(1) + 1)
    used = (weight.flatten(1).amax(dim=1) > 0).float() if weight[0].numel() else loss.new_zeros(len(loss))
    return (loss * used).sum() / used.sum().clamp(min=1)


def reconstruction_loss(decoded: Tensor, feats: Tensor, where: Tensor) -> Tensor:
    """Mean squared error between decoded features (B, T, D) and features (B, D, T) at the snippets `where` (B, T)."""
    error = (decoded.float() - feats.transpose(1, 2).float())[where]  # (snippets, D)
    return (error.square().sum() + 0.0 * _anchor(decoded)) / max(error.numel(), 1)


def _anchor(x: Tensor) -> Tensor:
    """A finite scalar that depends on `x`. Times zero, it gives an empty loss a gradient graph."""
    return x[..., :1].float().nan_to_num(0.0, 0.0, 0.0).mean()
