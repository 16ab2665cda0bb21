"""Heads: class logits, offsets and location quality of every pyramid point. All levels share the weights of a head."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import LayerNorm, MaskedConv1D, Scale
from .class_form import ClassForm
from .location_quality import INITIAL_LOGITS
from .packing import PackedPyramid

EMPTY_CLASS_PRIOR = 1e-6  # initial probability of classes without a training event


class _Tower(nn.Module):
    """The convolutions of a head before its last layer."""

    def __init__(self, in_dim: int, dim: int, num_layers: int, kernel_size: int, with_ln: bool) -> None:
        super().__init__()
        self.head = nn.ModuleList(
            MaskedConv1D(in_dim if i == 0 else dim, dim, kernel_size, bias=not with_ln) for i in range(num_layers - 1)
        )
        self.norm = nn.ModuleList(LayerNorm(dim) if with_ln else nn.Identity() for _ in range(num_layers - 1))
        self.out_dim, self.reach = dim if num_layers > 1 else in_dim, kernel_size // 2

    def run(self, feats: list[Tensor], masks: list[Tensor], last: MaskedConv1D) -> list[Tensor]:
        """Applies the convolutions and `last` to all levels."""
        packed = PackedPyramid(feats, masks, self.reach)
        x = packed.feats
        for conv, norm in zip(self.head, self.norm, strict=True):
            x = F.relu(norm(conv(x, packed.valid)[0])) * packed.inside
        return packed.levels(last(x, packed.valid)[0])


class ClsHead(_Tower):
    """One logit per class. The background has no logit; in the softmax form its logit is taken to be 0.

    Args:
        prior_prob: initial probability of every class or, in the softmax form, of all classes together; <= 0: biases
            start at 0.
        form: interpretation of the logits.
        empty_cls: classes without a training event, whose initial probability is `EMPTY_CLASS_PRIOR`.
    """

    def __init__(
        self,
        *,
        in_dim: int,
        dim: int,
        num_classes: int,
        num_layers: int = 3,
        kernel_size: int = 3,
        with_ln: bool = False,
        prior_prob: float = 0.01,
        empty_cls: Sequence[int] = (),
        form: ClassForm | str = ClassForm.SIGMOID,
    ) -> None:
        super().__init__(in_dim, dim, num_layers, kernel_size, with_ln)
        form = ClassForm(form)
        self.cls_head = MaskedConv1D(self.out_dim, num_classes, kernel_size)
        bias = self.cls_head.conv.bias
        assert bias is not None
        if prior_prob > 0:
            share = form.classes_sharing_prior(num_classes)
            nn.init.constant_(bias, -math.log((1 - prior_prob) / prior_prob * share))
        if len(empty_cls):
            with torch.no_grad():
                bias[list(empty_cls)] = -math.log((1 - EMPTY_CLASS_PRIOR) / EMPTY_CLASS_PRIOR)
        if form.marker is not None:
            self.register_buffer(form.marker, torch.ones(()))

    def forward(self, feats: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        """Logits (B, C, T_l) per level."""
        return self.run(feats, masks, self.cls_head)


class RegHead(_Tower):
    """Distances to start and end, >= 0, in units of the level's stride."""

    def __init__(
        self,
        *,
        in_dim: int,
        dim: int,
        num_levels: int,
        num_layers: int = 3,
        kernel_size: int = 3,
        with_ln: bool = False,
    ) -> None:
        super().__init__(in_dim, dim, num_layers, kernel_size, with_ln)
        self.scale = nn.ModuleList(Scale() for _ in range(num_levels))
        self.offset_head = MaskedConv1D(self.out_dim, 2, kernel_size)

    def forward(self, feats: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        """Offsets (B, 2, T_l) per level."""
        offsets = self.run(feats, masks, self.offset_head)
        return [F.relu(scale(x)) for scale, x in zip(self.scale, offsets, strict=True)]


class QualityHead(_Tower):
    """Logits of `location_quality.location_quality`: tIoU, and distance of the centres."""

    def __init__(
        self, *, in_dim: int, dim: int, num_layers: int = 3, kernel_size: int = 3, with_ln: bool = False
    ) -> None:
        super().__init__(in_dim, dim, num_layers, kernel_size, with_ln)
        self.quality_head = MaskedConv1D(self.out_dim, 2, kernel_size)
        bias = self.quality_head.conv.bias
        assert bias is not None
        with torch.no_grad():
            bias.copy_(torch.tensor(INITIAL_LOGITS))

    def forward(self, feats: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        """Logits (B, 2, T_l) per level."""
        return self.run(feats, masks, self.quality_head)
