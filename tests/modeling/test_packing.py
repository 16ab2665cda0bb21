"""Heads on the packed pyramid against the heads level by level."""

import pytest
import torch

from libs.modeling.blocks import MaskedConv1D
from libs.modeling.heads import ClsHead, RegHead
from libs.modeling.packing import PackedPyramid

pytestmark = pytest.mark.two_paths
LENGTHS = (16, 8, 4, 2, 1)


def pyramid():
    torch.manual_seed(0)
    feats = [torch.randn(2, 6, length) for length in LENGTHS]
    masks = [torch.arange(n)[None, None] < torch.tensor([[[n]], [[max(n - 3, 1)]]]) for n in LENGTHS]
    return feats, masks


def level_by_level(head, last, x, mask):
    for conv, norm in zip(head.head, head.norm, strict=True):
        x = norm(conv(x, mask)[0]).relu()
    return last(x, mask)[0]


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("with_ln", [True, False])
def test_heads(in_64_bits, kernel, with_ln):
    feats, masks = pyramid()
    options = dict(in_dim=6, dim=8, num_layers=3, kernel_size=kernel, with_ln=with_ln)
    cls, reg = ClsHead(**options, num_classes=4), RegHead(**options, num_levels=len(LENGTHS))
    for parameter in [*cls.parameters(), *reg.parameters()]:  # a norm's bias is what fills the padding
        torch.nn.init.normal_(parameter)
    logits, offsets = cls(feats, masks), reg(feats, masks)
    for level, (x, mask) in enumerate(zip(feats, masks, strict=True)):
        assert torch.allclose(logits[level], level_by_level(cls, cls.cls_head, x, mask), atol=1e-11)
        alone = (level_by_level(reg, reg.offset_head, x, mask) * reg.scale[level].scale).relu()
        assert torch.allclose(offsets[level], alone, atol=1e-11)


def test_a_convolution_on_the_packed_sequence_is_one_on_every_level(in_64_bits):
    feats, masks = pyramid()
    conv = MaskedConv1D(6, 5, 5)
    packed = PackedPyramid(feats, masks, gap=2)
    assert packed.feats.shape == (2, 6, sum(LENGTHS) + 2 * (len(LENGTHS) - 1))
    found = packed.levels(conv(packed.feats, packed.valid)[0])
    for x, mask, part in zip(feats, masks, found, strict=True):
        assert torch.allclose(part, conv(x, mask)[0], atol=1e-12)
    for whole, part in zip(packed.levels(packed.valid), masks, strict=True):
        assert torch.equal(whole, part.float())
    assert int(packed.inside.sum()) == sum(LENGTHS)
