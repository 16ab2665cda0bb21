"""`nt`: the full method, learning from target, positive and negative classes.

In the softmax form these are the losses of the paper. With a sigmoid head `target` has every other class as a negative,
so there `nt` adds the positive classes and takes the ambiguous ones away.
"""

from torch import Tensor

from libs.modeling.class_form import ClassForm

from .evidence import ClassTargets, Options
from .label_space import partition

SPARES = True  # learns from non-target classes


def class_targets(probs: Tensor, options: Options) -> ClassTargets:
    parts = partition(probs, options.lam)
    supported = parts.target | parts.positive  # S
    num_positive = parts.positive.sum(-1, keepdim=True)
    if options.form is ClassForm.SOFTMAX:  # the loss is minimal at p = 1/|S| for each class in S
        positive_weight = 1.0 / num_positive.clamp(min=1) if options.positive_reduction == "mean" else 1.0
        weight = (parts.target | parts.negative).float() + parts.positive.float() * positive_weight
        return ClassTargets(supported.float(), weight)
    if options.positive == "hard":
        return ClassTargets(supported.float(), (supported | parts.negative).float())
    size = (num_positive + 1).float()
    weight_supported = size if options.positive_reduction == "sum" else size.new_ones(size.shape)
    return ClassTargets(supported.float() / size, supported.float() * weight_supported + parts.negative.float())
