"""What class logits mean, and all that follows from it: the only place that tells the two forms apart."""

from __future__ import annotations

from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses import sigmoid_class_loss, sigmoid_focal_loss, softmax_class_loss, with_background


class ClassForm(str, Enum):
    """Loss form of a head; equal to its name in a configuration. C classes make K columns of class targets.

    SIGMOID: each class by itself, K = C. SOFTMAX: all classes and the background together, K = C + 1, the background
    last; a head that does not predict its logit has 0 there.

    Raises:
        ValueError: a name that is neither.
    """

    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"

    @classmethod
    def _missing_(cls, value: object) -> ClassForm:
        raise ValueError(f"loss form '{value}' is not one of {[form.value for form in cls]}")

    @property
    def background_columns(self) -> int:
        """How many columns the background has: 0 or 1."""
        return int(self is ClassForm.SOFTMAX)

    @property
    def marker(self) -> str | None:
        """Name of a buffer that a head of this form has in its state dict, so that weights of one form are not taken
        for the other's."""
        return "softmax_form" if self is ClassForm.SOFTMAX else None

    def classes_sharing_prior(self, num_classes: int) -> int:
        """How many classes share the probability that a head starts with."""
        return num_classes if self is ClassForm.SOFTMAX else 1

    def scores(self, logits: Tensor) -> Tensor:
        """(..., C) logits -> (..., C) probabilities of the classes."""
        if self is ClassForm.SIGMOID:
            return logits.sigmoid()
        return with_background(logits).softmax(dim=-1)[..., :-1]

    def add_background(self, logits: Tensor) -> Tensor:
        """(..., C) logits of a head without a background logit -> (..., K)."""
        return with_background(logits) if self.background_columns else logits

    def pad_targets(self, values: Tensor) -> Tensor:
        """(..., C) class targets or weights -> (..., K), with 0 for the background."""
        return F.pad(values, (0, self.background_columns))

    def background_targets(self, num_classes: int, *, weight: float, negatives: bool) -> tuple[Tensor, Tensor]:
        """Y and W (K,) of a point without an event.

        Args:
            weight: W of the target, and of its negatives.
            negatives: whether in the softmax form the classes are negatives; in the sigmoid form they always are.
        """
        y, w = torch.zeros(num_classes), torch.full((num_classes,), weight)
        if self is ClassForm.SIGMOID:
            return y, w
        return F.pad(y, (0, 1), value=1.0), F.pad(w if negatives else 0 * w, (0, 1), value=weight)

    def self_training_weight(self, target: Tensor) -> Tensor:
        """W (..., K) for training on the target classes Y alone: the softmax form has the target's term only, the
        sigmoid form one term for every class."""
        return target.clone() if self is ClassForm.SOFTMAX else torch.ones_like(target)

    def loss(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Class loss (...,) of logits, Y and W, each (..., K)."""
        return (sigmoid_class_loss if self is ClassForm.SIGMOID else softmax_class_loss)(logits, target, weight)

    def labeled_loss(self, logits: Tensor, target: Tensor, weight: Tensor, *, positive: Tensor) -> Tensor:
        """Unreduced loss of N points with supervised targets: ActionFormer's focal loss, or target and negative loss
        over the classes and the background.

        Args:
            logits, target: (N, C); weight: (N, 1 or C).
            positive: (N,) bool, points of some event; the target of the others is the background.
        """
        if self is ClassForm.SIGMOID:
            return sigmoid_focal_loss(logits, target) * weight
        y = torch.cat([target, (~positive).to(target)[..., None]], dim=-1)
        return softmax_class_loss(with_background(logits), y, weight.amax(-1, keepdim=True).expand_as(y))
