"""Reading annotation files in ActionFormer's format (a superset of ActivityNet's).

    {"database": {"video": {"subset": "training", "duration": 12.3, "fps": 30.0,
                            "annotations": [{"segment": [1.0, 2.5], "label": "run", "label_id": 0}]}}}

Segments and durations are in seconds. `label_id` may be missing when `label` names the class: ids are then
given in the order of the file's top-level list `classes` or, without one, in alphabetical order.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

logger = logging.getLogger(__name__)

MIN_DURATION = 1e-3  # seconds; shorter events are duplicates' kin: dropped by the duplicate rule
PAST_END = 0.5  # seconds; events that end this much after their video are counted in a warning
SAME_TIME = 1e-3  # seconds; both ends within this: the same event


class Event(NamedTuple):
    start: float  # seconds
    end: float
    label_id: int


@dataclass(frozen=True)
class Video:
    """One video of an annotation file; `events` is empty where nothing is annotated."""

    id: str
    subset: str  # lower case
    duration: float | None  # seconds
    fps: float | None
    events: tuple[Event, ...]
    extra: dict[str, Any] = field(default_factory=dict)  # unread keys of the video


@dataclass(frozen=True)
class Annotations:
    path: str
    videos: tuple[Video, ...]
    label_ids: dict[str, int]  # class name -> id, over all subsets

    def of_subsets(self, subsets: Sequence[str]) -> list[Video]:
        """The videos of the given subsets, in the order of the file. Names are compared in lower case.

        Raises:
            ValueError: no video there; names the subsets that the file has.
        """
        wanted = {subset.lower() for subset in subsets}
        found = [video for video in self.videos if video.subset in wanted]
        if not found:
            present = sorted({video.subset for video in self.videos})
            raise ValueError(f"{self.path}: no video with subset in {sorted(wanted)}; the file has {present}")
        return found


def read_annotations(
    path: str | os.PathLike, *, hidden: frozenset[str] = frozenset(), label_ids: dict[str, int] | None = None
) -> Annotations:
    """Reads and checks an annotation file.

    Args:
        hidden: videos whose events are dropped before anything looks at them.
        label_ids: class name -> id, instead of collecting it from the events that are read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: broken JSON, no `database`, times that are not numbers, a label without an id; names the
            file, the video and the value. An event that ends before it starts is an error; one of no length or
            outside its video is kept and counted in a warning, since the public files have some.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"annotation file not found: {path}")
    stat = os.stat(path)
    frozen = None if label_ids is None else tuple(label_ids.items())
    return _read(path, stat.st_mtime_ns, stat.st_size, hidden, frozen)


@lru_cache(maxsize=8)  # train and test splits and the evaluator read the same file
def _read(
    path: str, _mtime: int, _size: int, hidden: frozenset[str], frozen: tuple[tuple[str, int], ...] | None
) -> Annotations:
    content = load_json(path)
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise ValueError(f"{path}: expected an object with the key 'database', found {_describe(content)}")
    for video_id in hidden & database.keys():
        if isinstance(database[video_id], dict):
            database[video_id] = database[video_id] | {"annotations": []}
    label_ids = _label_ids(path, content, database, None if frozen is None else dict(frozen))
    videos = tuple(_video(path, video_id, entry, label_ids) for video_id, entry in database.items())
    _warn_about_times(path, videos)
    return Annotations(path, videos, label_ids)


