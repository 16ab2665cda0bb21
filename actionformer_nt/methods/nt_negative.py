"""`nt_negative`: target and negative classes; positive and ambiguous classes are ignored."""

from torch import Tensor

from .base import ClassTargets, Options
from .label_space import partition


def class_targets(probs: Tensor, options: Options) -> ClassTargets:
    parts = partition(probs, options.lam)
    return ClassTargets(parts.target.float(), (parts.target | parts.negative).float())
