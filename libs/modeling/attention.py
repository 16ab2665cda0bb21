"""Masked self-attention, global and windowed, on (B, H, T, D) queries, keys and values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .cpu import use_own_kernel
from .cpu.block_attention import BlockAttention


def global_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention of every query over all valid keys.

    Args:
        mask: (B, T) bool, valid keys. The output of a sample without a valid key is zero.
    """
    any_valid = mask.any(dim=1)[:, None]  # (B, 1)
    seen = (mask | ~any_valid)[:, None, None, :]  # a sample without a valid key attends to all, to avoid 0 / 0
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen) * any_valid[:, None, :, None]


def windowed_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, radius: int, bias: Tensor | None = None
) -> Tensor:
    """Attention of query i over the valid keys j with |i - j| <= radius.

    Queries are processed in blocks, each with its own keys and `radius` more on either side, so time and memory are
    O(T * radius).

    Args:
        mask: (B, T) bool, valid keys. A query also attends to itself if it is not valid.
        bias: (H, 2 * radius + 1) added to the scores by offset j - i.
    """
    batch, heads, length, _ = q.shape
    block = max(2 * radius, 16)
    num_blocks = -(-length // block)
    span = block + 2 * radius
    tail = num_blocks * block - length

    valid = F.pad(mask, (radius, tail + radius)).unfold(1, span, block)  # (B, n, span)
    offset = torch.arange(span, device=q.device)[None, :] - torch.arange(block, device=q.device)[:, None] - radius
    reach = offset.abs() <= radius  # (block, span)
    seen = ((valid[:, :, None, :] & reach) | (offset == 0))[:, None]  # (B, 1, n, block, span)
    if bias is None:
        score_bias = torch.where(seen, 0.0, -torch.inf)
    else:
        by_offset = bias[:, (offset + radius).clamp(0, 2 * radius)]  # (H, block, span)
        score_bias = torch.where(seen, by_offset[None, :, None], -torch.inf)  # (B, H, n, block, span)
    score_bias = score_bias.to(q.dtype)

    needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, score_bias))
    if use_own_kernel("block_attention_training" if needs_grad else "block_attention", q):
        out = BlockAttention.apply(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), score_bias, radius)
        return out.transpose(1, 2)
    q = F.pad(q, (0, 0, 0, tail)).unflatten(2, (num_blocks, block))
    k = F.pad(k, (0, 0, radius, tail + radius)).unfold(2, span, block).transpose(3, 4)  # (B, H, n, span, D)
    v = F.pad(v, (0, 0, radius, tail + radius)).unfold(2, span, block).transpose(3, 4)
    # heads and blocks share a dimension because fused attention kernels take four-dimensional inputs
    score_bias = score_bias.expand(batch, heads, num_blocks, block, span).flatten(1, 2)
    out = F.scaled_dot_product_attention(q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2), attn_mask=score_bias)
    return out.unflatten(1, (heads, num_blocks)).flatten(2, 3)[:, :, :length]
