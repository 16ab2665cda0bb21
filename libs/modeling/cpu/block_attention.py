"""Windowed attention for CPUs: matrix products on overlapping blocks of keys and values, without copying them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class BlockAttention(torch.autograd.Function):
    """Attention of (B, T, H, D) queries over the keys at most `radius` steps away, in n blocks of queries.

    Args:
        score_bias: mask and bias, added to the scores; (B, 1 or H, n, block, block + 2 * radius) with
            block >= 2 * radius.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, score_bias: Tensor, radius: int) -> Tensor:
        batch, length, heads, dim = q.shape
        num_blocks, block, span = score_bias.shape[2:]
        tail = num_blocks * block - length
        q = F.pad(q, (0, 0, 0, 0, 0, tail)) * dim**-0.5
        k, v = (F.pad(x, (0, 0, 0, 0, radius, tail + radius)) for x in (k, v))
        scores = q.new_empty(batch, heads, num_blocks, block, span)
        out = torch.empty_like(q)
        for target, q_, k_ in zip(_per_head(scores), _blocks(q, block, block), _blocks(k, span, block), strict=True):
            torch.bmm(q_, k_.transpose(1, 2), out=target)
        weights = torch.softmax(scores.add_(score_bias), dim=-1)
        for target, w, v_ in zip(_blocks(out, block, block), _per_head(weights), _blocks(v, span, block), strict=True):
            target.copy_(torch.bmm(w, v_))
        ctx.save_for_backward(q, k, v, weights, score_bias)
        ctx.length, ctx.radius = length, radius
        return out[:, :length]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, None]:
        q, k, v, weights, score_bias = ctx.saved_tensors
        length, radius = ctx.length, ctx.radius
        block, span = weights.shape[3:]
        grad = F.pad(grad, (0, 0, 0, 0, 0, q.shape[1] - length))
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        grad_weights = torch.empty_like(weights)
        inputs = zip(_blocks(grad, block, block), _per_head(weights), _blocks(v, span, block), strict=True)
        for (g, w, v_), target, total in zip(inputs, _per_head(grad_weights), _rows(grad_v), strict=True):
            torch.bmm(g, v_.transpose(1, 2), out=target)
            _add_overlapping(total, torch.bmm(w.transpose(1, 2), g), block)
        # backward of the softmax: w * (g - sum(w * g))
        grad_scores = grad_weights.sub_((weights * grad_weights).sum(-1, keepdim=True)).mul_(weights)
        inputs = zip(_per_head(grad_scores), _blocks(q, block, block), _blocks(k, span, block), strict=True)
        for (s, q_, k_), target, total in zip(inputs, _blocks(grad_q, block, block), _rows(grad_k), strict=True):
            target.copy_(torch.bmm(s, k_))
            _add_overlapping(total, torch.bmm(s.transpose(1, 2), q_), block)
        grad_q.mul_(q.shape[3] ** -0.5)
        kept = slice(radius, radius + length)
        grad_bias = grad_scores.sum_to_size(score_bias.shape) if ctx.needs_input_grad[3] else None
        return grad_q[:, :length], grad_k[:, kept], grad_v[:, kept], grad_bias, None


def _rows(x: Tensor) -> list[Tensor]:
    """(B, T, H, D) -> views (T, D), one per sample and head."""
    return [x[sample, :, head] for sample in range(x.shape[0]) for head in range(x.shape[2])]


def _per_head(x: Tensor) -> list[Tensor]:
    """(B, H, ...) -> views (...), one per sample and head."""
    return list(x.flatten(0, 1))


def _blocks(x: Tensor, size: int, step: int) -> list[Tensor]:
    """(B, T, H, D) -> views (n, size, D), one per sample and head; a block begins every `step` steps."""
    return [rows.unfold(0, size, step).transpose(1, 2) for rows in _rows(x)]


def _add_overlapping(total: Tensor, parts: Tensor, block: int) -> None:
    """Adds parts (n, span, D), of which one begins every `block` steps, to `total` (n * block + span - block, D)."""
    overlap = parts.shape[1] - block
    total[: len(parts) * block].unflatten(0, (-1, block)).add_(parts[:, :block])
    total[block:].unfold(0, overlap, block).transpose(1, 2).add_(parts[:, block:])
