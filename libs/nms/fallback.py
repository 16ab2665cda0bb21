"""NMS in PyTorch, used if there are no compiled kernels. Same arguments and results as the kernels in `csrc`.

All groups are processed at once: candidates are laid out as (groups, candidates of the largest group), and every step
picks the best candidate of each group. Of equal scores the lowest index wins.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

EPS = 1e-6  # added to every length, as in ActionFormer
HARD, LINEAR, GAUSSIAN = 0, 1, 2


def nms_1d(
    segs: Tensor,
    scores: Tensor,
    group_offsets: Tensor,
    video_groups: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    cap: int,
    method: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Greedy NMS within each group, then a merge of the groups of each video by score.

    Args:
        segs: (N, 2) candidates, group after group.
        scores: (N,).
        group_offsets: (G + 1,) first candidate of each group.
        video_groups: (V + 1,) first group of each video.
        cap: picks per group and per video; <= 0: all.

    Returns:
        index (N,) and score (N,): the picks of each video, best first, from the slot of its first candidate on, then -1
            and 0; count (V,): number of picks of each video.
    """
    index = torch.full((len(scores),), -1, dtype=torch.long, device=segs.device)
    score = torch.zeros_like(scores)
    count = torch.zeros(len(video_groups) - 1, dtype=torch.long, device=segs.device)
    if not len(scores):
        return index, score, count
    size = group_offsets.diff()  # (G,)
    column = torch.arange(int(size.max()), device=segs.device)
    table = group_offsets[:-1, None] + column  # (G, largest)
    inside = column < size[:, None]
    table = torch.where(inside, table, 0)
    live = torch.where(inside, scores[table], -torch.inf)
    if method == HARD and min_score > 0:
        live = torch.where(live > min_score, live, -torch.inf)
    picks, values = _greedy(segs[table], live, iou_threshold, sigma, min_score, cap, method)
    for video, (first, end) in enumerate(zip(video_groups[:-1].tolist(), video_groups[1:].tolist(), strict=True)):
        picked = picks[first:end] >= 0
        row = table[first:end].gather(1, picks[first:end].clamp(min=0))[picked]
        merged = values[first:end][picked]
        order = merged.argsort(descending=True, stable=True)
        order = order[:cap] if cap > 0 else order
        slot = int(group_offsets[first])
        index[slot : slot + len(order)], score[slot : slot + len(order)] = row[order], merged[order]
        count[video] = len(order)
    return index, score, count


def _greedy(
    segs: Tensor, scores: Tensor, iou_threshold: float, sigma: float, min_score: float, cap: int, method: int
) -> tuple[Tensor, Tensor]:
    """Repeatedly picks the best candidate of every group and decays the scores of the others.

    Args:
        segs: (G, N, 2).
        scores: (G, N), -inf for empty slots; changed in place.

    Returns:
        Column of each pick (G, K), -1 for groups that have run out, and its score (G, K).
    """
    start, end = segs[..., 0].contiguous(), segs[..., 1].contiguous()
    length = end - start + EPS
    picks, values = [], []
    for _ in range(min(cap, scores.shape[1]) if cap > 0 else scores.shape[1]):
        best, at = scores.max(dim=1, keepdim=True)  # (G, 1)
        alive = best > -torch.inf
        if not alive.any():
            break
        picks.append(torch.where(alive, at, -1))
        values.append(best)
        inter = torch.minimum(end, end.gather(1, at)) - torch.maximum(start, start.gather(1, at))
        inter.clamp_(min=0)
        iou = inter / (length + length.gather(1, at) - inter)
        if method == GAUSSIAN:
            scores.mul_(torch.exp(-(iou * iou) / sigma))
        elif method == LINEAR:
            scores.mul_(torch.where(iou >= iou_threshold, 1 - iou, 1))
        else:
            scores.masked_fill_(iou >= iou_threshold, -torch.inf)
        if method != HARD:
            scores.masked_fill_(~(scores >= min_score), -torch.inf)  # also drops NaN, which is -inf * 0
        scores.scatter_(1, at, -torch.inf)
    if not picks:
        return torch.full((len(scores), 0), -1, device=scores.device), scores[:, :0]
    return torch.cat(picks, dim=1), torch.cat(values, dim=1)


def segment_voting(
    kept: Tensor, kept_offsets: Tensor, segs: Tensor, scores: Tensor, video_offsets: Tensor, iou_threshold: float
) -> Tensor:
    """Segment voting, as in ActionFormer.

    Args:
        kept: (K, 2), video after video.
        kept_offsets: (V + 1,) first kept segment of each video.
        segs, scores: (N, 2), (N,) candidates, video after video.
        video_offsets: (V + 1,) first candidate of each video.

    Returns:
        (K, 2): for each kept segment, the mean of the video's candidates whose IoU reaches the threshold, weighted by
            score times IoU.
    """
    parts = []
    kept_ranges, video_ranges = itertools.pairwise(kept_offsets.tolist()), itertools.pairwise(video_offsets.tolist())
    for (k0, k1), (n0, n1) in zip(kept_ranges, video_ranges, strict=True):
        parts.append(_vote(kept[k0:k1], segs[n0:n1], scores[n0:n1], iou_threshold))
    return torch.cat(parts) if parts else kept.clone()


def _vote(kept: Tensor, segs: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    length, kept_length = segs[:, 1] - segs[:, 0], kept[:, 1] - kept[:, 0]
    inter = torch.minimum(kept[:, None, 1], segs[None, :, 1]) - torch.maximum(kept[:, None, 0], segs[None, :, 0])
    inter = inter.clamp(min=0)  # (K, N)
    union = kept_length[:, None] + length[None, :] - inter
    iou = torch.where(union > 0, inter / union, 0)
    weight = torch.where(iou >= iou_threshold, scores[None, :] * iou, 0)
    weight = weight.double()  # the sums have many terms
    total = weight.sum(dim=1, keepdim=True)
    return torch.where(total > 0, (weight @ segs.double()) / total, kept.double()).to(kept.dtype)
