"""Detection metrics of temporal action localization: AP per class and tIoU, and Recall@kx.

The numbers equal the numbers of ActionFormer's evaluator (which is ActivityNet's), but no loop over detections is
needed.

In that evaluator the detections choose in the order of their scores: each takes the best-overlapping event that is
still free, and is a true positive iff there is one. This assignment is the stable matching in which every event prefers
the detection with the higher score. Deferred acceptance finds the stable matching in a few rounds of array operations,
for all classes and videos at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from libs.datasets.annotations import Video, duplicate_mask

from .detections import Detections
from .matching import Pairs, match, matched_mask, overlapping_pairs

DEFAULT_TIOU = np.linspace(0.1, 0.5, 5)


class GroundTruth(NamedTuple):
    """Events of a split, duplicates removed. Times in seconds."""

    video_id: np.ndarray  # (G,) str
    t_start: np.ndarray  # (G,) float64
    t_end: np.ndarray  # (G,) float64
    label: np.ndarray  # (G,) int64
    videos: frozenset[str]  # all videos of the split, with or without events
    num_dropped: int  # events that the duplicate rule dropped


@dataclass(frozen=True)
class EvaluationResult:
    """Result of `evaluate_detections`, as fractions, not percent."""

    tiou: np.ndarray  # (T,)
    label: np.ndarray  # (K,) class ids of the ground truth, ascending
    ap: np.ndarray  # (T, K)
    topk: tuple[int, ...]
    recall: np.ndarray  # (T, len(topk)), mean over classes
    num_gt: np.ndarray  # (K,) events per class
    counts: dict[str, int] = field(default_factory=dict)  # events, videos and predictions, and those left out

    @property
    def mAP(self) -> np.ndarray:  # noqa: N802 (the field's spelling)
        """(T,) mean over the classes of the ground truth."""
        return self.ap.mean(axis=1)

    @property
    def average_mAP(self) -> float:  # noqa: N802
        return float(self.mAP.mean())


def ground_truth(videos: Sequence[Video]) -> GroundTruth:
    """The events of `videos` after ActionFormer's duplicate rule (`annotations.duplicate_mask`).

    Raises:
        ValueError: a negative label id, which a detection of an unknown class would match; names the video.
    """
    ids, rows, total = [], [], 0
    for video in videos:
        if not video.events:
            continue
        events = np.array(video.events, dtype=np.float64)  # (N, 3): start, end, label id
        if (events[:, 2] < 0).any():
            raise ValueError(f"video '{video.id}': an event has a negative label id; ids count from 0")
        kept = events[duplicate_mask(*events.T)]
        total += len(events)
        rows.append(kept)
        ids += [video.id] * len(kept)
    table = np.concatenate(rows) if rows else np.zeros((0, 3))
    return GroundTruth(
        np.array(ids, dtype=object),
        table[:, 0],
        table[:, 1],
        table[:, 2].astype(np.int64),
        videos=frozenset(video.id for video in videos),
        num_dropped=total - len(table),
    )


def evaluate_detections(
    truth: GroundTruth,
    detections: Detections,
    *,
    tiou: ArrayLike = DEFAULT_TIOU,
    topk: Sequence[int] = (1, 5),
    absent_labels: str = "reference",
) -> EvaluationResult:
    """Average precision per tIoU and class, and Recall@kx. As in ActionFormer, detections in videos that are not in the
    split count as false positives.

    Args:
        tiou: thresholds, (T,).
        topk: the k of Recall@kx: the k·n best detections count in a video with n events of the class.
        absent_labels: how to treat detections with a label that no event has. ActionFormer renumbers the classes of the
            ground truth to 0..K-1 but keeps other labels, so that label 7 counts for class number 7 ("reference");
            "drop" ignores these detections.

    Raises:
        ValueError: no event in the ground truth, or thresholds outside (0, 1].
    """
    thresholds = np.asarray(tiou, dtype=np.float64)
    ranked = rank_detections(truth, detections, tiou=tiou, absent_labels=absent_labels)
    ap = np.zeros((len(thresholds), len(ranked.classes)))
    matched = np.stack([matched_mask(ranked.match(threshold), len(ranked.row)) for threshold in thresholds])  # (T, N)
    for c, rows in enumerate(ranked.of_class()):
        ap[:, c] = average_precision(matched[:, rows], ranked.num_gt[c])
    recall = np.stack([_recall(ranked.pairs, thresholds, k, ranked.gt_class, ranked.num_gt) for k in topk], axis=1)
    return EvaluationResult(thresholds, ranked.classes, ap, tuple(topk), recall, ranked.num_gt, ranked.counts)


class Ranked(NamedTuple):
    """Detections sorted by class and falling score, and the events that they overlap."""

    row: np.ndarray  # (N,) indices into the given detections
    det_class: np.ndarray  # (N,) index into `classes` of the class for which each counts, ascending
    det_video: np.ndarray  # (N,) index of the video; -1: a video without events
    classes: np.ndarray  # (K,) class ids of the ground truth, ascending
    gt_class: np.ndarray  # (G,) index into `classes`
    gt_video: np.ndarray  # (G,)
    num_gt: np.ndarray  # (K,) events per class
    pairs: Pairs  # overlapping pairs of the same class and video
    counts: dict[str, int]

    def match(self, threshold: float) -> np.ndarray:
        """(G,) index of the ranked detection that takes each event; N: none. `threshold` must not be below the
        thresholds given to `rank_detections`."""
        return match(self.pairs, threshold, len(self.row), len(self.gt_class))

    def of_class(self) -> list[slice]:
        """The range of rows of each class."""
        bounds = np.searchsorted(self.det_class, np.arange(len(self.classes) + 1)).tolist()
        return [slice(a, b) for a, b in itertools.pairwise(bounds)]


def rank_detections(
    truth: GroundTruth, detections: Detections, *, tiou: ArrayLike, absent_labels: str = "reference"
) -> Ranked:
    """Sorts the detections for `evaluate_detections`, which describes arguments and errors."""
    thresholds = np.asarray(tiou, dtype=np.float64)
    if not len(truth.label):
        raise ValueError("evaluation: the ground truth of this split holds no event")
    if not len(thresholds) or thresholds.min() <= 0 or thresholds.max() > 1:
        raise ValueError(f"evaluation: tIoU thresholds must lie in (0, 1], found {thresholds.tolist()}")
    if absent_labels not in ("reference", "drop"):
        raise ValueError(f"evaluation: absent_labels '{absent_labels}' is neither 'reference' nor 'drop'")

    classes, gt_class = np.unique(truth.label, return_inverse=True)
    gt_video, video_names = pd.factorize(truth.video_id)
    det_video = pd.Index(video_names).get_indexer(detections.video_id)  # -1: no event in that video
    det_class, counts = _number_classes(detections.label, classes, absent_labels)
    predicted = frozenset(detections.video_id)
    counts |= {
        "events": len(truth.label),
        "events_dropped_as_duplicates": truth.num_dropped,
        "videos": len(truth.videos),
        "videos_without_predictions": len(truth.videos - predicted),
        "predictions": len(detections.label),
        "predictions_in_unknown_videos": int((~pd.Series(detections.video_id).isin(truth.videos)).sum()),
    }

    # Sorted by class, then by falling score; of equal scores the last row is first, as in a reversed stable sort.
    order = np.argsort(detections.score, kind="stable")[::-1]
    order = order[det_class[order] >= 0]
    order = order[np.argsort(det_class[order], kind="stable")]
    det_class, det_video = det_class[order], det_video[order]
    pairs = overlapping_pairs(
        det_class * len(video_names) + det_video, det_video >= 0, detections.t_start[order], detections.t_end[order],
        gt_class * len(video_names) + gt_video, truth.t_start, truth.t_end, float(thresholds.min()),
    )  # fmt: skip

    num_gt = np.bincount(gt_class, minlength=len(classes))
    return Ranked(order, det_class, det_video, classes, gt_class, gt_video, num_gt, pairs, counts)


def true_positives(truth: GroundTruth, detections: Detections, *, tiou: float) -> np.ndarray:
    """(N,) bool: which detections take an event of their class at this tIoU, if they choose in the order of their
    scores. Detections with lower scores do not matter, so the mask also holds if a score threshold removes these."""
    matched = np.zeros(len(detections.label), dtype=bool)
    if len(truth.label):
        ranked = rank_detections(truth, detections, tiou=[tiou], absent_labels="drop")
        taken = ranked.match(tiou)
        matched[ranked.row[taken[taken < len(ranked.row)]]] = True
    return matched


def _number_classes(label: np.ndarray, classes: np.ndarray, absent: str) -> tuple[np.ndarray, dict[str, int]]:
    """Class indices 0..K-1 of labels (N,), -1 for detections that are ignored, and the counts of absent labels."""
    position = np.searchsorted(classes, label).clip(max=len(classes) - 1)
    known = classes[position] == label
    collides = ~known & (label >= 0) & (label < len(classes)) & (absent == "reference")
    number = np.where(known, position, np.where(collides, label, -1))
    counts = {
        "predictions_with_absent_label": int((~known).sum()),
        "of_these_counted_for_another_class": int(collides.sum()),
    }
    return number, counts


def average_precision(matched: np.ndarray, num_gt: int) -> np.ndarray:
    """Area under the interpolated precision-recall curve.

    Args:
        matched: (T, n) true-positive flags in order of falling score.
        num_gt: number of events.

    Returns:
        (T,).
    """
    if not matched.shape[1]:
        return np.zeros(len(matched))
    precision = np.cumsum(matched, axis=1) / np.arange(1, matched.shape[1] + 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return (envelope * matched).sum(axis=1) / num_gt


def _recall(pairs: Pairs, tiou: np.ndarray, k: int, gt_class: np.ndarray, num_gt: np.ndarray) -> np.ndarray:
    """(T,) share of events that one of the k·n best detections of their video and class covers, averaged over
    classes."""
    chosen = pairs.rank_in_video < k * pairs.num_in_video
    best = np.zeros(len(gt_class))
    np.maximum.at(best, pairs.gt[chosen], pairs.iou[chosen])
    covered = best[None, :] >= tiou[:, None]  # (T, G)
    per_class = np.stack([np.bincount(gt_class, weights=row, minlength=len(num_gt)) for row in covered])
    return (per_class / num_gt).mean(axis=1)
