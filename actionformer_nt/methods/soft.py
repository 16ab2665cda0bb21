"""`soft`: soft pseudo labels, the teacher's unchanged distribution."""

import torch
from torch import Tensor

from libs.modeling.class_form import ClassForm

from .evidence import ClassTargets, Options


def class_targets(probs: Tensor, options: Options) -> ClassTargets:
    p = probs.detach().float()
    if options.form is ClassForm.SOFTMAX:  # cross-entropy: -sum_c p_c log p_c
        return ClassTargets(torch.ones_like(p), p)
    return ClassTargets(p, torch.ones_like(p))
