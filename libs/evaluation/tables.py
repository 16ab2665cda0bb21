"""Evaluation results and diagnoses as text, JSON and CSV."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypedDict

import pandas as pd

from .average_precision import EvaluationResult
from .diagnosis import ERRORS, MISSES, Diagnosis

_WARNINGS = {
    "events_dropped_as_duplicates": "events dropped: shorter than 1 ms, or the same label and times as another",
    "videos_without_predictions": "videos of the split without any prediction; their events count as missed",
    "predictions_in_unknown_videos": "predictions in videos that are not in the split: they count as false positives",
    "predictions_with_absent_label": "predictions whose label no event of the split has",
    "of_these_counted_for_another_class": "  of these, counted for another class (not so with --absent-labels drop)",
}


def format_result(result: EvaluationResult, *, title: str = "", label_names: dict[int, str] | None = None) -> str:
    """mAP and Recall@kx per tIoU in percent as text; also the AP per class if `label_names` is given."""
    table = pd.DataFrame({"tIoU": [f"{t:.2f}" for t in result.tiou], "mAP": 100 * result.mAP})
    for j, k in enumerate(result.topk):
        table[f"Recall@{k}x"] = 100 * result.recall[:, j]
    lines = [f"Detection results on {title}, %" if title else "Detection results, %"]
    lines += table.to_string(index=False, float_format="%.2f").split("\n")
    lines.append(f"average mAP {100 * result.average_mAP:.2f}")
    if label_names is not None:
        lines += ["", per_class_table(result, label_names).to_string(index=False, float_format="%.2f")]
    lines += [f"{result.counts[key]:>8} {text}" for key, text in _WARNINGS.items() if result.counts.get(key)]
    return "\n".join(lines)


def per_class_table(result: EvaluationResult, label_names: dict[int, str]) -> pd.DataFrame:
    """One row per class: number of events, AP per tIoU and their mean, in percent."""
    table = pd.DataFrame({"class": [label_names.get(int(i), str(i)) for i in result.label], "events": result.num_gt})
    for t, row in zip(result.tiou, result.ap, strict=True):
        table[f"AP@{t:.2f}"] = 100 * row
    table["AP"] = 100 * result.ap.mean(axis=0)
    return table


def result_to_dict(result: EvaluationResult, label_names: dict[int, str] | None = None) -> dict[str, object]:
    """The result as plain numbers (fractions), for JSON."""
    names = label_names or {}
    return {
        "tiou": result.tiou.tolist(),
        "mAP": result.mAP.tolist(),
        "average_mAP": result.average_mAP,
        "recall": {f"{k}x": result.recall[:, j].tolist() for j, k in enumerate(result.topk)},
        "per_class": [
            {"label_id": int(i), "label": names.get(int(i), str(i)), "events": int(n), "AP": result.ap[:, c].tolist()}
            for c, (i, n) in enumerate(zip(result.label, result.num_gt, strict=True))
        ],
        "counts": dict(result.counts),
    }


def write_table(path: str | os.PathLike, result: EvaluationResult, label_names: dict[int, str]) -> None:
    """Writes the per-class table, with the means in the last row, as CSV."""
    table = per_class_table(result, label_names)
    mean = {"class": "mean", "events": int(result.num_gt.sum()), "AP": 100 * result.average_mAP}
    mean |= {f"AP@{t:.2f}": 100 * m for t, m in zip(result.tiou, result.mAP, strict=True)}
    pd.concat([table, pd.DataFrame([mean])]).to_csv(Path(path), index=False, float_format="%.4f")


class FalsePositives(TypedDict):
    """False positives of one kind, per threshold (T,)."""

    kind: str
    count: list[int]
    gain: list[float]  # gain in mAP without these false positives


class Misses(TypedDict):
    """Missed events of one kind, per threshold (T,)."""

    kind: str
    count: list[int]


class RangeOfEvents(TypedDict):
    """Events with a property from `low` (exclusive) to `high` (inclusive)."""

    low: float
    high: float | None  # None: no upper end
    unit: str
    events: int
    missed: list[int]  # (T,)


class DiagnosisNumbers(TypedDict):
    """A diagnosis as plain numbers, for JSON."""

    tiou: list[float]  # (T,)
    mAP: list[float]
    detections: int
    events: int
    false_positives: list[FalsePositives]
    profile: list[list[list[int]]]  # (T, PROFILE, kinds + 1); last: correct
    misses: list[Misses]
    groups: dict[str, list[RangeOfEvents]]  # property -> ranges


def diagnosis_to_dict(diagnosis: Diagnosis) -> DiagnosisNumbers:
    """The diagnosis as plain numbers, for JSON: per threshold, false positives and gain in mAP (fractions) by kind,
    kinds among the best detections, misses by kind, and misses by range of each property of the events."""
    counts, misses = diagnosis.counts(), diagnosis.miss_counts()
    return {
        "tiou": diagnosis.tiou.tolist(),
        "mAP": diagnosis.mAP.tolist(),
        "detections": len(diagnosis.row),
        "events": diagnosis.miss.shape[1],
        "false_positives": [
            {"kind": name, "count": counts[:, k].tolist(), "gain": diagnosis.gain[:, k].tolist()}
            for k, name in enumerate(ERRORS)
        ],
        "profile": diagnosis.profile.tolist(),
        "misses": [{"kind": name, "count": misses[:, k].tolist()} for k, name in enumerate(MISSES)],
        "groups": {name: _group_to_list(diagnosis, name) for name in diagnosis.groups},
    }


def _group_to_list(diagnosis: Diagnosis, name: str) -> list[RangeOfEvents]:
    group = diagnosis.groups[name]
    events, missed = diagnosis.missed_in(name)
    ends = [0.0, *group.upper.tolist()]
    return [
        {"low": low, "high": high, "unit": group.unit, "events": int(events[b]), "missed": missed[:, b].tolist()}
        for b, (low, high) in enumerate(zip(ends, [*ends[1:], None], strict=True))
    ]
