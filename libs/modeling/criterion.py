"""Logits, offsets and targets -> losses."""

from __future__ import annotations

from torch import Tensor

from libs.core import distributed

from .assignment import Targets
from .class_form import ClassForm
from .location_quality import offset_quality, quality_factor, quality_loss
from .losses import ctr_diou_loss_1d, sigmoid_class_loss


class Criterion:
    """Class loss on all points with a weight (`ClassForm.labeled_loss`); distance IoU loss and the loss of the quality
    head on the positive points.

    All are divided by `loss_normalizer`, a running mean of the number of positive points.

    Args:
        loss_weight: weight of the regression loss; <= 0: chosen so that both terms are equal.
        label_smoothing: epsilon in y (1 - epsilon) + epsilon / (C + 1).
        init_loss_norm: initial value of `loss_normalizer`.
        class_form: interpretation of the logits.
        quality_weight: weight of the loss of the quality head.
        soft_labels: the class targets of positive points are multiplied by `quality_factor` of their present segments;
            sigmoid form only.

    Raises:
        ValueError: `soft_labels` in the softmax form.
    """

    MOMENTUM = 0.9

    def __init__(
        self,
        *,
        loss_weight: float = 1.0,
        label_smoothing: float = 0.0,
        init_loss_norm: float = 100.0,
        class_form: ClassForm | str = ClassForm.SIGMOID,
        quality_weight: float = 1.0,
        soft_labels: bool = False,
    ) -> None:
        self.loss_weight, self.label_smoothing = loss_weight, label_smoothing
        self.loss_normalizer, self.class_form = float(init_loss_norm), ClassForm(class_form)
        self.quality_weight, self.soft_labels = quality_weight, soft_labels
        if soft_labels and self.class_form is not ClassForm.SIGMOID:
            raise ValueError("train_cfg.soft_labels: needs model.class_form: sigmoid")

    def __call__(
        self, logits: Tensor, offsets: Tensor, targets: Targets, quality: Tensor | None = None
    ) -> dict[str, Tensor]:
        """
        Args:
            logits: (B, P, C); offsets: (B, P, 2) in units of the stride.
            quality: (B, P, 2) logits of the quality head; None: there is none.

        Returns:
            Scalars `cls_loss`, `reg_loss`, with a quality head `quality_loss`, and their weighted sum `final_loss`.
        """
        positive = targets.offset_weight > 0  # (B, P)
        count = distributed.total_count(int(positive.sum()))
        self.loss_normalizer = self.MOMENTUM * self.loss_normalizer + (1 - self.MOMENTUM) * max(count, 1)

        cls_target = targets.cls
        if self.label_smoothing:
            cls_target = cls_target * (1 - self.label_smoothing) + self.label_smoothing / (logits.shape[-1] + 1)
        found = None  # (positive points, 2)
        if self.soft_labels or quality is not None:
            found = offset_quality(offsets[positive].detach(), targets.offsets[positive])
        if self.soft_labels and found is not None:
            cls_target = cls_target.clone()
            cls_target[positive] *= quality_factor(found)[:, None]
        cls_loss = self._class_loss(logits, cls_target, targets, positive)
        if positive.any():
            reg_loss = ctr_diou_loss_1d(offsets[positive], targets.offsets[positive]) * targets.offset_weight[positive]
            reg_loss = reg_loss.sum() / self.loss_normalizer
        else:
            reg_loss = 0.0 * offsets.sum()
        weight = self.loss_weight
        if weight <= 0:
            sums = distributed.total({"cls": float(cls_loss.detach()), "reg": float(reg_loss.detach())})
            weight = sums["cls"] / max(sums["reg"], 0.01)
        losses = {"cls_loss": cls_loss, "reg_loss": reg_loss}
        total = cls_loss + weight * reg_loss
        if quality is not None and found is not None:
            losses["quality_loss"] = quality_loss(quality[positive], found).sum() / self.loss_normalizer
            total = total + self.quality_weight * losses["quality_loss"]
        return losses | {"final_loss": total}

    def _class_loss(self, logits: Tensor, target: Tensor, targets: Targets, positive: Tensor) -> Tensor:
        """The class loss of targets (B, P, C) with the weights of `targets`, a scalar."""
        valid = targets.cls_weight.amax(-1) > 0  # (B, P): padding has no class loss
        columns = logits[valid], target[valid], targets.cls_weight[valid]
        if self.soft_labels:
            loss = sigmoid_class_loss(*columns)
        else:
            loss = self.class_form.labeled_loss(*columns, positive=positive[valid])
        return loss.sum() / self.loss_normalizer
