"""The loss of unlabeled videos."""

from __future__ import annotations

import torch
from torch import Tensor

from libs.core import distributed
from libs.modeling.assignment import Targets
from libs.modeling.class_form import ClassForm
from libs.modeling.losses import ctr_diou_loss_1d


class UnlabeledCriterion:
    """Class loss on all points with a weight, and distance IoU loss on the points of pseudo segments.

    Both are divided by `normalizer`, a running mean of the number of points of pseudo segments. It starts at the
    labeled loss normaliser (None before the first call). An iteration counts at least `FLOOR` times the labeled
    normaliser, so that the loss does not explode at the first pseudo labels after many iterations without any.

    Args:
        form: class form of the model.
        reg_weight: weight of the regression loss in `loss`.
    """

    MOMENTUM = 0.9
    FLOOR = 0.1

    def __init__(self, *, form: str, reg_weight: float) -> None:
        self.form, self.reg_weight = ClassForm(form), reg_weight
        self.normalizer: float | None = None

    def __call__(
        self, logits: Tensor, offsets: Tensor, targets: Targets, *, labeled_normalizer: float
    ) -> dict[str, Tensor]:
        """
        Args:
            logits: (B, P, C); offsets: (B, P, 2) in units of the stride.
            targets: class targets and weights (B, P, K), see `ClassForm`.
            labeled_normalizer: loss normaliser of the labeled videos.

        Returns:
            Scalars `cls_loss`, `reg_loss` and their weighted sum `loss`.
        """
        positive = targets.offset_weight > 0
        count = distributed.total_count(int(positive.sum()))
        floor = self.FLOOR * labeled_normalizer
        normalizer = labeled_normalizer if self.normalizer is None else self.normalizer
        self.normalizer = self.MOMENTUM * normalizer + (1 - self.MOMENTUM) * max(count, floor)
        used = targets.cls_weight.amax(-1) > 0
        y, w = targets.cls, targets.cls_weight
        logits = self.form.add_background(logits)
        cls_loss = self.form.loss(logits[used].float(), y[used], w[used]).sum()
        cls_loss = cls_loss / self.normalizer
        if positive.any():
            reg_loss = ctr_diou_loss_1d(offsets[positive].float(), targets.offsets[positive]).sum() / self.normalizer
        else:
            reg_loss = 0.0 * offsets.sum()
        return {"cls_loss": cls_loss, "reg_loss": reg_loss, "loss": cls_loss + self.reg_weight * reg_loss}


def ramp(iteration: int, length: int) -> float:
    """Ramp-up exp(-5 (1 - t)^2) with t = iteration / length (Laine and Aila, 2017); 1 from `length` on."""
    if iteration >= length:
        return 1.0
    return float(torch.exp(torch.tensor(-5.0 * (1 - iteration / length) ** 2)))
