"""Convolutions over time with "same" padding, faster on CPUs than torch's.

Features have the shape (B, C, T) but should lie in memory as (B, T, C): layer norms and pointwise convolutions, which
make up most of the network, then need no copy. Other memory layouts give the same result, more slowly.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from . import use_own_kernel
from .winograd import WinogradConv3

FEW_CHANNELS = 64  # below this number of output channels Winograd's algorithm does not pay


def own_conv1d(x: Tensor, conv: nn.Conv1d) -> Tensor | None:
    """Applies a "same"-padded convolution to (B, C, T) with our own kernel; None if torch's has to be used."""
    (kernel,), (stride,) = conv.kernel_size, conv.stride
    if conv.groups == conv.in_channels == conv.out_channels:
        name = "depthwise"
    elif conv.groups == 1 and stride == 1 and conv.out_channels < FEW_CHANNELS:
        name = "few_channels"
    elif conv.groups == 1 and stride == 1 and kernel == 3:
        name = "winograd"
    else:
        return None
    if not use_own_kernel(name, x):
        return None
    by_time = x.transpose(1, 2)
    if name == "depthwise":
        out = DepthwiseConv.apply(by_time, conv.weight, stride)
    else:
        out = _by_taps(by_time, conv.weight) if name == "few_channels" else WinogradConv3.apply(by_time, conv.weight)
    return (out if conv.bias is None else out + conv.bias).transpose(1, 2)


class DepthwiseConv(torch.autograd.Function):
    """Depthwise convolution: features (B, T, C), weights (C, 1, K) with K odd -> (B, ceil(T / stride), C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        taps = weight[:, 0].t().contiguous()  # (K, C)
        out = x[:, ::stride] * taps[len(taps) // 2]
        for tap, outputs, inputs in _tap_ranges(taps, x.shape[1], stride):
            out[:, outputs].addcmul_(x[:, inputs], taps[tap])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        taps = weight[:, 0].t().contiguous()
        middle = len(taps) // 2
        if ctx.stride == 1:
            grad_x = grad * taps[middle]
        else:
            grad_x = torch.zeros_like(x)
            grad_x[:, :: ctx.stride] = grad * taps[middle]
        grad_taps = torch.zeros_like(taps)
        grad_taps[middle] = (grad * x[:, :: ctx.stride]).sum((0, 1))
        for tap, outputs, inputs in _tap_ranges(taps, x.shape[1], ctx.stride):
            grad_x[:, inputs].addcmul_(grad[:, outputs], taps[tap])
            grad_taps[tap] = (grad[:, outputs] * x[:, inputs]).sum((0, 1))
        return grad_x, grad_taps.t()[:, None], None


def _tap_ranges(taps: Tensor, length: int, stride: int) -> list[tuple[int, slice, slice]]:
    """For every tap except the middle one: its index, the outputs that it contributes to, and the inputs it reads."""
    ranges, middle, count = [], len(taps) // 2, -(-length // stride)
    for tap in range(len(taps)):
        offset = tap - middle
        low = max(0, -(offset // stride))  # first output whose input exists
        high = min(count, (length - 1 - offset) // stride + 1)
        if offset and low < high:
            first = low * stride + offset
            ranges.append((tap, slice(low, high), slice(first, (high - 1) * stride + offset + 1, stride)))
    return ranges


def _by_taps(x: Tensor, weight: Tensor) -> Tensor:
    """Features (B, T, I), weights (O, I, K) -> (B, T, O): one matrix product for all taps, then shift and add."""
    kernel, length = weight.shape[2], x.shape[1]
    parts = F.linear(x, weight.permute(2, 0, 1).flatten(0, 1)).unflatten(2, (kernel, -1))  # (B, T, K, O)
    parts = F.pad(parts, (0, 0, 0, 0, kernel // 2, kernel // 2))
    return functools.reduce(torch.add, (parts[:, tap : tap + length, tap] for tap in range(kernel)))
