"""Losses of SPOT's two branches, in float32 from logits, and each finite when there is nothing to learn from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from libs.modeling.losses import softmax_class_loss

SMOOTHING = 10.0  # added to the counts of ones and of zeros in the mask's cross-entropy


def class_loss(logits: Tensor, target: Tensor, weight: Tensor, *, focal_gamma: float = 0.0) -> Tensor:
    """Mean over the used snippets of sum_c W_c (-Y_c log p_c - (1 - Y_c) log(1 - p_c)).

    Args:
        logits: (B, T, C + 1); target, weight: Y and W of that shape. A snippet is used iff any of its W is positive.
        focal_gamma: > 0: the loss l of a snippet is multiplied by (1 - exp(-l))^gamma, which for plain cross-entropy is
            the focal factor (1 - p)^gamma.
    """
    used = weight.amax(dim=-1) > 0
    loss = softmax_class_loss(logits[used], target[used], weight[used])
    if focal_gamma:
        loss = loss * (-torch.expm1(-loss)).clamp(min=1e-6) ** focal_gamma
    return (loss.sum() + 0.0 * _anchor(logits)) / max(int(used.sum()), 1)


def mask_loss(logits: Tensor, target: Tensor, rows: Tensor, valid: Tensor, *, bce: float = 0.4) -> Tensor:
    """bce times the balanced cross-entropy plus (1 - bce) times the dice loss.

    Args:
        logits, target: (B, T, T), row = query; rows: (B, T) bool, the queries that count; valid: (B, T) bool, the
            snippets that do.
    """
    weight = ((rows & valid)[:, :, None] & valid[:, None, :]).float()  # (B, T, T)
    logits, target = logits.float(), target.float()
    return bce * weighted_bce(logits, target, weight) + (1 - bce) * dice_loss(logits, target, weight)


def weighted_bce(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy in which ones and zeros weigh the same:

        -1/2 [sum w y log p / (n1 + 10) + sum w (1 - y) log(1 - p) / (n0 + 10)],

    n1 and n0 being the counts of ones and zeros in the batch. These are SPOT's weights c+ = r / 2 and
    c- = r / (2 (r - 1)), r = N / (n1 + 10), over N, written out.
    """
    ones, zeros = weight * target, weight * (1 - target)
    pull = (ones * F.logsigmoid(logits)).sum() / (ones.sum() + SMOOTHING)
    push = (zeros * F.logsigmoid(-logits)).sum() / (zeros.sum() + SMOOTHING)
    return -0.5 * (pull + push)


def dice_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """1 - (2 sum p y + 1) / (sum p^2 + sum y^2 + 1) per sample, 0 for a perfect mask; mean over the samples (B, ...)
    that have any weight."""
    p = (logits.sigmoid() * weight).flatten(1)
    y = (target * weight).flatten(1)
    loss = 1 - (2 * (p * y).sum(1) + 1) / (p.square().sum(1) + y.square().sum(1) + 1)
    used = (weight.flatten(1).amax(dim=1) > 0).float() if weight[0].numel() else loss.new_zeros(len(loss))
    return (loss * used).sum() / used.sum().clamp(min=1)


def reconstruction_loss(decoded: Tensor, feats: Tensor, where: Tensor) -> Tensor:
    """Mean squared error of decoded features (B, T, D) against features (B, D, T) at the snippets `where` (B, T)."""
    error = (decoded.float() - feats.transpose(1, 2).float())[where]  # (snippets, D)
    return (error.square().sum() + 0.0 * _anchor(decoded)) / max(error.numel(), 1)


def _anchor(x: Tensor) -> Tensor:
    """A finite number that depends on `x`, so that a loss over nothing still has a graph."""
    return x[..., :1].float().nan_to_num(0.0, 0.0, 0.0).mean()
