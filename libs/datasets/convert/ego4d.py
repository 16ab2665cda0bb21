"""Ego4D's Moment Queries: `moments_train.json`, `moments_val.json` and `moments_test_unannotated.json`.

    videos [video_uid, split, clips [clip_uid, video_start_sec, video_start_frame, ...,
                                     annotations [annotator_uid, labels [label, primary, video_start_time, ...]]]]

Each clip becomes a video of the result. As in ActionFormer, times count from the clip's first feature. The features of
a clip are a part of the whole video's features, which start every `grid` frames. Since a clip may start at any frame,
it is widened to the grid at both ends. Moments shorter than 0.25 s are dropped; times are rounded to 10 ms.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from libs.datasets.annotations import duplicate_mask
from libs.datasets.entries import EventEntry, VideoEntry

from .result import Converted, Note, Options
from .source import Source

TITLE = "Ego4D's Moment Queries, the files moments_train.json, moments_val.json and moments_test_unannotated.json"
OPTIONS = ("classes", "grid")
SUBSETS = {"train": "training", "val": "validation", "test": "test"}
GRID = 16  # frames between consecutive features
SHORTEST = 0.25  # seconds; shorter moments are dropped
FPS = (10, 100)  # plausible frame rates; outside, times and frames of a clip contradict each other


class Moment(NamedTuple):
    where: str  # location for messages
    start: float  # seconds from the start of the clip
    end: float
    label: str


def recognizes(source: Source) -> bool:
    content = source.content
    videos = content.get("videos") if isinstance(content, dict) else None
    return isinstance(videos, list) and bool(videos) and isinstance(videos[0], dict) and "clips" in videos[0]


def read(sources: Sequence[Source], options: Options) -> Converted:
    grid = GRID if options.grid is None else options.grid
    if grid < 0:
        raise ValueError(f"--grid {grid}: expected a number of frames, or 0")
    result, moments = Converted(), {}
    for source in sources:
        for where, subset, clip in _clips(source):
            name = _get(where, clip, "clip_uid", str)
            where = f"{where}, clip '{name}'"
            if name in result.database:
                if (other := result.database[name]["subset"]) != subset:
                    raise ValueError(f"{where}: the clip is in the subset {other} already, found {subset}")
                result.notes.append(Note("clip dropped, it was there before", where, subset))
                continue
            entry = _entry(where, clip, subset=subset, grid=grid, notes=result.notes)
            if entry is not None:
                result.database[name] = entry
                moments[name] = list(_moments(where, clip, annotated=subset != "test", notes=result.notes))
    if options.classes is None:
        labels = {moment.label for of_clip in moments.values() for moment in of_clip}
        ids = {label: number for number, label in enumerate(sorted(labels))}
    else:
        ids = read_classes(options.classes)
    for name, video in result.database.items():
        video["annotations"] = _events(moments[name], video["offset"], ids=ids, notes=result.notes)
        video["offset"] = round(video["offset"], 2)
    return result


def read_classes(path: str | os.PathLike) -> dict[str, int]:
    """Reads class name -> id from a file with one line per class: its name, or its id, a tab and its name.

    Raises:
        ValueError: an id or a name occurs twice, or an id is not a number.
    """
    with open(path, encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.strip()]
    ids: dict[str, int] = {}
    for number, line in enumerate(lines):
        text, tab, name = line.partition("\t")
        if tab and not (text.isascii() and text.isdigit()):
            raise ValueError(f"{os.fspath(path)}: '{text}' before the tab, expected a class's id")
        name, number = (name, int(text)) if tab else (line, number)
        if name in ids or number in ids.values():
            raise ValueError(f"{os.fspath(path)}: class '{name}' or id {number} is there twice")
        ids[name] = number
    return ids


def _clips(source: Source) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Yields (location for messages, subset, clip) of every clip."""
    if not recognizes(source):
        raise ValueError(f"{source.path}: expected an object with a list 'videos' that have 'clips'")
    for number, video in enumerate(source.content["videos"]):
        name = _get(f"{source.path}, video {number}", video, "video_uid", str)
        where = f"{source.path}, video '{name}'"
        split = _get(where, video, "split", str)
        if split not in SUBSETS:
            raise ValueError(f"{where}: split '{split}', expected one of {', '.join(SUBSETS)}")
        for clip in _get(where, video, "clips", list):
            yield where, SUBSETS[split], clip


