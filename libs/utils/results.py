"""Detections of a whole split as arrays, and on disk as ActivityNet's result JSON beside the ground truth."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .annotations import Video, load_json

UNKNOWN_LABEL = -1  # a class name that the annotation file does not have


class Detections(NamedTuple):
    """Rows of detections, in the order in which they were produced. Times in seconds."""

    video_id: np.ndarray  # (N,) str
    t_start: np.ndarray  # (N,) float64
    t_end: np.ndarray  # (N,) float64
    label: np.ndarray  # (N,) int64
    score: np.ndarray  # (N,) float64

    def as_dict(self) -> dict[str, np.ndarray]:
        """The columns under the names that ActionFormer's evaluator takes."""
        return {
            "video-id": self.video_id, "t-start": self.t_start, "t-end": self.t_end,
            "label": self.label, "score": self.score,
        }  # fmt: skip


def make_detections(video_id: Any, t_start: Any, t_end: Any, label: Any, score: Any) -> Detections:
    """Checks and converts columns (arrays, tensors or lists).

    Raises:
        ValueError: columns of different length, or a time or score that is not finite (names the video).
    """
    ids = np.asarray(video_id, dtype=object).ravel()
    numbers = [np.asarray(column).ravel() for column in (t_start, t_end, label, score)]
    if any(len(column) != len(ids) for column in numbers):
        raise ValueError(f"detections: columns of different length: {[len(ids)] + [len(c) for c in numbers]}")
    start, end, score = (numbers[i].astype(np.float64) for i in (0, 1, 3))
    bad = ~(np.isfinite(start) & np.isfinite(end) & np.isfinite(score))
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(
            f"detections: {int(bad.sum())} rows hold a time or score that is not finite, the first in video "
            f"'{ids[i]}': segment [{start[i]}, {end[i]}], score {score[i]}"
        )
    return Detections(ids, start, end, numbers[2].astype(np.int64), score)


def concatenate(parts: list[Detections]) -> Detections:
    """One table of several; of none, an empty one."""
    if not parts:
        return make_detections([], [], [], [], [])
    return Detections(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def as_detections(predictions: Any, label_ids: dict[str, int] | None = None) -> Detections:
    """Accepts what ActionFormer's evaluator accepts — a dict or data frame with the columns `video-id`, `t-start`,
    `t-end`, `label`, `score` — a `Detections`, or the path of a result JSON. The argument is not changed."""
    if isinstance(predictions, Detections):
        return predictions
    if isinstance(predictions, (str, os.PathLike)):
        return read_results(predictions, label_ids or {})
    columns = ("video-id", "t-start", "t-end", "label", "score")
    missing = [name for name in columns if name not in predictions]
    if missing:
        raise ValueError(f"predictions: columns {missing} are missing; expected {list(columns)}")
    if isinstance(predictions, pd.DataFrame):
        return make_detections(*(predictions[name].to_numpy() for name in columns))
    return make_detections(*(predictions[name] for name in columns))


def to_table(detections: Detections, label_names: dict[int, str]) -> pd.DataFrame:
    """A row per detection: `video`, `start`, `end` (seconds), `label`, `label_id`, `score`. Ids without a name become
    their number."""
    return pd.DataFrame(
        {
            "video": detections.video_id,
            "start": detections.t_start,
            "end": detections.t_end,
            "label": [label_names.get(int(i), str(i)) for i in detections.label],
            "label_id": detections.label,
            "score": detections.score,
        }
    )


def write_results(
    path: str | os.PathLike,
    detections: Detections,
    label_names: dict[int, str],
    *,
    videos: Sequence[str] = (),
    **extra: Any,
) -> None:
    """Writes ActivityNet's result JSON, atomically. Each detection also carries its `label_id`; `extra` are more
    top-level keys. Numbers keep all their digits, so that reading gives the same evaluation. `videos` are written even
    if nothing was detected in them."""
    results: dict[str, list] = {video_id: [] for video_id in videos}
    rows = zip(*(column.tolist() for column in detections), strict=True)
    for video_id, start, end, label, score in rows:
        name = label_names.get(label, str(label))
        entry = {"label": name, "label_id": label, "score": score, "segment": [start, end]}
        results.setdefault(video_id, []).append(entry)
    content = {"version": "VERSION 1.3", "results": results, "external_data": {}, **extra}
    path = Path(path)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content))
    os.replace(part, path)


def write_ground_truth(path: str | os.PathLike, videos: Sequence[Video], label_names: dict[int, str]) -> None:
    """Writes videos with their events as an annotation file, which `read_annotations` reads; without other keys."""
    database = {
        video.id: {
            "subset": video.subset,
            **{key: value for key, value in (("duration", video.duration), ("fps", video.fps)) if value is not None},
            "annotations": [
                {"segment": [event.start, event.end], "label": label_names.get(event.label_id, str(event.label_id)),
                 "label_id": event.label_id}
                for event in video.events
            ],
        }
        for video in videos
    }  # fmt: skip
    Path(path).write_text(json.dumps({"database": database}))


def read_results(path: str | os.PathLike, label_ids: dict[str, int]) -> Detections:
    """Reads a result JSON; `label_ids` maps class names to ids. A label that is a number is an id itself; a name
    that is not in `label_ids` becomes `UNKNOWN_LABEL`, which the evaluator counts and reports.

    Raises:
        FileNotFoundError, ValueError: as `load_json`, or a detection without label, score or segment.
    """
    content = load_json(path)
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise ValueError(f"{path}: not a result file: expected an object with the key 'results'")
    ids, starts, ends, labels, scores = [], [], [], [], []
    for video_id, entries in results.items():
        if not isinstance(entries, list):
            raise ValueError(f"{path}: video '{video_id}': expected a list of detections, found {entries!r}")
        for entry in entries:
            try:
                (start, end), score = entry["segment"], entry["score"]
                label = entry["label"] if entry.get("label") is not None else entry["label_id"]
                starts.append(float(start))
                ends.append(float(end))
                scores.append(float(score))
            except (KeyError, TypeError, ValueError, AttributeError):
                raise ValueError(
                    f"{path}: video '{video_id}': expected an object with 'label', 'score' and 'segment': "
                    f"[start, end], found {entry!r}"
                ) from None
            if ends[-1] < starts[-1]:
                raise ValueError(f"{path}: video '{video_id}': segment {entry['segment']} ends before it starts")
            ids.append(video_id)
            labels.append(label if isinstance(label, int) else label_ids.get(str(label), UNKNOWN_LABEL))
    return make_detections(ids, starts, ends, labels, scores)
