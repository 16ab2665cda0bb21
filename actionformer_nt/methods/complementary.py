"""`complementary`: the target class and one random other class as a negative (NLNL, Kim et al., 2019)."""

import torch
from torch import Tensor

from .evidence import ClassTargets, Options
from .label_space import partition


def class_targets(probs: Tensor, options: Options) -> ClassTargets:
    target = partition(probs, options.lam).target
    draw = torch.rand(probs.shape, generator=options.generator).to(probs.device)
    drawn = draw.masked_fill(target, -1.0).argmax(dim=-1, keepdim=True)
    other = torch.zeros_like(target).scatter_(-1, drawn, True) & ~target  # empty if K = 1
    return ClassTargets(target.float(), (target | other).float())
