"""Matching of detections and events as array operations; `average_precision.py` explains the rule."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Pairs(NamedTuple):
    """Overlapping (detection, event) pairs within groups (class and video), sorted by the rank of the detection and
    then by falling IoU."""

    det: np.ndarray  # (P,) rank of the detection: its row in the sorted order
    gt: np.ndarray  # (P,) row of the event
    iou: np.ndarray  # (P,)
    rank_in_video: np.ndarray  # (P,) rank of the detection among all detections of its class and video
    num_in_video: np.ndarray  # (P,) events of that class and video


def overlapping_pairs(
    det_key: np.ndarray,
    det_ok: np.ndarray,
    det_start: np.ndarray,
    det_end: np.ndarray,
    gt_key: np.ndarray,
    gt_start: np.ndarray,
    gt_end: np.ndarray,
    min_iou: float,
) -> Pairs:
    """Pairs of detection and event with equal key and an IoU of at least `min_iou` > 0.

    Args:
        det_key, gt_key: (N,), (G,) groups.
        det_ok: (N,) bool, False for detections that get no pairs.
        det_start, det_end, gt_start, gt_end: (N,), (G,) times in seconds.
    """
    by_key = np.argsort(gt_key, kind="stable")
    sorted_key = gt_key[by_key]
    first = np.searchsorted(sorted_key, det_key, side="left")
    count = np.where(det_ok, np.searchsorted(sorted_key, det_key, side="right") - first, 0)
    rank = np.zeros(len(det_key), dtype=np.int64)
    grouped = np.argsort(det_key, kind="stable")  # rank among the detections of the same class and video
    if len(grouped):
        new = np.flatnonzero(np.r_[True, np.diff(det_key[grouped]) != 0])
        rank[grouped] = np.arange(len(grouped)) - np.repeat(new, np.diff(np.r_[new, len(grouped)]))

    det = np.repeat(np.arange(len(det_key)), count)
    offset = np.arange(len(det)) - np.repeat(np.cumsum(count) - count, count)
    gt = by_key[first[det] + offset]
    inter = (np.minimum(det_end[det], gt_end[gt]) - np.maximum(det_start[det], gt_start[gt])).clip(min=0)
    union = (det_end - det_start)[det] + (gt_end - gt_start)[gt] - inter
    iou = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    keep = np.flatnonzero(iou >= min_iou)
    det, gt, iou = det[keep], gt[keep], iou[keep]
    best_first = np.lexsort((-gt, -iou, det))  # of equal IoUs the later event is first, as in a reversed sort
    det, gt, iou = det[best_first], gt[best_first], iou[best_first]
    return Pairs(det, gt, iou, rank[det], count[det])


def match(pairs: Pairs, threshold: float, num_det: int, num_gt: int) -> np.ndarray:
    """(num_gt,) index of the detection that takes each event; `num_det`: none. Deferred acceptance: each detection
    proposes to its events in turn, and an event keeps the best-ranked detection that has proposed so far."""
    keep = pairs.iou >= threshold
    det, gt = pairs.det[keep], pairs.gt[keep]
    count = np.bincount(det, minlength=num_det)
    end = count.cumsum()
    next_pair = end - count
    holder = np.full(num_gt, num_det)
    free = np.flatnonzero(next_pair < end)
    while len(free):
        events = gt[next_pair[free]]
        before = holder[events]
        np.minimum.at(holder, events, free)
        displaced = before[(before < num_det) & (holder[events] != before)]
        flags = np.zeros(num_det, dtype=bool)  # flags, since `displaced` may repeat a detection
        flags[free[holder[events] != free]] = flags[displaced] = True
        rejected = np.flatnonzero(flags)
        next_pair[rejected] += 1
        free = rejected[next_pair[rejected] < end[rejected]]
    return holder


def matched_mask(holder: np.ndarray, num_det: int) -> np.ndarray:
    """(num_det,) bool, True for true positives. `holder`: the result of `match`."""
    matched = np.zeros(num_det + 1, dtype=bool)
    matched[holder] = True
    return matched[:num_det]
