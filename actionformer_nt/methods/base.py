"""What every method is: a function from a teacher's class distribution to class targets and weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .losses import FORMS


class ClassTargets(NamedTuple):
    """Y in [0, 1] and W >= 0 (0: the class is ignored), both of the shape of the distribution (..., K)."""

    target: Tensor
    weight: Tensor


@dataclass(frozen=True, kw_only=True)
class Options:
    """What methods may depend on beside the distribution.

    Attributes:
        form: loss form of the head, "sigmoid" or "softmax".
        lam: lambda of the partition.
        positive: with the sigmoid form, "split" (Y = 1/|S| on target and positives) or "hard" (Y = 1).
        positive_reduction: "sum" over the positives as in the paper, or "mean".
        generator: of methods that draw.
        true_class: (...,) indices, for the diagnostic oracle only.
    """

    form: str = "sigmoid"
    lam: float = 0.85
    positive: str = "split"
    positive_reduction: str = "sum"
    generator: torch.Generator | None = None
    true_class: Tensor | None = None

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"loss form '{self.form}' is not one of {list(FORMS)}")


Method = Callable[[Tensor, Options], ClassTargets]


def one_hot_targets(target: Tensor, options: Options) -> ClassTargets:
    """Self-training on `target` (..., K) alone: the softmax form has the target's term only, the sigmoid form one term
    for every class."""
    y = target.float()
    return ClassTargets(y, y.clone() if options.form == "softmax" else torch.ones_like(y))
