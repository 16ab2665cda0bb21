"""The loss of unlabeled videos."""

from __future__ import annotations

import torch
from torch import Tensor

from actionformer_nt.methods.losses import class_loss
from libs.core import distributed
from libs.modeling.assignment import Targets
from libs.modeling.losses import ctr_diou_loss_1d, with_background


class UnlabeledCriterion:
    """Class loss on Y and W, distance IoU on pseudo segments, over a running mean of the number of their points.

    The mean never falls below a tenth of the labeled one's, towards which it drifts where there are no pseudo labels:
    hundreds of such steps do no harm to the first that has some.

    The mean starts at the labeled one's. It is None before the first call.
    """

    MOMENTUM = 0.9
    FLOOR = 0.1

    def __init__(self, *, form: str, reg_weight: float) -> None:
        self.form, self.reg_weight = form, reg_weight
        self.normalizer: float | None = None

    def __call__(
        self, logits: Tensor, offsets: Tensor, targets: Targets, *, labeled_normalizer: float
    ) -> dict[str, Tensor]:
        """
        Args:
            logits: (B, P, C); offsets: (B, P, 2); targets: classes and weights (B, P, C), with the background as a
                last column in the softmax form.

        Returns:
            `cls_loss`, `reg_loss` and `loss`, their weighted sum.
        """
        positive = targets.offset_weight > 0
        count = distributed.total_count(int(positive.sum()))
        least = self.FLOOR * labeled_normalizer
        before = labeled_normalizer if self.normalizer is None else self.normalizer
        self.normalizer = self.MOMENTUM * before + (1 - self.MOMENTUM) * max(count, least)
        used = targets.cls_weight.amax(-1) > 0
        y, w = targets.cls, targets.cls_weight
        if self.form == "softmax":
            logits = with_background(logits)
        cls_loss = class_loss(self.form, logits[used].float(), y[used], w[used]).sum()
        cls_loss = cls_loss / self.normalizer
        if positive.any():
            reg_loss = ctr_diou_loss_1d(offsets[positive].float(), targets.offsets[positive]).sum() / self.normalizer
        else:
            reg_loss = 0.0 * offsets.sum()
        return {"cls_loss": cls_loss, "reg_loss": reg_loss, "loss": cls_loss + self.reg_weight * reg_loss}


def ramp(iteration: int, length: int) -> float:
    """exp(-5 (1 - t)^2), t from 0 to 1 over `length` iterations (Laine and Aila, 2017); 1 from then on."""
    if iteration >= length:
        return 1.0
    return float(torch.exp(torch.tensor(-5.0 * (1 - iteration / length) ** 2)))
