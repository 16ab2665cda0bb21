"""The two interpretations of class logits, sigmoid and softmax, and the scores, targets and losses of each."""

from __future__ import annotations

from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses import BALANCE, sigmoid_class_loss, sigmoid_focal_loss, softmax_class_loss, with_background


class ClassForm(str, Enum):
    """Form of the class loss, `model.class_form`. For C classes, class targets have K columns.

    SIGMOID: an independent score per class, K = C. SOFTMAX: one distribution over the classes and the background,
    K = C + 1, background last; its logit is 0 if the head does not predict it.

    Raises:
        ValueError: unknown name.
    """

    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"

    __str__ = str.__str__  # "sigmoid", as in a configuration

    @classmethod
    def _missing_(cls, value: object) -> ClassForm:
        raise ValueError(f"loss form '{value}' is not one of {[form.value for form in cls]}")

    @property
    def background_columns(self) -> int:
        """Number of background columns, K - C."""
        return int(self is ClassForm.SOFTMAX)

    @property
    def marker(self) -> str | None:
        """Name of an extra buffer in the state dict of a head of this form. It makes loading weights of the other form
        fail."""
        return "softmax_form" if self is ClassForm.SOFTMAX else None

    def classes_sharing_prior(self, num_classes: int) -> int:
        """Number of classes that share the initial probability `train_cfg.cls_prior_prob`."""
        return num_classes if self is ClassForm.SOFTMAX else 1

    def scores(self, logits: Tensor) -> Tensor:
        """Logits (..., C) -> class probabilities (..., C)."""
        if self is ClassForm.SIGMOID:
            return logits.sigmoid()
        return with_background(logits).softmax(dim=-1)[..., :-1]

    def add_background(self, logits: Tensor) -> Tensor:
        """Logits (..., C) of a head without a background logit -> (..., K)."""
        return with_background(logits) if self.background_columns else logits

    def pad_targets(self, values: Tensor) -> Tensor:
        """Class targets or weights (..., C) -> (..., K), with 0 for the background."""
        return F.pad(values, (0, self.background_columns))

    def background_targets(self, num_classes: int, *, weight: float, negatives: bool) -> tuple[Tensor, Tensor]:
        """Class targets Y and weights W, each (K,), of a point whose target is the background.

        Args:
            weight: W of the background and of the classes as negatives.
            negatives: softmax form: whether the classes are negatives; in the sigmoid form they always are.
        """
        y, w = torch.zeros(num_classes), torch.full((num_classes,), weight)
        if self is ClassForm.SIGMOID:
            return y, w
        return F.pad(y, (0, 1), value=1.0), F.pad(w if negatives else 0 * w, (0, 1), value=weight)

    def self_training_weight(self, target: Tensor) -> Tensor:
        """W (..., K) for plain self-training on class targets Y (..., K): Y itself in the softmax form (cross-entropy),
        1 in the sigmoid form."""
        return target.clone() if self is ClassForm.SOFTMAX else torch.ones_like(target)

    def unbalanced_weight(self, target: Tensor) -> Tensor:
        """W with which the loss on class targets Y has no class balance: (quality) focal loss in the sigmoid form."""
        if self is ClassForm.SOFTMAX:
            return torch.ones_like(target)
        return 1 / (BALANCE * target + (1 - BALANCE) * (1 - target))

    def loss(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Class loss (...,) from logits, targets Y and weights W, each (..., K)."""
        return (sigmoid_class_loss if self is ClassForm.SIGMOID else softmax_class_loss)(logits, target, weight)

    def labeled_loss(self, logits: Tensor, target: Tensor, weight: Tensor, *, positive: Tensor) -> Tensor:
        """Unreduced class loss of N points with supervised targets: (N, C) focal loss in the sigmoid form, as in
        ActionFormer; (N,) `softmax_class_loss` in the softmax form.

        Args:
            logits, target: (N, C); weight: (N, 1 or C).
            positive: (N,) bool, points with an event; the target of the other points is the background.
        """
        if self is ClassForm.SIGMOID:
            return sigmoid_focal_loss(logits, target) * weight
        y = torch.cat([target, (~positive).to(target)[..., None]], dim=-1)
        return softmax_class_loss(with_background(logits), y, weight.amax(-1, keepdim=True).expand_as(y))
