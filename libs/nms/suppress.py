"""1-D non-maximum suppression: hard, soft, and segment voting. Of equal scores the lowest input index wins.

This file sorts candidates into groups, chooses the implementation, and orders the results. The algorithm for a group is
in `csrc/nms.h` and, without compiled kernels, in `fallback.py`.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import fallback, kernels
from .fallback import GAUSSIAN, HARD, LINEAR

MANY_CLASSES = 4096  # range of class ids from which on the ids are renumbered
METHODS = {"hard": HARD, "linear": LINEAR, "gaussian": GAUSSIAN}


class Kept(NamedTuple):
    """The candidates of a video that NMS keeps, best first."""

    segments: Tensor  # (K, 2)
    scores: Tensor  # (K,)
    labels: Tensor  # (K,)


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
) -> Kept:
    """NMS over the candidates of one video, with ActionFormer's arguments and results.

    Args:
        segs: (N, 2) start and end, any unit.
        scores: (N,).
        cls_idxs: (N,) class of each candidate.
        iou_threshold: hard NMS drops candidates whose IoU with a better one reaches it; unused by soft NMS.
        min_score: hard NMS drops lower scores beforehand; soft NMS drops candidates that decay below it (never
            the first pick of a class).
        max_seg_num: kept per class and in total; <= 0: all.
        use_soft_nms: Gaussian soft-NMS with `sigma`: scores decay by exp(-IoU² / sigma).
        multiclass: NMS within each class; else over all candidates together.
        voting_thresh: > 0 and not `multiclass`: a kept segment becomes the mean of all candidates whose IoU with
            it reaches this, weighted by score times IoU.

    Returns:
        Segments (K, 2), scores (K,) and classes (K,), best score first, on the device and of the dtype of the input.

    Raises:
        ValueError: wrong shapes, or segments or scores that are not finite.
    """
    (kept,) = nms_videos(
        [(segs, scores, cls_idxs)],
        iou_threshold=iou_threshold,
        min_score=min_score,
        max_seg_num=max_seg_num,
        method="gaussian" if use_soft_nms else "hard",
        multiclass=multiclass,
        sigma=sigma,
        voting_thresh=voting_thresh,
    )
    return kept


def nms_videos(
    videos: list[tuple[Tensor, Tensor, Tensor]],
    *,
    iou_threshold: float,
    min_score: float,
    max_seg_num: int,
    method: str = "gaussian",
    multiclass: bool = True,
    sigma: float = 0.5,
    voting_thresh: float = 0.0,
) -> list[Kept]:
    """`batched_nms` for several videos in one call: (segments, scores, classes) of each.

    Args:
        method: "hard", "gaussian", or "linear" (scores decay by 1 - IoU from `iou_threshold` on).
    """
    if method not in METHODS:
        raise ValueError(f"NMS method '{method}' is not one of {sorted(METHODS)}")
    for number, (segs, scores, labels) in enumerate(videos):
        _check(segs, scores, labels, video=number if len(videos) > 1 else None)
    if not videos:
        return []
    segs, scores, labels = (
        torch.cat(columns) if len(videos) > 1 else columns[0] for columns in zip(*videos, strict=True)
    )
    work = _working_tensors(segs, scores)
    order, group_offsets, video_groups, video_offsets = _group(
        labels.detach().to(work.device), [len(s) for _, s, _ in videos], multiclass
    )
    if order is not None:
        work.segs, work.scores = work.segs.index_select(0, order), work.scores.index_select(0, order)
    index, kept_scores, count = work.ops.nms_1d(
        work.segs,
        work.scores,
        group_offsets,
        video_groups,
        iou_threshold,
        sigma,
        min_score,
        max_seg_num,
        METHODS[method],
    )
    counts = count.tolist()
    begins = video_offsets.tolist()
    if len(videos) == 1:
        index, kept_scores = index[: counts[0]], kept_scores[: counts[0]]
    else:
        used = torch.cat([torch.arange(b, b + n, device=work.device) for b, n in zip(begins, counts, strict=False)])
        index, kept_scores = index[used], kept_scores[used]
    kept = work.segs.index_select(0, index)
    if not multiclass and voting_thresh > 0:
        kept_offsets = _offsets(counts, work.device)
        kept = work.ops.segment_voting(kept, kept_offsets, work.segs, work.scores, video_offsets, voting_thresh)
    rows = (index if order is None else order.index_select(0, index)).to(labels.device)
    labels = labels.index_select(0, rows)
    result = Kept(kept.to(segs.device, segs.dtype), kept_scores.to(scores.device, scores.dtype), labels)
    if len(videos) == 1:
        return [result]
    return [Kept(*columns) for columns in zip(*(column.split(counts) for column in result), strict=True)]


def nms_1d(segs: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Hard NMS of one list.

    Returns:
        Indices (K,) int64 of the kept segments, best score first.
    """
    return _single(segs, scores, iou_threshold, 1.0, 0.0, HARD)[0]


def soft_nms_1d(
    segs: Tensor,
    scores: Tensor,
    *,
    sigma: float = 0.5,
    min_score: float = 0.001,
    iou_threshold: float = 0.1,
    method: str = "gaussian",
) -> tuple[Tensor, Tensor]:
    """Soft-NMS (Bodla et al., 2017) of one list: "gaussian", "linear", or "vanilla" (hard NMS).

    Returns:
        Indices (K,) int64 in order of picking, and their decayed scores (K,).
    """
    if method == "vanilla":
        return _single(segs, scores, iou_threshold, sigma, min_score, HARD)
    if method not in ("gaussian", "linear"):
        raise ValueError(f"soft-NMS method '{method}' is not one of ['gaussian', 'linear', 'vanilla']")
    return _single(segs, scores, iou_threshold, sigma, min_score, METHODS[method])


