"""Reading annotation files in ActionFormer's format (a superset of ActivityNet's).

    {"database": {"video": {"subset": "training", "duration": 12.3, "fps": 30.0,
                            "annotations": [{"segment": [1.0, 2.5], "label": "run", "label_id": 0}]}}}

Segments and durations are in seconds. `label_id` may be missing when `label` names the class: ids are then
given in the order of the file's top-level list `classes` or, without one, in alphabetical order. A video with
`"labeled": false` was never annotated, whereas a labeled video without events contains only background.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from libs.core.files import load_json

from .event_labels import EventLabels

logger = logging.getLogger(__name__)

EVENTS = "annotations"  # the key of a video's events
KEYS = ("subset", "duration", "fps", "labeled")  # further keys of a video that are read
MIN_DURATION = 1e-3  # seconds; `duplicate_mask` drops shorter events
UNUSED = "unused"  # subset of the videos that `with_subsets` gives no other
PAST_END = 0.5  # seconds; events that end later than this after their video are counted in a warning
SAME_TIME = 1e-3  # seconds; tolerance at both ends within which two events are duplicates


class Event(NamedTuple):
    start: float  # seconds
    end: float
    label_id: int


@dataclass(frozen=True)
class Video:
    """One video of an annotation file."""

    id: str
    subset: str  # lower case
    duration: float | None  # seconds
    fps: float | None
    events: tuple[Event, ...]
    labeled: bool = True  # False: never annotated, `events` is empty
    extra: dict[str, object] = field(default_factory=dict)  # keys of the video that this reader does not use


@dataclass(frozen=True)
class Annotations:
    path: str
    videos: tuple[Video, ...]
    label_ids: dict[str, int]  # class name -> id, over all subsets
    own_ids: bool = True  # ids are from the file or from `label_ids`; False: classes were numbered in order

    def of_subsets(self, subsets: Sequence[str]) -> list[Video]:
        """The videos of the given subsets, in the order of the file. Names are compared in lower case.

        Raises:
            ValueError: a subset has no video; lists the subsets of the file.
        """
        wanted = {subset.lower() for subset in subsets}
        present = {video.subset for video in self.videos}
        if missing := sorted(wanted - present):
            raise ValueError(f"{self.path}: no video with subset in {missing}; the file has {sorted(present)}")
        return [video for video in self.videos if video.subset in wanted]


def read_annotations(
    path: str | os.PathLike,
    *,
    hidden: frozenset[str] = frozenset(),
    label_ids: dict[str, int] | None = None,
    source: str = "the frozen label map",
) -> Annotations:
    """Reads and checks an annotation file.

    Args:
        hidden: ids of videos whose events are removed before any event is read.
        label_ids: class name -> id; replaces collecting the classes from the events. The file may lack some of the
            classes and all ids, but must not contradict the map.
        source: where `label_ids` is from, for messages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: broken JSON, no `database`, times that are not numbers, a label without an id, events under another
            key than `annotations`; names the file, the video and the value. An event with end < start is an error.
            Events of zero length or outside their video occur in public files: they are kept and counted in a warning.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"annotation file not found: {path}")
    stat = os.stat(path)
    frozen = None if label_ids is None else tuple(label_ids.items())
    return _read(path, stat.st_mtime_ns, stat.st_size, hidden, frozen, source)


def with_subsets(annotations: Annotations, subsets: Mapping[str, str]) -> Annotations:
    """The annotations with other subsets.

    Args:
        subsets: video id -> subset, in lower case; that of all other videos is `UNUSED`.
    """
    videos = tuple(replace(video, subset=subsets.get(video.id, UNUSED)) for video in annotations.videos)
    return replace(annotations, videos=videos)


@lru_cache(maxsize=8)  # train and test splits and the evaluator read the same file
def _read(
    path: str, _mtime: int, _size: int, hidden: frozenset[str], frozen: tuple[tuple[str, int], ...] | None, source: str
) -> Annotations:
    content = load_json(path)
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise ValueError(f"{path}: expected an object with the key 'database', found {_describe(content)}")
    for video_id, entry in database.items():
        if (video_id in hidden and isinstance(entry, dict)) or is_unlabeled(path, video_id, entry):
            database[video_id] = {key: entry[key] for key in KEYS if key in entry} | {EVENTS: []}
    events = (event for video_id, entry in database.items() for event in _located_events(path, video_id, entry))
    given = None if frozen is None else dict(frozen)
    labels = EventLabels(path, events, classes=content.get("classes"), given=given, source=source)
    videos = tuple(_video(path, video_id, entry, labels) for video_id, entry in database.items())
    _warn_about_times(path, videos)
    return Annotations(path, videos, labels.ids, labels.own_ids)


