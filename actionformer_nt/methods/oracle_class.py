"""`oracle_class`: the true classes on the teacher's segments.

A diagnostic: it bounds what methods can gain that correct only the classes of these segments. Events that the teacher
misses stay background, so it says nothing about location. It uses hidden labels and is refused outside
`study --diagnostic`.
"""

import torch
from torch import Tensor

from .base import one_hot_targets
from .evidence import ClassTargets, Options

NEEDS_TRUTH = True  # uses hidden labels


def class_targets(probs: Tensor, options: Options) -> ClassTargets:
    if options.true_class is None:
        raise ValueError("method oracle_class needs the true classes")
    known = options.true_class >= 0  # -1: the segment matches no event
    index = options.true_class.clamp(min=0)[..., None]
    target = torch.zeros(probs.shape, dtype=torch.bool, device=probs.device).scatter_(-1, index, True)
    return one_hot_targets(target & known[..., None], options)
