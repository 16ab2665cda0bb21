"""Boundary refinement: snippets on either side of an action's boundary are drawn to sure actions and sure background.

SPOT's contrastive term, with three repairs: bands are one-dimensional rings around the foreground of each video,
embeddings are gathered along time, and a video with an empty pool is left out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .network import SpotOutput


class Pool(NamedTuple):
    snippets: Tensor  # (B, k) their positions
    used: Tensor  # (B, k) bool; the rest is filler


class Pools(NamedTuple):
    easy_action: Pool
    easy_background: Pool
    hard_action: Pool
    hard_background: Pool


def refinement_loss(
    output: SpotOutput, *, temperature: float, num_easy: int, num_hard: int, radii: tuple[int, int]
) -> Tensor:
    """Contrastive loss of the mean hard action against the mean easy action (positive) and each easy background
    snippet (negatives), plus the same with action and background exchanged; mean over the videos that have the pools.

    Membership in the pools comes from the detached predictions, so that only embeddings have a gradient.
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
    """Each argument: embeddings (B, k, W) and their pool. Mean loss of the videos in which no pool is empty."""
    query, positive = _mean(hard[0], hard[1].used), _mean(easy[0], easy[1].used)  # (B, W)
    up = (query * positive).sum(-1, keepdim=True) / temperature  # (B, 1)
    down = (query[:, None] * negatives[0]).sum(-1) / temperature  # (B, k)
    down = down.masked_fill(~negatives[1].used, -1e4)
    loss = torch.logsumexp(torch.cat([up, down], dim=1), dim=1) - up[:, 0]
    used = hard[1].used.any(1) & easy[1].used.any(1) & negatives[1].used.any(1)
    return (loss * used).sum() / used.sum().clamp(min=1)


def _mean(x: Tensor, used: Tensor) -> Tensor:
    """(B, k, W) -> unit vectors (B, W) of the mean over the used members."""
    return F.normalize((x * used[..., None]).sum(1), dim=-1, eps=1e-6)


def gather_time(x: Tensor, index: Tensor) -> Tensor:
    """(B, T, W) at snippets (B, k) -> (B, k, W)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


@torch.no_grad()
def select_pools(output: SpotOutput, *, num_easy: int, num_hard: int, radii: tuple[int, int]) -> Pools:
    """Easy snippets: the surest actions and the surest background of the class branch. Hard ones: in the rings inside
    and outside of the foreground of the mask branch, those that its curve marks most."""
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
    """(B, T) the highest mask probability that any of the `rows` (B, T) gives a snippet; 0 without such a row. (The
    mean would hide a short instance beside a long one.)"""
    curve = masks.float().sigmoid().masked_fill(~rows[:, :, None], 0.0).amax(dim=1)
    return curve * valid


def rings(foreground: Tensor, valid: Tensor, radii: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Snippets at more than `near` and at most `far` steps from a boundary, inside and outside of the foreground,
    (B, T) bool each. The ends of the video are no boundaries."""
    near, far = radii
    background = ~foreground & valid
    inner = foreground & ~dilate(background, near) & dilate(background, far)
    outer = background & ~dilate(foreground, near) & dilate(foreground, far)
    return inner, outer


def dilate(x: Tensor, radius: int) -> Tensor:
    """(B, T) bool: whether any snippet at most `radius` steps away is set."""
    return F.max_pool1d(x[:, None].float(), 2 * radius + 1, stride=1, padding=radius)[:, 0] > 0


def _top(scores: Tensor, allowed: Tensor, k: int) -> Pool:
    found = scores.masked_fill(~allowed, -1.0).topk(min(k, scores.shape[1]), dim=1)
    return Pool(found.indices, found.values >= 0)