def duplicate_mask(starts: np.ndarray, ends: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """ActionFormer's duplicate rule: an event is kept iff it lasts at least 1 ms and no earlier kept event of its label
    has both ends within 1 ms.

    Args:
        starts, ends, labels: (N,) events of one video in file order; times in seconds.

    Returns:
        (N,) bool, True for kept events.
    """
    starts, ends, labels = np.asarray(starts, float), np.asarray(ends, float), np.asarray(labels)
    keep = ends - starts >= MIN_DURATION
    for i in np.flatnonzero(keep):
        same = keep[:i] & (labels[:i] == labels[i])
        keep[i] = not np.any(
            same & (np.abs(starts[:i] - starts[i]) <= SAME_TIME) & (np.abs(ends[:i] - ends[i]) <= SAME_TIME)
        )
    return keep


def _describe(content: object) -> str:
    return f"the keys {list(content)[:5]}" if isinstance(content, dict) else f"a {type(content).__name__}"


def is_unlabeled(path: str, video_id: str, entry: object) -> bool:
    """Whether a video of a file is marked `"labeled": false`."""
    mark = entry.get("labeled", True) if isinstance(entry, dict) else True
    if not isinstance(mark, bool):
        raise ValueError(f"{path}: video '{video_id}': labeled {mark!r}: expected true or false")
    return not mark


def misplaced_events(entry: Mapping[str, object]) -> list[str]:
    """For a video without events under `annotations`: its other keys that hold a list of events."""
    if entry.get(EVENTS):
        return []
    return [key for key, value in entry.items() if isinstance(value, list) and any(map(_looks_like_event, value))]


def _looks_like_event(entry: object) -> bool:
    """Whether an object has times and no score; proposals and detections have a score."""
    if not isinstance(entry, dict):
        return False
    return ("segment" in entry or {"start", "end"} <= entry.keys()) and "score" not in entry


def _events(path: str, video_id: str, entry: object) -> list[dict[str, object]]:
    if not isinstance(entry, dict) or not isinstance(entry.get("subset"), str):
        raise ValueError(
            f"{path}: video '{video_id}': expected an object with the key 'subset', a text, found {_describe(entry)}"
        )
    if keys := misplaced_events(entry):
        raise ValueError(
            f"{path}: video '{video_id}': no 'annotations', but events under {keys}: rename the key to 'annotations'"
        )
    events = [] if entry.get(EVENTS) is None else entry[EVENTS]
    if not isinstance(events, list) or any(not isinstance(event, dict) for event in events):
        raise ValueError(f"{path}: video '{video_id}': 'annotations' must be a list of objects")
    return events


def _located_events(path: str, video_id: str, entry: object) -> Iterator[tuple[str, dict[str, object]]]:
    """Yields (location for error messages, event) for each event of a video."""
    for event in _events(path, video_id, entry):
        yield _place(path, video_id), event


def _place(path: str, video_id: str) -> str:
    return f"{path}: video '{video_id}'"


def _video(path: str, video_id: str, entry: Mapping[str, object], labels: EventLabels) -> Video:
    events = []
    for where, event in _located_events(path, video_id, entry):
        start, end = _segment(where, event)
        events.append(Event(start, end, labels.of(event, where)))
    where = _place(path, video_id)
    extra = {key: value for key, value in entry.items() if key not in (*KEYS, EVENTS)}
    duration, fps = (_positive(where, key, entry.get(key)) for key in ("duration", "fps"))
    labeled = not is_unlabeled(path, video_id, entry)
    return Video(video_id, str(entry["subset"]).lower(), duration, fps, tuple(events), labeled, extra)


def _segment(where: str, event: Mapping[str, object]) -> tuple[float, float]:
    segment = event.get("segment")
    if not isinstance(segment, (list, tuple)) or len(segment) != 2:
        raise ValueError(f"{where}: 'segment' must be [start, end] in seconds, found {segment!r}")
    try:
        start, end = float(segment[0]), float(segment[1])
    except (TypeError, ValueError, OverflowError):
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
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{where}: {key} {value!r} must be a positive number")
    return number


def _warn_about_times(path: str, videos: tuple[Video, ...]) -> None:
    empty = [(v.id, e) for v in videos for e in v.events if e.end - e.start < MIN_DURATION]
    late = [(v.id, e) for v in videos for e in v.events if v.duration and e.end > v.duration + PAST_END]
    early = [(v.id, e) for v in videos for e in v.events if e.start < 0]
    for problem, events in (
        ("have no length", empty),
        (f"end more than {PAST_END:g} s past their video", late),
        ("start before their video", early),
    ):
        if events:
            video_id, event = events[0]
            logger.warning(
                "%s: %d events %s, such as [%g, %g] in '%s'",
                path,
                len(events),
                problem,
                event.start,
                event.end,
                video_id,
            )