def nms(segs: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """`nms` of ActionFormer's extension: kept indices (K,) int64, best score first."""
    return nms_1d(segs, scores, iou_threshold)


def softnms(
    segs: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float, min_score: float, method: int
) -> Tensor:
    """`softnms` of ActionFormer's extension.

    Args:
        dets: (N, 3), filled with start, end and decayed score of the K kept segments, in order of picking.
        method: 0 vanilla, 1 linear, 2 Gaussian.

    Returns:
        Indices (K,) int64.
    """
    if method not in (0, 1, 2):
        raise ValueError(f"softnms: method {method} is not 0 (vanilla), 1 (linear) or 2 (gaussian)")
    name = ("vanilla", "linear", "gaussian")[method]
    index, kept = soft_nms_1d(segs, scores, sigma=sigma, min_score=min_score, iou_threshold=iou_threshold, method=name)
    dets[: len(index), :2] = segs[index].to(dets.dtype)
    dets[: len(index), 2] = kept.to(dets.dtype)
    return index


def _single(
    segs: Tensor, scores: Tensor, iou_threshold: float, sigma: float, min_score: float, method: int
) -> tuple[Tensor, Tensor]:
    """NMS of one list as a single group; indices (K,) and scores (K,) in order of picking."""
    _check(segs, scores, scores)
    work = _working_tensors(segs, scores)
    whole = _offsets([len(scores)], work.device)
    index, kept, count = work.ops.nms_1d(
        work.segs, work.scores, whole, _offsets([1], work.device), iou_threshold, sigma, min_score, -1, method
    )
    picked = int(count)
    return index[:picked].to(segs.device), kept[:picked].to(scores.device, scores.dtype)


def _check(segs: Tensor, scores: Tensor, labels: Tensor, video: int | None = None) -> None:
    where = "NMS" if video is None else f"NMS, video {video} of the batch"
    if segs.ndim != 2 or segs.shape[1] != 2 or scores.shape != segs.shape[:1] or labels.shape != segs.shape[:1]:
        raise ValueError(
            f"{where}: expected segments (N, 2), scores (N,) and classes (N,), found {tuple(segs.shape)}, "
            f"{tuple(scores.shape)} and {tuple(labels.shape)}"
        )
    if not len(scores) or all(math.isfinite(x) for column in (segs, scores) for x in column.detach().aminmax()):
        return
    bad = ~(torch.isfinite(segs).all(dim=1) & torch.isfinite(scores))
    i = int(bad.nonzero()[0])
    raise ValueError(
        f"{where}: {int(bad.sum())} candidates are not finite, the first is number {i}: "
        f"segment {segs[i].tolist()}, score {float(scores[i])}"
    )


def _working_tensors(segs: Tensor, scores: Tensor) -> SimpleNamespace:
    """Tensors with the dtype and on the device of the computation, and the operators that process them."""
    double = segs.dtype == torch.float64
    on_cuda = segs.is_cuda and kernels.compiled_for_cuda()
    device, dtype = segs.device if on_cuda else "cpu", torch.float64 if double else torch.float32
    segs, scores = (x.detach().to(device, dtype).contiguous() for x in (segs, scores))
    ops = torch.ops.actionformer_nt if kernels.compiled() else fallback
    return SimpleNamespace(segs=segs, scores=scores, device=segs.device, ops=ops)


def _offsets(counts: list[int], device: torch.device) -> Tensor:
    """Cumulative sums of `counts`, from 0 on: (len(counts) + 1,) int64."""
    total, offsets = 0, [0]
    for count in counts:
        total += count
        offsets.append(total)
    return torch.tensor(offsets, device=device)


def _group(labels: Tensor, sizes: list[int], multiclass: bool) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """Stable sort of candidates by video and class.

    Returns:
        Order (N,), or None if it changes nothing; first candidate of each group (G + 1,); first group of each video (V
            + 1,); first candidate of each video (V + 1,).
    """
    device = labels.device
    video_offsets = _offsets(sizes, device)
    if not multiclass:
        return None, video_offsets, torch.arange(len(sizes) + 1, device=device), video_offsets
    if not len(labels):
        return None, video_offsets.new_zeros(1), video_offsets.new_zeros(len(sizes) + 1), video_offsets
    low, high = (int(label) for label in labels.aminmax())
    if high - low >= MANY_CLASSES:  # renumber: each id in the range gets a group
        labels = labels.unique(return_inverse=True)[1]
        low, high = 0, int(labels.max())
    span = high - low + 1
    key = labels - low
    if len(sizes) > 1:
        video = torch.repeat_interleave(torch.arange(len(sizes), device=device), video_offsets.diff())
        key += video * span
    num_groups = len(sizes) * span
    if device.type == "cpu" and num_groups <= 2**16:  # numpy's radix sort of 16-bit keys is fast
        order = torch.from_numpy(np.argsort(key.numpy().astype(np.uint16), kind="stable"))
    else:
        order = key.argsort(stable=True)
    group_offsets = video_offsets.new_zeros(num_groups + 1)
    torch.cumsum(key.bincount(minlength=num_groups), 0, out=group_offsets[1:])
    return order, group_offsets, torch.arange(0, num_groups + 1, span, device=device), video_offsets
