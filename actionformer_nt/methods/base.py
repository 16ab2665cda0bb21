"""What every method is: a function from a teacher's class distribution to class targets and weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from libs.modeling.class_form import ClassForm


class ClassTargets(NamedTuple):
    """Y in [0, 1] and W >= 0 (0: the class is ignored), both of the shape of the distribution (..., K)."""

    target: Tensor
    weight: Tensor


@dataclass(frozen=True, kw_only=True)
class Options:
    """What methods may depend on beside the distribution.

    Attributes:
        form: loss form of the head; equal to "sigmoid" or "softmax", and may be given as such.
        lam: lambda of the partition.
        positive: with the sigmoid form, "split" (Y = 1/|S| on target and positives) or "hard" (Y = 1).
        positive_reduction: "sum" over the positives as in the paper, or "mean".
        generator: of methods that draw.
        true_class: (...,) indices, for the diagnostic oracle only.
    """

    form: ClassForm = ClassForm.SIGMOID
    lam: float = 0.85
    positive: str = "split"
    positive_reduction: str = "sum"
    generator: torch.Generator | None = None
    true_class: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "form", ClassForm(self.form))


Method = Callable[[Tensor, Options], ClassTargets]


def one_hot_targets(target: Tensor, options: Options) -> ClassTargets:
    """Self-training on the boolean mask `target` (..., K) alone."""
    y = target.float()
    return ClassTargets(y, options.form.self_training_weight(y))
