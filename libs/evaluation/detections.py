"""Detections of a split as arrays, and reading and writing of result files and ground truth."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from libs.core.files import load_json, write_text
from libs.datasets.annotations import Video
from libs.datasets.labels import UNKNOWN_LABEL, find_label

__all__ = ["UNKNOWN_LABEL"]

TABLES = (".csv", ".tsv")
COLUMNS = {  # column of a result table (ours or ActionFormer's) -> our name
    "video": "video", "video-id": "video", "video_id": "video",
    "start": "start", "t-start": "start", "end": "end", "t-end": "end",
    "label": "label", "label_id": "label_id", "score": "score",
}  # fmt: skip


class Detections(NamedTuple):
    """Columns of detections, in the order in which they were produced. Times in seconds."""

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
        ValueError: columns of different lengths, or a time or score that is not finite; names the video.
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
    """Concatenates detections; an empty list gives empty detections."""
    if not parts:
        return make_detections([], [], [], [], [])
    return Detections(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def as_detections(predictions: Any, label_ids: Mapping[str, int] | None = None, own_ids: bool = True) -> Detections:
    """Converts the input of ActionFormer's evaluator to `Detections`. The argument is not changed.

    Args:
        predictions: dict or data frame with the columns `video-id`, `t-start`, `t-end`, `label`, `score`; `Detections`;
            or path of a result file. Whole numbers in `label` are class ids, texts are class names.
        label_ids, own_ids: see `read_results`.
    """
    label_ids = label_ids or {}
    if isinstance(predictions, Detections):
        return predictions
    if isinstance(predictions, (str, os.PathLike)):
        return read_results(predictions, label_ids, own_ids)
    columns = ("video-id", "t-start", "t-end", "label", "score")
    missing = [name for name in columns if name not in predictions]
    if missing:
        raise ValueError(f"predictions: columns {missing} are missing; expected {list(columns)}")
    video, start, end, label, score = (np.asarray(predictions[name]) for name in columns)
    if label.dtype.kind not in "iu":
        label = np.array(_resolve(label.ravel().tolist(), None, label_ids, own_ids, "predictions"), dtype=np.int64)
    return make_detections(video, start, end, label, score)


def _resolve(
    labels: Sequence[Any],
    numbers: Sequence[Any] | None,
    label_ids: Mapping[str, int],
    own_ids: bool,
    where: str | Sequence[str],
) -> list[int]:
    """Class ids of all rows by `find_label`, which is called once per (label, number). `where`: location for messages,
    one for all rows or one per row."""
    ids: dict[tuple, int] = {}
    rows = []
    pairs = zip(labels, [None] * len(labels) if numbers is None else numbers, strict=True)
    for row, (label, number) in enumerate(pairs):
        place = where if isinstance(where, str) else where[row]
        if isinstance(label, (list, dict)):
            raise ValueError(f"{place}: label {label!r} must be a text or a number")
        key = (type(label), label, number)
        if key not in ids:
            ids[key] = find_label(label, number, label_ids, own_ids, place)
        rows.append(ids[key])
    return rows


def to_table(detections: Detections, label_names: dict[int, str]) -> pd.DataFrame:
    """One row per detection: `video`, `start`, `end` (seconds), `label`, `label_id`, `score`. The label of a class
    without a name is its id."""
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
    """Writes ActivityNet's result JSON, atomically. Numbers keep all digits, so that the file evaluates to the same
    numbers.

    Args:
        label_names: class id -> name; each detection also gets its `label_id`.
        videos: ids that are written even without detections.
        extra: further top-level keys.
    """
    results: dict[str, list] = {video_id: [] for video_id in videos}
    rows = zip(*(column.tolist() for column in detections), strict=True)
    for video_id, start, end, label, score in rows:
        name = label_names.get(label, str(label))
        entry = {"label": name, "label_id": label, "score": score, "segment": [start, end]}
        results.setdefault(video_id, []).append(entry)
    content = {"version": "VERSION 1.3", "results": results, "external_data": {}, **extra}
    write_text(path, json.dumps(content))


def write_ground_truth(path: str | os.PathLike, videos: Sequence[Video], label_names: dict[int, str]) -> None:
    """Writes videos and their events as an annotation file for `read_annotations`."""
    database = {
        video.id: {
            "subset": video.subset,
            **{key: value for key, value in (("duration", video.duration), ("fps", video.fps)) if value is not None},
            **({} if video.labeled else {"labeled": False}),
            "annotations": [
                {"segment": [event.start, event.end], "label": label_names.get(event.label_id, str(event.label_id)),
                 "label_id": event.label_id}
                for event in video.events
            ],
        }
        for video in videos
    }  # fmt: skip
    write_text(path, json.dumps({"database": database}))


def read_results(path: str | os.PathLike, label_ids: Mapping[str, int], own_ids: bool = True) -> Detections:
    """Reads a result file: ActivityNet's JSON, or a table `.csv` or `.tsv` with the columns `video`, `start`, `end`,
    `label` (or `label_id`), `score`, or with ActionFormer's names of these columns.

    Args:
        label_ids: class name -> id.
        own_ids: whether the annotations have their own ids, so that the `label_id` of an unknown name may be one, see
            `find_label`. Other unknown names become `UNKNOWN_LABEL`, which the evaluator counts and reports.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format, or a detection without label, score or segment.
    """
    ending = Path(path).suffix.lower()
    if ending in TABLES:
        return _read_table(path, label_ids, own_ids)
    if ending in (".pkl", ".pickle"):
        code = f"import pickle, pandas; pandas.DataFrame(pickle.load(open({str(path)!r}, 'rb'))).to_csv('results.csv')"
        raise ValueError(
            f"{path}: a pickle can run code when it is read, so it is refused. If you trust it: "
            f"python -c {shlex.quote(code)}"
        )
    return _read_json(path, label_ids, own_ids)


def _read_json(path: str | os.PathLike, label_ids: Mapping[str, int], own_ids: bool) -> Detections:
    content = load_json(path)
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise ValueError(f"{path}: not a result file: expected an object with the key 'results'")
    ids, starts, ends, labels, numbers, scores = [], [], [], [], [], []
    for video_id, entries in results.items():
        if not isinstance(entries, list):
            raise ValueError(f"{path}: video '{video_id}': expected a list of detections, found {entries!r}")
        for entry in entries:
            try:
                (start, end), score = entry["segment"], entry["score"]
                label = entry.get("label")
                number = entry.get("label_id") if label is not None else entry["label_id"]
                starts.append(float(start))
                ends.append(float(end))
                scores.append(float(score))
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                raise ValueError(
                    f"{path}: video '{video_id}': expected an object with 'label', 'score' and 'segment': "
                    f"[start, end], found {entry!r}"
                ) from None
            if ends[-1] < starts[-1]:
                raise ValueError(f"{path}: video '{video_id}': segment {entry['segment']} ends before it starts")
            for name, value in (("label", label), ("label_id", number)):
                if isinstance(value, (list, dict, bool)):
                    raise ValueError(f"{path}: video '{video_id}': {name} {value!r} must be a text or a number")
            if not all(map(math.isfinite, (starts[-1], ends[-1], scores[-1]))):
                raise ValueError(f"{path}: video '{video_id}': a time or score is not finite: {entry!r}")
            ids.append(video_id)
            labels.append(label)
            numbers.append(number)
    places = [f"{path}: video '{video_id}'" for video_id in ids]
    return make_detections(ids, starts, ends, _resolve(labels, numbers, label_ids, own_ids, places), scores)


def _read_table(path: str | os.PathLike, label_ids: Mapping[str, int], own_ids: bool) -> Detections:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"file not found: {os.fspath(path)}")
    separator = "\t" if Path(path).suffix.lower() == ".tsv" else ","
    try:
        table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a table: {error}") from None
    table = table.rename(columns=COLUMNS)
    if repeated := sorted({name for name in table if list(table).count(name) > 1}):
        raise ValueError(f"{path}: more than one column {repeated}; expected one of each")
    needed = ["video", "start", "end", "score", *([] if "label_id" in table else ["label"])]
    if missing := [name for name in needed if name not in table]:
        raise ValueError(
            f"{path}: columns {missing} are missing; expected video, start, end, label, score or video-id, t-start, "
            f"t-end, label, score; found {list(table)}"
        )
    numbers = {}
    for name in ("start", "end", "score"):
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
        if (bad := np.flatnonzero(~np.isfinite(values))).size:
            value = table[name].iloc[bad[0]]
            raise ValueError(f"{path}: line {bad[0] + 2}: {name} {value!r} is not a number")
        numbers[name] = values
    if (bad := np.flatnonzero(numbers["end"] < numbers["start"])).size:
        raise ValueError(f"{path}: line {bad[0] + 2}: the detection ends before it starts")
    id_column = table["label_id"].replace("", None).tolist() if "label_id" in table else None
    labels = table["label"].replace("", None).tolist() if "label" in table else [None] * len(table)
    places = [f"{path}: line {i + 2}" for i in range(len(table))]
    resolved = _resolve(labels, id_column, label_ids, own_ids, places)
    return make_detections(
        table["video"].to_numpy(object), numbers["start"], numbers["end"], resolved, numbers["score"]
    )
