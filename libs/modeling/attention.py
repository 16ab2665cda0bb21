"""Masked self-attention, global and windowed, on (B, H, T, D) queries, keys and values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from libs.modeling.cpu.convolution import plain_cpu


def global_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Every query sees every valid key.

    Args:
        mask: (B, T) validity of the keys. A sample without a valid key gives zeros.
    """
    any_valid = mask.any(dim=1)[:, None]  # (B, 1)
    seen = (mask | ~any_valid)[:, None, None, :]  # an empty sample sees everything instead of dividing 0 by 0
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen) * any_valid[:, None, :, None]


def windowed_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, radius: int, bias: Tensor | None = None
) -> Tensor:
    """Query i sees the valid keys j with |i - j| <= radius.

    Queries are cut into blocks, each with the keys of the block and `radius` more on both sides, so that time and
    memory grow with T * radius.

    Args:
        mask: (B, T) validity of the keys. A query without a valid key in reach sees itself.
        bias: (H, 2 * radius + 1) added to the scores by offset j - i.
    """
    batch, heads, length, dim = q.shape
    block = max(2 * radius, 16)
    num_blocks = -(-length // block)
    span = block + 2 * radius
    tail = num_blocks * block - length

    valid = F.pad(mask, (radius, tail + radius)).unfold(1, span, block)  # (B, n, span)
    offset = torch.arange(span, device=q.device)[None, :] - torch.arange(block, device=q.device)[:, None] - radius
    reach = offset.abs() <= radius  # (block, span)
    seen = ((valid[:, :, None, :] & reach) | (offset == 0))[:, None]  # (B, 1, n, block, span)
    if bias is None:
        added = torch.where(seen, 0.0, -torch.inf)
    else:
        by_offset = bias[:, (offset + radius).clamp(0, 2 * radius)]  # (H, block, span)
        added = torch.where(seen, by_offset[None, :, None], -torch.inf)  # (B, H, n, block, span)
    added = added.to(q.dtype)

    if plain_cpu(q):
        out = _BlockAttention.apply(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), added, radius)
        return out.transpose(1, 2)
    q = F.pad(q, (0, 0, 0, tail)).unflatten(2, (num_blocks, block))
    k = F.pad(k, (0, 0, radius, tail + radius)).unfold(2, span, block).transpose(3, 4)  # (B, H, n, span, D)
    v = F.pad(v, (0, 0, radius, tail + radius)).unfold(2, span, block).transpose(3, 4)
    # heads and blocks share one batch dimension: the fused kernels want four dimensions
    added = added.expand(batch, heads, num_blocks, block, span).flatten(1, 2)
    out = F.scaled_dot_product_attention(q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2), attn_mask=added)
    return out.view(batch, heads, num_blocks * block, dim)[:, :, :length]


class _BlockAttention(torch.autograd.Function):
    """The same on (B, T, H, D) for CPUs: matrix products read overlapping blocks of keys and values where they lie.

    Args:
        added: to the scores, (B, 1 or H, n, block, block + 2 * radius); block >= 2 * radius.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, added: Tensor, radius: int) -> Tensor:
        batch, length, heads, dim = q.shape
        num_blocks, block, span = added.shape[2:]
        tail = num_blocks * block - length
        q = F.pad(q, (0, 0, 0, 0, 0, tail)) * dim**-0.5
        k, v = (F.pad(x, (0, 0, 0, 0, radius, tail + radius)) for x in (k, v))
        scores = q.new_empty(batch, heads, num_blocks, block, span)
        out = torch.empty_like(q)
        for own, q_, k_ in zip(_each(scores), _blocks(q, block, block), _blocks(k, span, block), strict=True):
            torch.bmm(q_, k_.transpose(1, 2), out=own)
        weights = torch.softmax(scores.add_(added), dim=-1)
        for own, w, v_ in zip(_blocks(out, block, block), _each(weights), _blocks(v, span, block), strict=True):
            own.copy_(torch.bmm(w, v_))
        ctx.save_for_backward(q, k, v, weights, added)
        ctx.length, ctx.radius = length, radius
        return out[:, :length]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, None]:
        q, k, v, weights, added = ctx.saved_tensors
        length, radius = ctx.length, ctx.radius
        block, span = weights.shape[3:]
        grad = F.pad(grad, (0, 0, 0, 0, 0, q.shape[1] - length))
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        grad_weights = torch.empty_like(weights)
        inputs = zip(_blocks(grad, block, block), _each(weights), _blocks(v, span, block), strict=True)
        for (g, w, v_), own, total in zip(inputs, _each(grad_weights), _rows(grad_v), strict=True):
            torch.bmm(g, v_.transpose(1, 2), out=own)
            _add_overlapping(total, torch.bmm(w.transpose(1, 2), g), block)
        # of a softmax: w * (g - sum(w * g))
        grad_scores = grad_weights.sub_((weights * grad_weights).sum(-1, keepdim=True)).mul_(weights)
        inputs = zip(_each(grad_scores), _blocks(q, block, block), _blocks(k, span, block), strict=True)
        for (s, q_, k_), own, total in zip(inputs, _blocks(grad_q, block, block), _rows(grad_k), strict=True):
            own.copy_(torch.bmm(s, k_))
            _add_overlapping(total, torch.bmm(s.transpose(1, 2), q_), block)
        grad_q.mul_(q.shape[3] ** -0.5)
        kept = slice(radius, radius + length)
        grad_added = grad_scores.sum_to_size(added.shape) if ctx.needs_input_grad[3] else None
        return grad_q[:, :length], grad_k[:, kept], grad_v[:, kept], grad_added, None


def _rows(x: Tensor) -> list[Tensor]:
    """(B, T, H, D) -> a view (T, D) for each sample and head."""
    return [x[sample, :, head] for sample in range(x.shape[0]) for head in range(x.shape[2])]


def _each(x: Tensor) -> list[Tensor]:
    """(B, H, ...) -> a view (...) for each sample and head."""
    return list(x.flatten(0, 1))


def _blocks(x: Tensor, size: int, step: int) -> list[Tensor]:
    """(B, T, H, D) -> a view (n, size, D) for each sample and head; blocks begin every `step` steps."""
    return [rows.unfold(0, size, step).transpose(1, 2) for rows in _rows(x)]


def _add_overlapping(total: Tensor, parts: Tensor, block: int) -> None:
    """Adds parts (n, span, D), which begin every `block` steps, to (n * block + span - block, D)."""
    beyond = parts.shape[1] - block
    total[: len(parts) * block].unflatten(0, (-1, block)).add_(parts[:, :block])
    total[block:].unfold(0, beyond, block).transpose(1, 2).add_(parts[:, block:])
