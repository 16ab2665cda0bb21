"""`target`: self-training on the target class, the paper's baseline."""

from torch import Tensor

from .base import one_hot_targets
from .evidence import ClassTargets, Options
from .label_space import partition


def class_targets(probs: Tensor, options: Options) -> ClassTargets:
    return one_hot_targets(partition(probs, options.lam).target, options)
