"""EPIC-Kitchens-100: the tables `EPIC_100_train.csv`, `EPIC_100_validation.csv` and `EPIC_100_video_info.csv`.

An action has a verb and a noun; one call writes the annotations of either the verbs or the nouns. Class ids are those
of the tables.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from .result import Converted, Note, Options
from .source import Source

TITLE = "EPIC-Kitchens-100, the tables EPIC_100_train.csv, EPIC_100_validation.csv and EPIC_100_video_info.csv"
OPTIONS = ("label", "classes")
LABELS = ("verb", "noun")
ACTIONS = ("narration_id", "video_id", "start_timestamp", "stop_timestamp")  # columns
VIDEOS = ("video_id", "duration", "fps")
CLASSES = ("id", "key")
SUBSETS = {"train": "training", "val": "validation"}  # part of the file's name -> subset
TIME = re.compile(r"(\d+):([0-5]?\d):([0-5]?\d(?:\.\d*)?)")


def recognizes(source: Source) -> bool:
    return any(set(columns) <= set(source.header) for columns in (ACTIONS, VIDEOS, CLASSES))


def read(sources: Sequence[Source], options: Options) -> Converted:
    if options.label not in LABELS:
        given = "is not given" if options.label is None else options.label
        raise ValueError(f"--label {given}: an action of EPIC-Kitchens has two classes; expected verb or noun")
    tables: list[Source] = []  # of videos
    actions: list[Source] = []
    for source in sources:
        if set(CLASSES) <= set(source.header):
            raise ValueError(f"{source.path}: a table of classes; name it after --classes")
        (actions if "narration_id" in source.header else tables).append(source)
    if not tables:
        raise ValueError("no table of videos among the inputs; EPIC_100_video_info.csv has their durations")
    if not actions:
        raise ValueError("no table of actions among the inputs; expected EPIC_100_train.csv or EPIC_100_validation.csv")
    videos = {name: entry for source in tables for name, entry in _videos(source)}
    names = None if options.classes is None else _classes(Source(options.classes))

    result = Converted()
    seen: set[str] = set()
    for source in actions:
        _add_actions(result, source, label=options.label, videos=videos, names=names, seen=seen)
    for source in tables:
        unused = [(name, entry) for name, entry in _videos(source) if name not in result.database]
        reason = "video left out, it has no actions in these files"
        result.notes += [Note(reason, f"{source.path}, {name}", f"{seconds:g} s") for name, (seconds, _) in unused]
    return result


def _add_actions(
    result: Converted,
    source: Source,
    *,
    label: str,
    videos: dict[str, tuple[float, float]],
    names: dict[int, str] | None,
    seen: set[str],
) -> None:
    """Adds the actions of a table to `result`.

    Args:
        label: "verb" or "noun".
        videos: video id -> duration in seconds and frames per second.
        names: class id -> name; None: not known.
        seen: narration ids of earlier actions; the ids of this table are added.
    """
    subset = _subset(source)
    column = f"{label}_class"
    for where, row in source.rows((*ACTIONS, column)):
        video, narration = row["video_id"], row["narration_id"]
        if video not in videos:
            raise ValueError(f"{where}: video_id '{video}' is not in the table of videos")
        duration, fps = videos[video]
        start, stop = (_seconds(where, key, row[key]) for key in ("start_timestamp", "stop_timestamp"))
        number = _class_id(where, column, row[column])
        if names is not None and number not in names:
            raise ValueError(f"{where}: {column} {number} is not in the table of classes")
        entry = result.database.setdefault(
            video, {"subset": subset, "duration": duration, "fps": fps, "annotations": []}
        )
        if entry["subset"] != subset:
            raise ValueError(f"{where}: video_id '{video}' is in the subset {entry['subset']} already, found {subset}")
        times = f"{row['start_timestamp']} to {row['stop_timestamp']}"
        if narration in seen:
            result.notes.append(
                Note("action dropped, its narration_id was there before", f"{where}, {narration}", times)
            )
        elif stop <= start:
            result.notes.append(
                Note("action dropped, it ends before or when it starts", f"{where}, {narration}", times)
            )
        else:
            name = f"{label} {number}" if names is None else names[number]
            entry["annotations"].append({"segment": [start, stop], "label": name, "label_id": number})
        seen.add(narration)


def _subset(source: Source) -> str:
    subsets = {subset for part, subset in SUBSETS.items() if part in source.name.lower()}
    if len(subsets) != 1:
        raise ValueError(f"{source.path}: the file's name must have 'train' or 'val' in it, which says the subset")
    return subsets.pop()


def _videos(source: Source) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yields (video id, (duration in seconds, frames per second))."""
    for where, row in source.rows(VIDEOS):
        yield row["video_id"], (_positive(where, "duration", row["duration"]), _positive(where, "fps", row["fps"]))


def _classes(source: Source) -> dict[int, str]:
    """Class id -> name. Names must be unique, since annotation files identify classes by name."""
    names: dict[int, str] = {}
    for where, row in source.rows(CLASSES):
        number, name = _class_id(where, "id", row["id"]), row["key"]
        if number in names or name in names.values():
            raise ValueError(f"{where}: id {number} or key '{name}' is there twice")
        names[number] = name
    return names


def _seconds(where: str, column: str, text: str) -> float:
    """ "01:02:03.45" -> 3723.45, to the millisecond."""
    match = TIME.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{where}: {column} '{text}', expected hours:minutes:seconds such as 00:01:02.34")
    hours, minutes, seconds = match.groups()
    return round(int(hours) * 3600 + int(minutes) * 60 + float(seconds), 3)


def _class_id(where: str, column: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{where}: {column} '{text}', expected a number from 0 on")
    return int(text)


def _positive(where: str, column: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{where}: {column} '{text}', expected a positive number")
    return number