def load_json(path: str | os.PathLike) -> Any:
    """`json.load` whose errors name the file."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"file not found: {os.fspath(path)}")
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{os.fspath(path)}: broken JSON: {error}") from error


def duplicate_mask(starts: np.ndarray, ends: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """ActionFormer's rule for the events of one video, in the order of the file: an event is kept iff it lasts at
    least 1 ms and no kept event of its label has both ends within 1 ms. Returns the mask of kept events, (N,)."""
    starts, ends, labels = np.asarray(starts, float), np.asarray(ends, float), np.asarray(labels)
    keep = ends - starts >= MIN_DURATION
    for i in np.flatnonzero(keep):
        same = keep[:i] & (labels[:i] == labels[i])
        keep[i] = not np.any(
            same & (np.abs(starts[:i] - starts[i]) <= SAME_TIME) & (np.abs(ends[:i] - ends[i]) <= SAME_TIME)
        )
    return keep


def _describe(content: Any) -> str:
    return f"the keys {list(content)[:5]}" if isinstance(content, dict) else f"a {type(content).__name__}"


def _label_ids(path: str, content: dict, database: dict, frozen: dict[str, int] | None) -> dict[str, int]:
    """name -> id over all subsets: from `label_id`, else from the list `classes`, else in alphabetical order. Where the
    map is frozen, labels must be in it with its ids."""
    ids: dict[str, int] = dict(frozen or {})
    unnumbered = set()
    for video_id, entry in database.items():
        for event in _events(path, video_id, entry):
            name, number = event.get("label"), event.get("label_id")
            if number is None and name is None:
                raise ValueError(f"{path}: video '{video_id}': an event has neither 'label' nor 'label_id': {event}")
            if number is None:
                unnumbered.add(str(name))
                continue
            if isinstance(number, bool) or not isinstance(number, int):
                raise ValueError(f"{path}: video '{video_id}': label_id {number!r} is not an integer")
            name = str(number) if name is None else str(name)
            if frozen is not None and name not in frozen:
                raise ValueError(f"{path}: video '{video_id}': label '{name}' is not in the frozen label map")
            if ids.setdefault(name, number) != number:
                raise ValueError(
                    f"{path}: video '{video_id}': label '{name}' has label_id {number}, but {ids[name]} elsewhere"
                )
    unnumbered -= set(ids)
    if unnumbered and ids:
        raise ValueError(f"{path}: no label_id for the labels {sorted(unnumbered)}, while other events have one")
    if unnumbered:
        classes = content.get("classes")
        names = [str(name) for name in classes] if isinstance(classes, list) else sorted(unnumbered)
        if missing := unnumbered - set(names):
            raise ValueError(f"{path}: labels {sorted(missing)} are not in the file's list 'classes': {names}")
        ids = {name: i for i, name in enumerate(names)}
    return ids


def _events(path: str, video_id: str, entry: Any) -> list[dict]:
    if not isinstance(entry, dict) or "subset" not in entry:
        raise ValueError(
            f"{path}: video '{video_id}': expected an object with the key 'subset', found {_describe(entry)}"
        )
    events = entry.get("annotations") or []
    if not isinstance(events, list) or any(not isinstance(event, dict) for event in events):
        raise ValueError(f"{path}: video '{video_id}': 'annotations' must be a list of objects")
    return events


def _video(path: str, video_id: str, entry: dict, label_ids: dict[str, int]) -> Video:
    where = f"{path}: video '{video_id}'"
    events = []
    for event in _events(path, video_id, entry):
        start, end = _segment(where, event)
        number = event.get("label_id")
        events.append(Event(start, end, label_ids[str(event["label"])] if number is None else number))
    known = ("subset", "duration", "fps", "annotations")
    extra = {key: value for key, value in entry.items() if key not in known}
    duration, fps = (_positive(where, key, entry.get(key)) for key in ("duration", "fps"))
    return Video(video_id, str(entry["subset"]).lower(), duration, fps, tuple(events), extra)


def _segment(where: str, event: dict) -> tuple[float, float]:
    segment = event.get("segment")
    if not isinstance(segment, (list, tuple)) or len(segment) != 2:
        raise ValueError(f"{where}: 'segment' must be [start, end] in seconds, found {segment!r}")
    try:
        start, end = float(segment[0]), float(segment[1])
    except (TypeError, ValueError):
        raise ValueError(f"{where}: segment {segment!r} holds something that is not a number") from None
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError(f"{where}: segment {segment!r} holds a time that is not finite")
    if end < start:
        raise ValueError(f"{where}: segment {segment!r} ends before it starts")
    return start, end


def _positive(where: str, key: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{where}: {key} {value!r} must be a positive number")
    return number


def _warn_about_times(path: str, videos: tuple[Video, ...]) -> None:
    empty = [(v.id, e) for v in videos for e in v.events if e.end - e.start < MIN_DURATION]
    late = [(v.id, e) for v in videos for e in v.events if v.duration and e.end > v.duration + PAST_END]
    early = [(v.id, e) for v in videos for e in v.events if e.start < 0]
    for problem, found in (
        ("have no length", empty),
        (f"end more than {PAST_END:g} s past their video", late),
        ("start before their video", early),
    ):
        if found:
            video_id, event = found[0]
            logger.warning(
                "%s: %d events %s, such as [%g, %g] in '%s'",
                path,
                len(found),
                problem,
                event.start,
                event.end,
                video_id,
            )
