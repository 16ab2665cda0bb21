"""1-D non-maximum suppression, in PyTorch.

All classes are treated at once: candidates are laid out as (classes, candidates of the largest class), and every
step picks the best candidate of each class. Of equal scores the lowest input index wins.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

EPS = 1e-6  # added to every length, as in ActionFormer


def batched_nms(
    segs: Tensor,
    scores: Tensor,
    cls_idxs: Tensor,
    iou_threshold: float,
    min_score: float,
    max_seg_num: int,
    use_soft_nms: bool = True,
    multiclass: bool = True,
    sigma: float = 0.5,
    voting_thresh: float = 0.75,
) -> tuple[Tensor, Tensor, Tensor]:
    """NMS over the candidates of one video, with ActionFormer's arguments and results.

    Args:
        segs: (N, 2) start and end, any unit.
        scores: (N,).
        cls_idxs: (N,) class of each candidate.
        iou_threshold: hard NMS drops candidates whose IoU with a better one reaches it; unused by soft NMS.
        min_score: hard NMS drops lower scores beforehand; soft NMS drops candidates that decay below it (never
            the first pick of a run).
        max_seg_num: kept per class and in total; <= 0: all.
        use_soft_nms: Gaussian soft-NMS with `sigma`: scores decay by exp(-IoU² / sigma).
        multiclass: each class on its own; else one run over all.
        voting_thresh: > 0 and not `multiclass`: a kept segment becomes the mean of all candidates whose IoU with
            it reaches this, weighted by score times IoU.

    Returns:
        Segments (K, 2), scores (K,) and classes (K,), best score first, on the device of `segs`.

    Raises:
        ValueError: wrong shapes, or segments or scores that are not finite.
    """
    _check(segs, scores, cls_idxs)
    device, dtype = segs.device, segs.dtype
    segs, scores, cls_idxs = segs.detach().float().cpu(), scores.detach().float().cpu(), cls_idxs.detach().cpu()
    rows = cls_idxs if multiclass else torch.zeros_like(cls_idxs)
    pick, kept_scores = _nms_by_row(segs, scores, rows, iou_threshold, min_score, max_seg_num, use_soft_nms, sigma)
    kept, labels = segs[pick], cls_idxs[pick]
    if not multiclass and voting_thresh > 0:
        kept = seg_voting(kept, segs, scores, voting_thresh)
    order = kept_scores.argsort(descending=True, stable=True)
    if max_seg_num > 0:
        order = order[:max_seg_num]
    return kept[order].to(device, dtype), kept_scores[order].to(device, dtype), labels[order].to(device)


def seg_voting(kept: Tensor, segs: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Replaces each of `kept` (K, 2) by the mean of those of `segs` (N, 2) whose IoU with it is at least
    `iou_threshold`, weighted by score times IoU. A segment that no candidate supports (only one of zero length,
    whose IoU even with itself is undefined) stays as it is."""
    if not len(kept):
        return kept
    length, kept_length = segs[:, 1] - segs[:, 0], kept[:, 1] - kept[:, 0]
    inter = torch.minimum(kept[:, None, 1], segs[None, :, 1]) - torch.maximum(kept[:, None, 0], segs[None, :, 0])
    inter = inter.clamp(min=0)  # (K, N)
    iou = inter / (kept_length[:, None] + length[None, :] - inter)
    weight = torch.where(iou >= iou_threshold, scores[None, :] * iou, torch.zeros_like(iou))
    total = weight.sum(dim=1, keepdim=True)
    return torch.where(total > 0, (weight / total) @ segs, kept)


def _check(segs: Tensor, scores: Tensor, labels: Tensor) -> None:
    if segs.ndim != 2 or segs.shape[1] != 2 or scores.shape != segs.shape[:1] or labels.shape != segs.shape[:1]:
        raise ValueError(
            f"NMS expects segments (N, 2), scores (N,) and classes (N,), found {tuple(segs.shape)}, "
            f"{tuple(scores.shape)} and {tuple(labels.shape)}"
        )
    bad = ~(torch.isfinite(segs).all(dim=1) & torch.isfinite(scores))
    if bad.any():
        i = int(bad.nonzero()[0])
        raise ValueError(
            f"NMS: {int(bad.sum())} candidates are not finite, the first is number {i}: "
            f"segment {segs[i].tolist()}, score {float(scores[i])}"
        )


def _nms_by_row(
    segs: Tensor,
    scores: Tensor,
    rows: Tensor,
    iou_threshold: float,
    min_score: float,
    cap: int,
    soft: bool,
    sigma: float,
) -> tuple[Tensor, Tensor]:
    """Runs each row of candidates on its own; returns picked indices (K,), by row and in order of picking, and
    their scores at that moment (K,)."""
    floor = min_score if not soft and min_score > 0 else -torch.inf
    index = (scores > floor).nonzero()[:, 0]
    if not len(index):
        return index, scores[index]
    _, row = rows[index].unique(return_inverse=True)
    order = row.argsort(stable=True)
    index, row = index[order], row[order]
    count = row.bincount()
    column = torch.arange(len(row)) - (count.cumsum(0) - count)[row]
    table = index.new_full((len(count), int(count.max())), -1)  # (rows, candidates)
    table[row, column] = index
    live = table >= 0
    table_scores = torch.where(live, scores[table], -torch.inf)
    if soft:
        decay, floor = (lambda iou: torch.exp(-(iou * iou) / sigma)), min_score
    else:
        decay, floor = (lambda iou: torch.where(iou >= iou_threshold, -torch.inf, 1.0)), -torch.inf
    picked, picked_scores = _greedy(segs[table], table_scores, decay, floor, cap)
    done = picked >= 0
    pick = table.gather(1, picked.clamp(min=0))[done]
    return pick, picked_scores[done]


def _greedy(
    segs: Tensor, scores: Tensor, decay: Callable[[Tensor], Tensor], floor: float, cap: int
) -> tuple[Tensor, Tensor]:
    """Picks the best candidate of every row again and again, decaying the others.

    Args:
        segs: (R, N, 2); scores: (R, N), -inf where there is no candidate (changed in place).
        decay: IoU (R, N) -> factor; -inf removes.
        floor: a candidate whose decayed score is lower is removed.

    Returns:
        Column of each pick (R, K), -1 where a row has run out, and its score (R, K).
    """
    start, end = segs[..., 0].contiguous(), segs[..., 1].contiguous()
    length = end - start + EPS
    picks, values = [], []
    for _ in range(min(cap, scores.shape[1]) if cap > 0 else scores.shape[1]):
        best, at = scores.max(dim=1, keepdim=True)  # (R, 1)
        alive = best > -torch.inf
        if not alive.any():
            break
        picks.append(torch.where(alive, at, -1))
        values.append(best)
        inter = torch.minimum(end, end.gather(1, at)) - torch.maximum(start, start.gather(1, at))
        inter.clamp_(min=0)
        factor = decay(inter / (length + length.gather(1, at) - inter))
        scores.copy_(torch.where(factor > -torch.inf, scores * factor, -torch.inf))
        scores.masked_fill_(scores < floor, -torch.inf)
        scores.scatter_(1, at, -torch.inf)
    if not picks:
        return torch.full((len(scores), 0), -1), scores[:, :0]
    return torch.cat(picks, dim=1), torch.cat(values, dim=1)
