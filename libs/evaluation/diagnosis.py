"""Error diagnosis of detections in the manner of DETAD (Alwassel et al., ECCV 2018): the kind of each false positive,
the mAP without the false positives of one kind, and the missed events.

At a tIoU threshold t, a false positive is of the first kind that applies:

* `double`: an event of its class overlaps it by at least t (a better detection has taken that event);
* `wrong label`: an event of another class overlaps it by at least t;
* `localisation`: an event of its class overlaps it by at least `LOW`, but less than t;
* `confusion`: an event of another class overlaps it by at least `LOW`, but less than t;
* `background`: no event overlaps it by `LOW`.

The same rule gives the kind of a missed event, with detections and events exchanged: `taken` (a detection of its class
overlaps it by at least t, but has taken another event), `wrong label`, `localisation`, `confusion`, `undetected`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .average_precision import GroundTruth, average_precision, rank_detections
from .detections import Detections
from .matching import matched_mask, overlapping_pairs

LOW = 0.1  # lowest tIoU at which a detection counts as close to an event
ERRORS = ("double", "wrong label", "localisation", "confusion", "background")
MISSES = ("taken", "wrong label", "localisation", "confusion", "undetected")
CORRECT = -1  # instead of an index into `ERRORS` or `MISSES`: a true positive, a detected event
PROFILE = 10  # kinds are counted among the best k * G detections of a class with G events, for k = 1..PROFILE

# upper ends of the ranges in DETAD's figures, by data set; the last range has no upper end
BINS: dict[str, dict[str, tuple[float, ...]]] = {
    "thumos": {"length": (3, 6, 12, 18), "coverage": (0.02, 0.04, 0.06, 0.08), "instances": (1, 40, 80)},
    "anet": {"length": (30, 60, 120, 180), "coverage": (0.2, 0.4, 0.6, 0.8), "instances": (1, 4, 8)},
}


class Group(NamedTuple):
    """A property of the events, divided into ranges: low < value <= high."""

    unit: str
    upper: np.ndarray  # (B - 1,) upper ends
    of_event: np.ndarray  # (G,) index of the range; -1: unknown
    values: np.ndarray  # (G,) the property itself


@dataclass(frozen=True)
class Diagnosis:
    """Result of `diagnose`, as fractions, not percent; N ranked detections, G events."""

    tiou: np.ndarray  # (T,)
    row: np.ndarray  # (N,) indices into the given detections
    error: np.ndarray  # (T, N) index into `ERRORS`, or CORRECT
    miss: np.ndarray  # (T, G) index into `MISSES`, or CORRECT
    mAP: np.ndarray  # noqa: N815 (the field's spelling); (T,)
    gain: np.ndarray  # (T, len(ERRORS)) gain in mAP at t without the errors of one kind at t
    profile: np.ndarray  # (T, PROFILE, len(ERRORS) + 1) kinds (last: correct) among the best k * G detections
    groups: dict[str, Group]  # "length", "instances", "coverage"

    def counts(self) -> np.ndarray:
        """(T, len(ERRORS)) number of false positives by kind."""
        return np.stack([np.bincount(e[e >= 0], minlength=len(ERRORS)) for e in self.error])

    def miss_counts(self) -> np.ndarray:
        """(T, len(MISSES)) number of missed events by kind."""
        return np.stack([np.bincount(m[m >= 0], minlength=len(MISSES)) for m in self.miss])

    def missed_in(self, group: str) -> tuple[np.ndarray, np.ndarray]:
        """Number of events in each range (B,), and number of missed events in it (T, B)."""
        _, upper, number, _ = self.groups[group]
        size = len(upper) + 1
        known = number >= 0
        events = np.bincount(number[known], minlength=size)
        return events, np.stack([np.bincount(number[known & (m >= 0)], minlength=size) for m in self.miss])


def diagnose(
    truth: GroundTruth,
    detections: Detections,
    *,
    tiou: ArrayLike,
    durations: Mapping[str, float | None] | None = None,
    absent_labels: str = "reference",
    bins: Mapping[str, Sequence[float]] | None = None,
) -> Diagnosis:
    """Determines the kind of every false positive and every missed event, at each threshold.

    Args:
        tiou: thresholds, (T,), at least `LOW`; at t = `LOW`, `localisation` and `confusion` are empty.
        durations: video id -> seconds; events in videos without a duration have no `coverage`.
        absent_labels: see `evaluate_detections`; a detection counts for the same class as there.
        bins: upper ends of the ranges of `length` (seconds), `instances` (events of the class in the video) and
            `coverage` (share of the video), such as `BINS["thumos"]`; properties not given are divided at their
            quintiles.

    Raises:
        ValueError: as `evaluate_detections`, or a threshold below `LOW`.
    """
    thresholds = np.asarray(tiou, dtype=np.float64)
    if len(thresholds) and thresholds.min() < LOW:
        raise ValueError(f"diagnosis: tIoU thresholds must not lie below {LOW:g}, found {thresholds.tolist()}")
    ranked = rank_detections(truth, detections, tiou=tiou, absent_labels=absent_labels)
    num_det, num_gt = len(ranked.row), len(truth.label)
    start, end = detections.t_start[ranked.row], detections.t_end[ranked.row]
    pairs = overlapping_pairs(
        ranked.det_video, ranked.det_video >= 0, start, end, ranked.gt_video, truth.t_start, truth.t_end, LOW
    )
    same = ranked.det_class[pairs.det] == ranked.gt_class[pairs.gt]
    best = {  # (2, N), (2, G) largest IoU of a detection (event) with events (detections) of its class, of others
        side: np.zeros((2, size)) for side, size in (("det", num_det), ("gt", num_gt))
    }
    for k, mask in enumerate((same, ~same)):
        np.maximum.at(best["det"][k], pairs.det[mask], pairs.iou[mask])
        np.maximum.at(best["gt"][k], pairs.gt[mask], pairs.iou[mask])

    holders = np.stack([ranked.match(t) for t in thresholds])  # (T, G)
    matched = np.stack([matched_mask(holder, num_det) for holder in holders])  # (T, N)
    error = np.stack([np.where(m, CORRECT, _kind(best["det"], t)) for m, t in zip(matched, thresholds, strict=True)])
    miss = np.stack(
        [np.where(h < num_det, CORRECT, _kind(best["gt"], t)) for h, t in zip(holders, thresholds, strict=True)]
    )
    mean, gain, profile = _gains(matched, error, ranked.of_class(), ranked.num_gt)
    groups = _groups(truth, ranked.gt_class, ranked.gt_video, durations or {}, dict(bins or {}))
    return Diagnosis(thresholds, ranked.row, error, miss, mean, gain, profile, groups)


def _kind(best: np.ndarray, threshold: float) -> np.ndarray:
    """(N,) index of the first kind that applies. `best`: (2, N) largest IoU within the same class, and with other
    classes."""
    same, other = best
    return np.select([same >= threshold, other >= threshold, same >= LOW, other >= LOW], [0, 1, 2, 3], 4)


def _gains(
    matched: np.ndarray, error: np.ndarray, of_class: list[slice], num_gt: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mAP (T,), gain and profile, see `Diagnosis`. A false positive takes no event, so that removing it leaves the
    matching unchanged and only AP is computed again."""
    num_tiou, kinds = len(matched), len(ERRORS)
    mean, gain = np.zeros(num_tiou), np.zeros((num_tiou, kinds))
    profile = np.zeros((num_tiou, PROFILE, kinds + 1), dtype=np.int64)
    for t in range(num_tiou):
        ap, fixed = np.zeros(len(of_class)), np.zeros((kinds, len(of_class)))
        for c, rows in enumerate(of_class):
            hit, kind = matched[t, rows], error[t, rows]
            ap[c] = average_precision(hit[None], num_gt[c])[0]
            for k in range(kinds):
                fixed[k, c] = average_precision(hit[None, kind != k], num_gt[c])[0]
            for k in range(PROFILE):
                top = kind[: (k + 1) * num_gt[c]]
                profile[t, k] += np.bincount(np.where(top == CORRECT, kinds, top), minlength=kinds + 1)
        mean[t], gain[t] = ap.mean(), (fixed - ap).mean(axis=1)
    return mean, gain, profile


def _groups(
    truth: GroundTruth,
    gt_class: np.ndarray,
    gt_video: np.ndarray,
    durations: Mapping[str, float | None],
    bins: dict[str, Sequence[float]],
) -> dict[str, Group]:
    """The ranges of each property whose values are known."""
    length = truth.t_end - truth.t_start
    _, of_pair, count = np.unique(np.stack([gt_class, gt_video]), axis=1, return_inverse=True, return_counts=True)
    duration = np.array([durations.get(video) or np.nan for video in truth.video_id])
    groups = {}
    for name, unit, values in (
        ("length", "s", length),
        ("instances", "", count[of_pair.ravel()].astype(np.float64)),
        ("coverage", "", length / duration),
    ):
        known = np.isfinite(values)
        if not known.any():
            continue
        given = bins.get(name)
        upper = np.asarray(given, float) if given is not None else np.quantile(values[known], (0.2, 0.4, 0.6, 0.8))
        upper = np.unique(upper[upper < values[known].max()])
        number = np.where(known, np.searchsorted(upper, values, side="left"), -1)
        groups[name] = Group(unit, upper, number, values)
    return groups
