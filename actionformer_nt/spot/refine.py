"""Boundary refinement, SPOT's contrastive loss: embeddings of snippets just inside and just outside of an action's
boundary are drawn to the embeddings of confident action and confident background snippets.

It differs from SPOT's public code in three points: the bands beside boundaries are computed along time, for each video;
embeddings are gathered along time; and a video with an empty pool has no loss.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .network import SpotOutput


class Pool(NamedTuple):
    """At most k snippets of each video."""

    snippets: Tensor  # (B, k) indices
    used: Tensor  # (B, k) bool; False for padding of the pool


class Pools(NamedTuple):
    """Easy: confident snippets. Hard: snippets beside a boundary. See `select_pools`."""

    easy_action: Pool
    easy_background: Pool
    hard_action: Pool
    hard_background: Pool


def refinement_loss(
    output: SpotOutput, *, temperature: float, num_easy: int, num_hard: int, radii: tuple[int, int]
) -> Tensor:
    """Contrastive loss of the mean hard action embedding (anchor) with the mean easy action embedding (positive) and
    all easy background embeddings (negatives), plus the same loss with action and background exchanged.

    Mean over the videos without an empty pool. Pools are selected without gradient; only embeddings have one.

    Args:
        num_easy, num_hard: largest number of snippets in an easy and in a hard pool.
        radii: see `rings`.
    """
    pools = select_pools(output, num_easy=num_easy, num_hard=num_hard, radii=radii)
    unit = F.normalize(output.embedding.float(), dim=-1, eps=1e-6)  # (B, T, W)
    easy_a, easy_b, hard_a, hard_b = (gather_time(unit, pool.snippets) for pool in pools)
    action = easy_a, pools.easy_action
    background = easy_b, pools.easy_background
    return _contrast((hard_a, pools.hard_action), action, background, temperature) + _contrast(
        (hard_b, pools.hard_background), background, action, temperature
    )


def _contrast(
    hard: tuple[Tensor, Pool], easy: tuple[Tensor, Pool], negatives: tuple[Tensor, Pool], temperature: float
) -> Tensor:
    """Mean loss over the videos without an empty pool. Arguments are embeddings (B, k, W) with their pools."""
    query, positive = _mean(hard[0], hard[1].used), _mean(easy[0], easy[1].used)  # (B, W)
    up = (query * positive).sum(-1, keepdim=True) / temperature  # (B, 1)
    down = (query[:, None] * negatives[0]).sum(-1) / temperature  # (B, k)
    down = down.masked_fill(~negatives[1].used, -1e4)
    loss = torch.logsumexp(torch.cat([up, down], dim=1), dim=1) - up[:, 0]
    used = hard[1].used.any(1) & easy[1].used.any(1) & negatives[1].used.any(1)
    return (loss * used).sum() / used.sum().clamp(min=1)


def _mean(x: Tensor, used: Tensor) -> Tensor:
    """Embeddings (B, k, W) -> normalised mean (B, W) over the used members of the pool."""
    return F.normalize((x * used[..., None]).sum(1), dim=-1, eps=1e-6)


def gather_time(x: Tensor, index: Tensor) -> Tensor:
    """Embeddings (B, T, W) at the snippets `index` (B, k) -> (B, k, W)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


@torch.no_grad()
def select_pools(output: SpotOutput, *, num_easy: int, num_hard: int, radii: tuple[int, int]) -> Pools:
    """Selects easy and hard snippets.

    Easy: the most confident action and background snippets of the class branch. Hard: the snippets with the highest
    `foreground_curve` in the inner and in the outer ring of the mask branch's foreground.
    """
    probs, valid = output.logits.float().softmax(dim=-1), output.mask
    background = probs[..., -1]
    is_action = (probs.argmax(dim=-1) < probs.shape[-1] - 1) & valid
    curve = foreground_curve(output.masks, is_action, valid)
    inner, outer = rings(curve > 0.5, valid, radii)
    return Pools(
        _top(1 - background, is_action, num_easy),
        _top(background, ~is_action & valid, num_easy),
        _top(curve, inner, num_hard),
        _top(curve, outer, num_hard),
    )


def foreground_curve(masks: Tensor, rows: Tensor, valid: Tensor) -> Tensor:
    """Largest mask probability (B, T) of a snippet over the `rows` (B, T); 0 without a row.

    A mean over rows would hide a short instance beside a long one.
    """
    curve = masks.float().sigmoid().masked_fill(~rows[:, :, None], 0.0).amax(dim=1)
    return curve * valid


def rings(foreground: Tensor, valid: Tensor, radii: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Inner and outer ring, each (B, T) bool: snippets inside and outside the foreground whose distance to its boundary
    is more than `near` and at most `far` snippets. The ends of the video are not boundaries.

    Args:
        radii: (near, far).
    """
    near, far = radii
    background = ~foreground & valid
    inner = foreground & ~dilate(background, near) & dilate(background, far)
    outer = background & ~dilate(foreground, near) & dilate(foreground, far)
    return inner, outer


def dilate(x: Tensor, radius: int) -> Tensor:
    """Dilates (B, T) bool in time by `radius` snippets."""
    return F.max_pool1d(x[:, None].float(), 2 * radius + 1, stride=1, padding=radius)[:, 0] > 0


def _top(scores: Tensor, allowed: Tensor, k: int) -> Pool:
    """The `k` allowed snippets with the highest scores, which are >= 0."""
    best = scores.masked_fill(~allowed, -1.0).topk(min(k, scores.shape[1]), dim=1)
    return Pool(best.indices, best.values >= 0)
