"""`target`: self-training on the target class, the paper's baseline."""

from torch import Tensor

from actionformer_nt.label_space import partition

from .base import ClassTargets, Options, one_hot_targets


def class_targets(probs: Tensor, options: Options) -> ClassTargets:
    return one_hot_targets(partition(probs, options.lam).target, options)
