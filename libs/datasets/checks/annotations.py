"""Scans an annotation file and records every problem, whereas `read_annotations` stops at the first."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from libs.core.files import RepeatedKeysError, load_json
from libs.datasets.annotations import MIN_DURATION, PAST_END, duplicate_mask, is_unlabeled, misplaced_events
from libs.datasets.labels import label_number, label_text, whole_number

from .findings import Findings
from .names import close_names

UNREADABLE = object()  # marks the content of a file that cannot be read


@dataclass
class RawVideo:
    """A video as the file gives it, as far as it can be read."""

    id: str
    subset: str
    duration: float | None  # seconds
    fps: float | None
    events: list[tuple[float, float, str]] = field(default_factory=list)  # start, end (seconds), class name
    labeled: bool = True


@dataclass
class Labels:
    """Class names and ids as the file gives them."""

    ids: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))  # name -> its ids
    whole: dict[str, int] = field(default_factory=dict)  # name -> number, of labels that are whole numbers
    without_id: dict[str, str] = field(default_factory=dict)  # name -> first video
    listed: list[str] | None = None  # the file's list `classes`
    first: dict[str, str] = field(default_factory=dict)  # name -> first video

    def numbers(self) -> dict[str, int]:
        """Class name -> id, by the rules of `read_annotations`."""
        if any(self.ids.values()):
            return {name: min(ids) for name, ids in self.ids.items() if ids}  # other labels are ids, such as "3"
        names = self.listed if self.listed is not None else sorted(self.without_id)
        return {name: i for i, name in enumerate(names)}


def scan_annotations(path: str, findings: Findings) -> tuple[list[RawVideo], Labels]:
    """The videos that can be read, and the labels. Every problem is added to `findings`."""
    labels, videos = Labels(), []
    content = _load(path, findings)
    database = content.get("database") if isinstance(content, dict) else None
    if content is not UNREADABLE and not isinstance(database, dict):
        findings.add("error", "annotation-file", path, "no object 'database' in it")
    if not isinstance(database, dict):
        return [], labels
    if content.get("classes") is not None and not isinstance(content["classes"], list):
        findings.add("error", "annotation-file", path, "'classes' is not a list of names")
    if isinstance(content.get("classes"), list):
        labels.listed = [str(name) for name in content["classes"]]
        for name in sorted({name for name in labels.listed if labels.listed.count(name) > 1}):
            findings.add("error", "repeated-class", name, "stands more than once in the file's list 'classes'")
    for video_id, entry in database.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("subset"), str):
            findings.add("error", "video-entry", video_id, "not an object with the key 'subset', a text")
            continue
        duration, fps = (_positive(video_id, key, entry.get(key), findings) for key in ("duration", "fps"))
        video = RawVideo(video_id, str(entry["subset"]).lower(), duration, fps)
        try:
            video.labeled = not is_unlabeled(path, video_id, entry)
        except ValueError:
            findings.add("error", "video-entry", video_id, f"labeled {entry['labeled']!r} is neither true nor false")
        if keys := misplaced_events(entry):
            findings.add(
                "error", "other-key", video_id, f"no 'annotations', but events under {keys}",
                advice="rename the key to 'annotations'",
            )  # fmt: skip
        events = [] if entry.get("annotations") is None else entry["annotations"]
        if events and not video.labeled:
            findings.add(
                "warning", "unlabeled-with-events", video_id,
                f"labeled: false, but {len(events)} events, which are not read",
                advice="leave out the mark where a video is annotated",
            )  # fmt: skip
            events = []
        if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
            findings.add("error", "video-entry", video_id, "'annotations' is not a list of objects")
            events = []
        for event in events:
            _scan_event(video, event, labels, findings)
        _find_duplicates(video, findings)
        videos.append(video)
    _check_labels(labels, findings)
    return videos, labels


def _load(path: str, findings: Findings) -> Any:
    try:
        return load_json(path)
    except RepeatedKeysError as error:
        for key in error.keys:
            findings.add(
                "error", "repeated-key", key, "this key stands twice in one object",
                advice="merge the entries of a video",
            )  # fmt: skip
    except OSError as error:
        findings.add("error", "annotation-file", path, "No such file" if error.errno is None else str(error.strerror),
                     advice="see dataset.json_file")  # fmt: skip
    except ValueError as error:
        findings.add("error", "annotation-file", path, f"not JSON: {error}")
    return UNREADABLE


def _positive(video_id: str, key: str, value: Any, findings: Findings) -> float | None:
    if value is None:
        return None
    number = _number(value)
    if number is None or number <= 0:
        findings.add("error", key, video_id, f"{key} {value!r} is not a positive number")
        return None
    return number


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _scan_event(video: RawVideo, event: Mapping[str, object], labels: Labels, findings: Findings) -> None:
    name = _scan_label(video.id, event, labels, findings)
    segment = event.get("segment")
    start, end = map(_number, segment) if isinstance(segment, list) and len(segment) == 2 else (None, None)
    if start is None or end is None:
        findings.add("error", "bad-segment", video.id, f"segment {segment!r} is not [start, end] in seconds")
        return
    if end < start:
        findings.add("error", "reversed-event", video.id, f"[{start:g}, {end:g}] ends before it starts")
        return
    if end - start < MIN_DURATION:
        findings.add(
            "warning", "empty-event", video.id, f"[{start:g}, {end:g}] has no length",
            advice="it cannot be learned, and evaluation drops it",
        )  # fmt: skip
    if start < 0:
        findings.add("warning", "before-start", video.id, f"[{start:g}, {end:g}] starts before the video")
    if video.duration is not None:
        check_end(video.id, start, end, video.duration, findings)
    if name is not None:
        video.events.append((start, end, name))


def check_end(video_id: str, start: float, end: float, duration: float, findings: Findings) -> None:
    """Warns about an event that ends after its video. Times in seconds."""
    if end > duration + PAST_END:
        findings.add(
            "warning", "past-end", video_id,
            f"[{start:g}, {end:g}] ends {end - duration:.2f} s after the video ({duration:g} s)",
            advice="frames taken for seconds, or another cut of the video?",
        )  # fmt: skip


def _scan_label(video_id: str, event: Mapping[str, object], labels: Labels, findings: Findings) -> str | None:
    name, number = event.get("label"), event.get("label_id")
    if name is None and number is None:
        findings.add("error", "no-label", video_id, f"event {event.get('segment')} has neither 'label' nor 'label_id'")
        return None
    try:
        if number is not None:
            number = label_number(number, "")
    except ValueError as error:
        findings.add("error", "label-id", video_id, str(error).removeprefix(": "))
        return None
    try:
        text = str(number) if name is None else label_text(name, "")
    except ValueError as error:
        findings.add("error", "label-type", video_id, str(error).removeprefix(": "))
        return None
    labels.first.setdefault(text, video_id)
    if number is None:
        labels.without_id.setdefault(text, video_id)
        if (whole := whole_number(name)) is not None:
            labels.whole[text] = whole
    else:
        labels.ids[text].add(number)
    return text


def _find_duplicates(video: RawVideo, findings: Findings) -> None:
    long = [event for event in video.events if event[1] - event[0] >= MIN_DURATION]
    if not long:
        return
    starts, ends, names = zip(*long, strict=True)
    numbers = np.unique(names, return_inverse=True)[1]
    for i in np.flatnonzero(~duplicate_mask(np.array(starts), np.array(ends), numbers)):
        start, end, name = long[i]
        findings.add(
            "warning", "duplicate-event", video.id, f"'{name}' [{start:g}, {end:g}] is there twice",
            advice="dataset.duplicates: remove takes them out of training; evaluation always does",
        )  # fmt: skip


def _check_labels(labels: Labels, findings: Findings) -> None:
    for name, numbers in labels.ids.items():
        if len(numbers) > 1:
            findings.add("error", "label-with-two-ids", name, f"label ids {sorted(numbers)}")
    names_of = defaultdict(list)
    for name, numbers in labels.ids.items():
        if len(numbers) == 1:
            names_of[min(numbers)].append(name)
    for number, names in sorted(names_of.items()):
        if len(names) > 1:
            findings.add("warning", "id-with-two-labels", f"label_id {number}", f"labels {sorted(names)}")
    with_id = {name for name, numbers in labels.ids.items() if numbers}
    used = {number for numbers in labels.ids.values() for number in numbers}
    for name, video_id in labels.without_id.items():
        if with_id and name not in with_id and labels.whole.get(name) not in used:
            findings.add("error", "label-without-id", name, f"no label_id in '{video_id}', while other labels have one")
        elif not with_id and labels.listed is not None and name not in labels.listed:
            findings.add("error", "label-not-listed", name, f"in '{video_id}', but not in the file's list 'classes'")


def check_similar(labels: Labels, counts: dict[str, dict[str, int]], findings: Findings) -> None:
    """Warns about class names that are so similar that they may mean one class, at the rarer name.

    Args:
        counts: split -> class name -> number of events.
    """
    for pair in close_names(sorted(labels.first)):
        first, second = sorted(pair, key=lambda name: -sum(events_of.get(name, 0) for events_of in counts.values()))
        events = [", ".join(f"{counts[split].get(name, 0)} in {split}" for split in counts) for name in (first, second)]
        findings.add(
            "warning", "similar-labels", second,
            f"{second!r} ({events[1]}) differs little from {first!r} ({events[0]})",
            advice="one class under two names? give them one",
        )  # fmt: skip
