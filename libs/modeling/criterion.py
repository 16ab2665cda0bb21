"""Logits, offsets and targets -> losses."""

from __future__ import annotations

from torch import Tensor

from libs.core import distributed

from .assignment import Targets
from .class_form import ClassForm
from .losses import ctr_diou_loss_1d


class Criterion:
    """Class loss on all points with a weight (`ClassForm.labeled_loss`) and distance IoU loss on the positive points.

    Both are divided by `loss_normalizer`, a running mean of the number of positive points.

    Args:
        loss_weight: weight of the regression loss; <= 0: chosen so that both terms are equal.
        label_smoothing: epsilon in y (1 - epsilon) + epsilon / (C + 1).
        init_loss_norm: initial value of `loss_normalizer`.
        class_form: interpretation of the logits.
    """

    MOMENTUM = 0.9

    def __init__(
        self,
        *,
        loss_weight: float = 1.0,
        label_smoothing: float = 0.0,
        init_loss_norm: float = 100.0,
        class_form: ClassForm | str = ClassForm.SIGMOID,
    ) -> None:
        self.loss_weight, self.label_smoothing = loss_weight, label_smoothing
        self.loss_normalizer, self.class_form = float(init_loss_norm), ClassForm(class_form)

    def __call__(self, logits: Tensor, offsets: Tensor, targets: Targets) -> dict[str, Tensor]:
        """
        Args:
            logits: (B, P, C); offsets: (B, P, 2) in units of the stride.

        Returns:
            Scalars `cls_loss`, `reg_loss` and their weighted sum `final_loss`.
        """
        positive = targets.offset_weight > 0  # (B, P)
        count = distributed.total_count(int(positive.sum()))
        self.loss_normalizer = self.MOMENTUM * self.loss_normalizer + (1 - self.MOMENTUM) * max(count, 1)

        cls_target = targets.cls
        if self.label_smoothing:
            cls_target = cls_target * (1 - self.label_smoothing) + self.label_smoothing / (logits.shape[-1] + 1)
        valid = targets.cls_weight.amax(-1) > 0  # (B, P): padding has no class loss
        cls_loss = self.class_form.labeled_loss(
            logits[valid], cls_target[valid], targets.cls_weight[valid], positive=positive[valid]
        )
        cls_loss = cls_loss.sum() / self.loss_normalizer

        if positive.any():
            reg_loss = ctr_diou_loss_1d(offsets[positive], targets.offsets[positive]) * targets.offset_weight[positive]
            reg_loss = reg_loss.sum() / self.loss_normalizer
        else:
            reg_loss = 0.0 * offsets.sum()
        weight = self.loss_weight
        if weight <= 0:
            sums = distributed.total({"cls": float(cls_loss.detach()), "reg": float(reg_loss.detach())})
            weight = sums["cls"] / max(sums["reg"], 0.01)
        return {"cls_loss": cls_loss, "reg_loss": reg_loss, "final_loss": cls_loss + weight * reg_loss}
