"""Operating points: score thresholds per class above which detections are shown to a person. mAP needs all
detections."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from libs.core.files import load_json, write_text

from .average_precision import GroundTruth, true_positives
from .detections import Detections


class OperatingPoint(NamedTuple):
    """A score threshold, and the quality of the detections that it keeps."""

    threshold: float  # of the score, inclusive
    f1: float
    precision: float
    recall: float
    events: int


@dataclass(frozen=True)
class Thresholds:
    """Score thresholds of a detector.

    Attributes:
        overall: the threshold of all classes together; used for classes that are not in `per_class`.
        per_class: class id -> operating point, of classes with events and matching detections.
    """

    overall: OperatingPoint
    per_class: dict[int, OperatingPoint]

    def keep(self, detections: Detections) -> np.ndarray:
        """(N,) bool: which detections reach the threshold of their class."""
        by_class = {label: point.threshold for label, point in self.per_class.items()}
        limit = np.array([by_class.get(int(label), self.overall.threshold) for label in detections.label], np.float64)
        return detections.score >= limit


def best_thresholds(truth: GroundTruth, detections: Detections, *, tiou: float = 0.5) -> Thresholds:
    """The thresholds that maximise F1 = 2 TP / (detections + events) on a labeled set, overall and per class. Of
    several thresholds with the best F1, the highest is taken.

    Raises:
        ValueError: the labeled set has no event, or no detection matches an event.
    """
    if not len(truth.label):
        raise ValueError("thresholds: the labeled set holds no event")
    matched = true_positives(truth, detections, tiou=tiou)
    if not matched.any():
        raise ValueError(
            f"thresholds: no detection matches an event at tIoU {tiou:g}; the detector has learned nothing"
        )
    per_class = {}
    for label in np.unique(truth.label):
        of_class = detections.label == label
        if matched[of_class].any():
            per_class[int(label)] = _best(
                detections.score[of_class], matched[of_class], int((truth.label == label).sum())
            )
    return Thresholds(_best(detections.score, matched, len(truth.label)), per_class)


def _best(score: np.ndarray, matched: np.ndarray, num_events: int) -> OperatingPoint:
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], np.cumsum(matched[order])
    shown = np.arange(1, len(score) + 1)
    f1 = 2 * hits / (shown + num_events)
    f1[:-1][score[:-1] == score[1:]] = -1  # equal scores are shown together or not at all
    i = int(np.argmax(f1))
    return OperatingPoint(
        float(score[i]), float(f1[i]), float(hits[i] / shown[i]), float(hits[i] / num_events), num_events
    )


def write_thresholds(
    path: str | os.PathLike, thresholds: Thresholds, names: dict[int, str], made_from: Mapping[str, object]
) -> None:
    """Writes a JSON file. `made_from` identifies the checkpoint, settings and data of the thresholds."""
    content = {
        "made_from": made_from,
        "overall": thresholds.overall._asdict(),
        "classes": {
            names.get(label, str(label)): {"label_id": label, **point._asdict()}
            for label, point in thresholds.per_class.items()
        },
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


def classes_of_thresholds(path: str | os.PathLike) -> dict[str, int]:
    """Class name -> id of the classes with their own threshold in a file of `write_thresholds`."""
    return {name: int(point["label_id"]) for name, point in load_json(path)["classes"].items()}


def read_thresholds(path: str | os.PathLike) -> tuple[Thresholds, dict[str, object]]:
    """Returns the thresholds and `made_from` of a file of `write_thresholds`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of `write_thresholds`.
    """
    content = load_json(path)
    try:
        per_class = {
            int(point["label_id"]): OperatingPoint(*(point[key] for key in OperatingPoint._fields))
            for point in content["classes"].values()
        }
        return Thresholds(OperatingPoint(**content["overall"]), per_class), content["made_from"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: not a file of thresholds: {error!r}") from None
