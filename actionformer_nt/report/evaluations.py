"""Precision-recall curves and error diagnosis of an evaluation, from its detections and ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict, cast

import numpy as np
from typing_extensions import NotRequired

from libs.core.files import load_json
from libs.datasets.annotations import Annotations
from libs.datasets.labels import names_of
from libs.evaluation.average_precision import GroundTruth, Ranked, evaluate_detections, ground_truth, rank_detections
from libs.evaluation.detections import Detections, read_results
from libs.evaluation.diagnosis import LOW, diagnose
from libs.evaluation.matching import matched_mask
from libs.evaluation.tables import DiagnosisNumbers, diagnosis_to_dict

LEVELS = np.linspace(0, 1, 41)  # recalls at which curves are sampled
SAME = 1e-6  # largest difference in mAP between two evaluations of the same detections


def read_detections(path: Path) -> tuple[Detections, dict[int, str]]:
    """The detections of a result file, and its map from class id to name."""
    entries = [entry for rows in load_json(path).get("results", {}).values() for entry in rows]
    ids = {str(entry["label"]): int(entry["label_id"]) for entry in entries}
    return read_results(path, ids), names_of(ids)


class Metrics(TypedDict):
    """The keys of a metrics file that the report needs; the page shows further keys."""

    tiou: list[float]  # (T,)
    average_mAP: float
    provenance: NotRequired[dict[str, object]]


class Curves(TypedDict):
    """Precision in thousandths at the recalls of `LEVELS`."""

    label_id: list[int]  # (K,)
    mean: list[list[int]]  # (T, 41), over the classes
    classes: list[list[list[int]]]  # (T, K, 41)


class Description(TypedDict):
    """An evaluation as the page shows it."""

    metrics: Metrics
    curves: Curves | None  # None: no ground truth
    diagnosis: DiagnosisNumbers | None


def read_metrics(path: Path) -> Metrics:
    """The content of a metrics file. Raises ValueError if the file is not one; names the file."""
    content = load_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("tiou"), list) or "average_mAP" not in content:
        raise ValueError(f"{path}: not the metrics of an evaluation: expected 'tiou' and 'average_mAP' in it")
    return cast(Metrics, content)


def describe_evaluation(
    path: Path, metrics: Metrics, detections: Detections, annotations: Annotations | None
) -> Description:
    """The metrics of an evaluation and, if there is ground truth, its precision-recall curves and diagnosis.

    Args:
        path: the metrics file, for messages.
        metrics: its content.
        detections: the evaluated detections.
        annotations: the ground truth; None: not known.

    Raises:
        ValueError: detections and ground truth do not give the mAP in `metrics`.
    """
    description: Description = {"metrics": metrics, "curves": None, "diagnosis": None}
    if annotations is None:
        return description
    truth, tiou = ground_truth(annotations.videos), metrics["tiou"]
    absent = str(metrics.get("provenance", {}).get("absent_labels", "reference"))
    repeated = evaluate_detections(truth, detections, tiou=tiou, absent_labels=absent)
    if abs(repeated.average_mAP - metrics["average_mAP"]) > SAME:
        raise ValueError(
            f"{path}: average mAP {metrics['average_mAP']:.6f}, but the detections and the ground truth beside it give "
            f"{repeated.average_mAP:.6f}: they are of different evaluations; evaluate again"
        )
    description["curves"] = precision_recall(truth, detections, tiou, absent)
    usable = [t for t in tiou if t >= LOW]
    if usable:
        durations = {video.id: video.duration for video in annotations.videos}
        description["diagnosis"] = diagnosis_to_dict(
            diagnose(truth, detections, tiou=usable, durations=durations, absent_labels=absent)
        )
    return description


def precision_recall(truth: GroundTruth, detections: Detections, tiou: list[float], absent: str) -> Curves:
    """Interpolated precision (the highest at this recall or a larger one) in thousandths, at the recalls of
    `LEVELS`."""
    ranked = rank_detections(truth, detections, tiou=tiou, absent_labels=absent)
    curves = np.stack([_curves(ranked, t) for t in tiou])  # (T, K, 41)
    return {
        "label_id": ranked.classes.tolist(),
        "mean": np.rint(1000 * curves.mean(axis=1)).astype(int).tolist(),
        "classes": np.rint(1000 * curves).astype(int).tolist(),
    }


def _curves(ranked: Ranked, threshold: float) -> np.ndarray:
    """(K, 41) interpolated precision of each class at the recalls of `LEVELS`."""
    matched = matched_mask(ranked.match(threshold), len(ranked.row))
    curves = np.zeros((len(ranked.classes), len(LEVELS)))
    for c, rows in enumerate(ranked.of_class()):
        hits = np.cumsum(matched[rows])
        if not len(hits):
            continue
        precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
        first = np.searchsorted(hits / ranked.num_gt[c], LEVELS - 1e-9)  # the first rank that reaches each recall
        curves[c] = np.append(precision, 0.0)[first]
    return curves
