"""Convolution with kernel 3 by Winograd's minimal filtering F(2, 3) (Lavin and Gray, 2016), in float32 on CPUs.

Two neighbouring outputs need four products instead of six, so the matrix products, nearly all of the work, shrink by a
third. With inputs d0 .. d3 and weights a, b, c:

    m0 = (d0 - d2) a,  m1 = (d1 + d2) (a + b + c) / 2,  m2 = (d2 - d1) (a - b + c) / 2,  m3 = (d1 - d3) c
    y0 = m0 + m1 + m2,  y1 = m1 - m2 - m3
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

MOST_STEPS = 2048  # outputs per chunk


class WinogradConv3(torch.autograd.Function):
    """Features (B, T, I), weights (O, I, 3) -> (B, T, O), with zero padding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        batch, length = x.shape[:2]
        weights = _transform_weights(weight)
        out = x.new_empty(batch, -(-length // 2), 2, weight.shape[0])
        chunks = -(-length // MOST_STEPS)  # of equal size; chunks bound the memory for the transformed inputs
        size = 2 * -(-length // (2 * chunks))
        for start in range(0, length, size):
            products = torch.bmm(_transform_inputs(x, start, min(start + size, length)), weights)  # (4, B * pairs, O)
            m0, m1, m2, m3 = products.unflatten(1, (batch, -1))
            target = out[:, start // 2 : (start + size) // 2]
            torch.add(m0, m1, out=target[:, :, 0]).add_(m2)
            torch.sub(m1, m2, out=target[:, :, 1]).sub_(m3)
        return out.flatten(1, 2)[:, :length]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        batch, length, channels = x.shape
        grad = F.pad(grad, (0, 0, 0, length % 2))
        even, odd = grad.unflatten(1, (-1, 2)).unbind(2)  # gradients of y0 and y1
        parts = grad.new_empty(4, *even.shape)  # gradients of m0 .. m3
        parts[0] = even
        torch.add(even, odd, out=parts[1])
        torch.sub(even, odd, out=parts[2])
        torch.neg(odd, out=parts[3])
        parts = parts.flatten(1, 2)  # (4, B * pairs, O)

        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            g0, g1, g2, g3 = torch.bmm(parts, _transform_weights(weight).transpose(1, 2)).unflatten(1, (batch, -1))
            padded = x.new_zeros(batch, g0.shape[1] + 1, 2, channels)
            first, second = padded.unbind(2)  # d0 and the previous pair's d2; d1 and the previous pair's d3
            first[:, :-1] = g0
            first[:, 1:] += (g1 + g2).sub_(g0)
            second[:, :-1] = g1.sub_(g2).add_(g3)
            second[:, 1:] -= g3
            grad_x = padded.flatten(1, 2)[:, 1 : 1 + length]
        if ctx.needs_input_grad[1]:
            g0, g1, g2, g3 = torch.bmm(parts.transpose(1, 2), _transform_inputs(x, 0, length))  # each (O, I)
            outer, inner = (g1 + g2).mul_(0.5), (g1 - g2).mul_(0.5)
            grad_weight = torch.stack([g0 + outer, inner, outer + g3], dim=2)
        return grad_x, grad_weight


def _transform_inputs(x: Tensor, start: int, stop: int) -> Tensor:
    """Transformed inputs (B, T, I) -> (4, B * pairs, I), for the pairs of outputs in start .. stop - 1."""
    low, high = max(start - 1, 0), min(stop + 1, x.shape[1])
    padded = F.pad(x[:, low:high], (0, 0, low - start + 1, stop + 1 - high + (stop - start) % 2))
    first, second = padded.unflatten(1, (-1, 2)).unbind(2)
    d0, d1, d2, d3 = first[:, :-1], second[:, :-1], first[:, 1:], second[:, 1:]
    sums = x.new_empty(4, *d0.shape)
    torch.sub(d0, d2, out=sums[0])
    torch.add(d1, d2, out=sums[1])
    torch.sub(d2, d1, out=sums[2])
    torch.sub(d1, d3, out=sums[3])
    return sums.flatten(1, 2)


def _transform_weights(weight: Tensor) -> Tensor:
    """Transformed weights (O, I, 3) -> (4, I, O)."""
    a, b, c = weight.permute(2, 0, 1).contiguous()
    sums = a.new_empty(4, *a.shape)
    outer, inner = (a + c).mul_(0.5), b.mul_(0.5)
    sums[0] = a
    torch.add(outer, inner, out=sums[1])
    torch.sub(outer, inner, out=sums[2])
    sums[3] = c
    return sums.transpose(1, 2)
