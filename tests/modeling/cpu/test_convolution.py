"""The CPU's own convolutions against torch's, values and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from libs.modeling import cpu
from libs.modeling.blocks import TransformerBlock, conv1d
from libs.modeling.cpu.winograd import WinogradConv3

pytestmark = pytest.mark.two_paths


@pytest.fixture(autouse=True)
def _all_kernels(monkeypatch):
    monkeypatch.setattr(cpu, "enabled", cpu.KERNELS)


KINDS = {
    "pointwise": lambda kernel, stride: (5, 7, 1, 1, 1),
    "depthwise": lambda kernel, stride: (6, 6, kernel, stride, 6),
    "few channels": lambda kernel, stride: (5, 3, kernel, 1, 1),
    "Winograd": lambda kernel, stride: (5, 64, 3, 1, 1),
    "left to torch": lambda kernel, stride: (5, 64, kernel, stride, 1),
}


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(KINDS)), st.integers(1, 3), st.integers(1, 12), st.sampled_from([1, 3, 5, 7]),
    st.sampled_from([1, 2, 4]), st.booleans(),
)  # fmt: skip
def test_equal_to_torch(kind, batch, blocks, kernel, stride, by_time):
    inputs, outputs, kernel, stride, groups = KINDS[kind](kernel, stride)
    torch.manual_seed(0)
    conv = nn.Conv1d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, dtype=torch.float64)
    x = torch.randn(batch, inputs, blocks * stride, dtype=torch.float64)
    if by_time:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    results = []
    for run in (lambda x: conv1d(x, conv), conv):
        conv.zero_grad()
        own = x.clone().requires_grad_()
        out = run(own)
        out.sin().sum().backward()
        results.append([out.detach(), own.grad, *(p.grad.clone() for p in conv.parameters())])
    for found, expected in zip(*results, strict=True):
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 9])
def test_gradients_of_winograd(length):
    x = torch.randn(2, length, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(WinogradConv3.apply, (x, weight))


@pytest.mark.parametrize("length", [3, 8, 9, 21])
def test_winograd_in_pieces(length, monkeypatch):
    conv = nn.Conv1d(5, 70, 3, padding=1, dtype=torch.float64)
    x = torch.randn(2, 5, length, dtype=torch.float64)
    monkeypatch.setattr("libs.modeling.cpu.winograd.MOST_STEPS", 4)
    assert torch.allclose(conv1d(x, conv), conv(x), atol=1e-12)


def test_the_feed_forward_part_of_a_block_in_pieces(in_64_bits, monkeypatch):
    block = TransformerBlock(8, 2, window=5).eval()
    x, mask = torch.randn(2, 8, 23), torch.ones(2, 1, 23, dtype=torch.bool)
    with torch.no_grad():
        whole = block(x, mask)[0]
        monkeypatch.setattr("libs.modeling.blocks.MOST_STEPS", 4)
        assert torch.allclose(block(x, mask)[0], whole, atol=1e-12)


def test_winograd_is_as_exact_as_the_direct_form_in_32_bits():
    """Both by matrix products of the same library, whose exactness differs from one processor to the next."""
    conv = nn.Conv1d(512, 128, 3, padding=1, bias=False)
    x = torch.randn(1, 512, 200)
    exact = nn.functional.conv1d(x.double(), conv.weight.double(), padding=1)
    seen = nn.functional.pad(x, (1, 1)).unfold(2, 3, 1).permute(0, 2, 1, 3).flatten(2)  # (1, 200, 512 * 3)
    with torch.no_grad():
        direct = nn.functional.linear(seen, conv.weight.flatten(1)).transpose(1, 2)
        assert (conv1d(x, conv) - exact).norm() <= 2 * (direct - exact).norm()


def test_autocast_leaves_convolutions_to_torch():
    conv = nn.Conv1d(4, 64, 3, padding=1)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert conv1d(torch.randn(1, 4, 8), conv).dtype == torch.bfloat16