def _entry(where: str, clip: Mapping[str, object], *, subset: str, grid: int, notes: list[Note]) -> VideoEntry | None:
    """The entry of a clip without events, or None if the clip is dropped. `offset`: seconds from its first feature to
    its start."""
    start, end = _clip_start(where, clip), _number(where, clip, "video_end_sec")
    first, last = (int(_number(where, clip, f"video_{side}_frame")) for side in ("start", "end"))
    if min(first, _number(where, clip, "video_start_sec")) < 0:
        text = f"{clip['video_start_sec']:g} s, frame {first}"
        notes.append(
            Note("clip changed, it starts before its video and is taken from the video's start on", where, text)
        )
        first = max(first, 0)
    fps = (last - first) / (end - start) if end > start else math.nan
    if not FPS[0] <= fps <= FPS[1]:
        text = f"{start:g} to {end:g} s, frames {first} to {last}"
        notes.append(Note("clip dropped, its seconds and frames do not agree", where, text))
        return None
    before, after = (first % grid, -last % grid) if grid else (0, 0)  # frames added by widening
    return {
        "subset": subset,
        "duration": round(end - start + before / fps + after / fps, 2),
        "fps": round(fps, 2),
        "offset": before / fps,
        "annotations": [],
    }


def _clip_start(where: str, clip: Mapping[str, object]) -> float:
    return max(_number(where, clip, "video_start_sec"), 0.0)


def _moments(where: str, clip: Mapping[str, object], *, annotated: bool, notes: list[Note]) -> Iterator[Moment]:
    """Yields the primary moments of all annotators."""
    clip_start = _clip_start(where, clip)
    for annotator in _get(where, clip, "annotations", list) if annotated else ():
        for item in _get(where, annotator, "labels", list):
            label = _get(where, item, "label", str)
            start, end = (
                _number(f"{where}, '{label}'", item, f"video_{side}_time") - clip_start for side in ("start", "end")
            )
            moment = Moment(where, start, end, label)
            if not _get(where, item, "primary", bool):
                notes.append(_dropped("moment dropped, it is not primary", moment))
            elif end < start:
                notes.append(_dropped("moment dropped, it ends before it starts", moment))
            else:
                yield moment


def _events(moments: Sequence[Moment], offset: float, *, ids: dict[str, int], notes: list[Note]) -> list[EventEntry]:
    """The events of a clip, shifted by `offset` seconds, without duplicates from several annotators."""
    long = []
    for moment in moments:
        if moment.label not in ids:
            raise ValueError(f"{moment.where}: label '{moment.label}' is not in the file of classes")
        start, end = moment.start + offset, moment.end + offset
        if end - start < SHORTEST:
            notes.append(_dropped(f"moment dropped, it is shorter than {SHORTEST:g} s", moment))
        else:
            long.append((moment, round(start, 2), round(end, 2), ids[moment.label]))
    events: list[EventEntry] = []
    starts, ends, labels = (np.array([row[i] for row in long]) for i in (1, 2, 3))
    is_first = duplicate_mask(starts, ends, labels)
    for (moment, start, end, number), keep in zip(long, is_first, strict=True):
        if keep:
            events.append({"segment": [start, end], "label": moment.label, "label_id": number})
        else:
            notes.append(_dropped("moment dropped, its label and times were there before", moment))
    return events


def _dropped(reason: str, moment: Moment) -> Note:
    return Note(reason, moment.where, f"'{moment.label}', {moment.start:g} to {moment.end:g} s")


def _get(where: str, item: object, key: str, kind: type) -> Any:
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f"{where}: '{key}' is {value!r:.80}, expected a {kind.__name__}")
    return value


def _number(where: str, item: object, key: str) -> float:
    value = item.get(key) if isinstance(item, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{where}: '{key}' is {value!r:.80}, expected a number")
    return value
