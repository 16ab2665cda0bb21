"""`nt_negative`: target and negative classes; positive and ambiguous classes are ignored.

In the softmax form, where `target` learns from the target class alone, the method adds the negative classes, as in the
paper's Table II. With a sigmoid head it is the reverse: `target` has every other class as a negative, and this method
takes the positive and ambiguous ones away.
"""

from torch import Tensor

from .evidence import ClassTargets, Options
from .label_space import partition

SPARES = True  # learns from non-target classes
SIGMOID_NOTICE = (
    "nt_negative with a sigmoid head teaches less than target, which has all other classes as negatives: it leaves out "
    "positive and ambiguous classes. The paper compares them in the softmax form, where nt_negative teaches more"
)


def class_targets(probs: Tensor, options: Options) -> ClassTargets:
    parts = partition(probs, options.lam)
    return ClassTargets(parts.target.float(), (parts.target | parts.negative).float())
