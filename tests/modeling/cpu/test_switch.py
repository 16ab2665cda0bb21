"""Each kernel of the CPU's own can be turned off by itself."""

import pytest
import torch
from torch import nn

from libs.modeling import cpu
from libs.modeling.attention import windowed_attention
from libs.modeling.blocks import conv1d

CONVOLUTIONS = {  # input channels, output channels, groups of a convolution with kernel 3
    "depthwise": (8, 8, 8),
    "few_channels": (8, 4, 1),
    "winograd": (8, 64, 1),
}
CALLS = {
    "depthwise": "libs.modeling.cpu.convolution.DepthwiseConv.forward",
    "few_channels": "libs.modeling.cpu.convolution._by_taps",
    "winograd": "libs.modeling.cpu.winograd.WinogradConv3.forward",
    "block_attention": "libs.modeling.cpu.block_attention.BlockAttention.forward",
    "block_attention_training": "libs.modeling.cpu.block_attention.BlockAttention.forward",
}


def run(kernel):
    """A computation that `kernel` does where it is on."""
    if kernel in CONVOLUTIONS:
        inputs, outputs, groups = CONVOLUTIONS[kernel]
        return conv1d(torch.randn(1, inputs, 10), nn.Conv1d(inputs, outputs, 3, padding=1, groups=groups))
    q = torch.randn(1, 2, 10, 4, requires_grad=kernel == "block_attention_training")
    return windowed_attention(q, q, q, torch.ones(1, 10, dtype=torch.bool), radius=2)


def refuse(*_, **__):
    raise AssertionError("the kernel has been called")


@pytest.mark.parametrize("kernel", sorted(cpu.KERNELS))
def test_each_kernel_by_itself(kernel, monkeypatch):
    monkeypatch.setattr(CALLS[kernel], refuse)
    monkeypatch.setattr(cpu, "enabled", cpu.KERNELS - {kernel})
    run(kernel)
    monkeypatch.setattr(cpu, "enabled", frozenset({kernel}))
    with pytest.raises(AssertionError, match="has been called"):
        run(kernel)


def test_autocast_and_other_devices_use_none(monkeypatch):
    monkeypatch.setattr(cpu, "enabled", cpu.KERNELS)
    x = torch.randn(2)
    assert all(cpu.use_own_kernel(kernel, x) for kernel in cpu.KERNELS)
    assert not cpu.use_own_kernel("winograd", x.to("meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not cpu.use_own_kernel("winograd", x)


def test_environment_variable():
    assert cpu.read_kernels(None) == cpu.kernels_for(torch.backends.cpu.get_cpu_capability())
    assert cpu.read_kernels("none") == frozenset()
    assert cpu.read_kernels("winograd, depthwise") == {"winograd", "depthwise"}
    with pytest.raises(
        ValueError, match=r"ACTIONFORMER_NT_CPU_KERNELS: unknown kernels \['winograt'\]; known: .*depthwise"
    ):
        cpu.read_kernels("winograt")


def test_winograd_is_left_out_where_it_costs_time():
    assert cpu.kernels_for("AVX512") == cpu.KERNELS - {"winograd"}
    assert cpu.kernels_for("AVX2") == cpu.kernels_for("DEFAULT") == cpu.KERNELS
