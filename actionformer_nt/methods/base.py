"""The interface of methods: a function from a teacher's class distribution to class targets and weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from libs.modeling.class_form import ClassForm


class ClassTargets(NamedTuple):
    """Targets Y in [0, 1] and weights W >= 0 (0: the class is ignored), both (..., K) like the distribution."""

    target: Tensor
    weight: Tensor


@dataclass(frozen=True, kw_only=True)
class Options:
    """Parameters of methods.

    Attributes:
        form: loss form of the classification head, "sigmoid" or "softmax".
        lam: lambda of the partition.
        positive: with the sigmoid form, "split" (Y = 1/|S| on target and positive classes) or "hard" (Y = 1).
        positive_reduction: "sum" over the positive classes as in the paper, or "mean".
        generator: random numbers of methods that draw.
        true_class: (...,) class indices, for the diagnostic oracle only.
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
    """Targets of self-training on the classes of the boolean mask `target` (..., K) alone."""
    y = target.float()
    return ClassTargets(y, options.form.self_training_weight(y))
