"""Options and results of converters, and writing of the results."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

from libs.datasets.entries import VideoEntry


@dataclass(frozen=True)
class Options:
    """Options of a format; None: not given.

    Attributes:
        label: which label of an event is its class: "verb" or "noun".
        classes: file with the names of the classes.
        grid: frames between consecutive features; clips are widened to multiples of it.
    """

    label: str | None = None
    classes: str | os.PathLike | None = None
    grid: int | None = None

    def given(self) -> list[str]:
        """Names of the options that are given."""
        return [entry.name for entry in fields(self) if getattr(self, entry.name) is not None]


class Note(NamedTuple):
    """A video, clip or event that was dropped or changed."""

    reason: str
    where: str  # file, row and name
    value: str


@dataclass
class Converted:
    """The result of a converter.

    Attributes:
        database: video id -> video, as in an annotation file; times in seconds.
        notes: everything that was dropped or changed.
    """

    database: dict[str, VideoEntry] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def reasons(self) -> dict[str, list[Note]]:
        """Notes by reason, in the order of their first occurrence."""
        by_reason: dict[str, list[Note]] = {}
        for note in self.notes:
            by_reason.setdefault(note.reason, []).append(note)
        return by_reason


def write_annotations(path: str | os.PathLike, database: dict[str, VideoEntry]) -> None:
    """Writes an annotation file; creates missing folders."""
    _write(path, json.dumps({"database": database}, ensure_ascii=False) + "\n")


def write_notes(path: str | os.PathLike, notes: Sequence[Note]) -> None:
    """Writes one line per note: reason, place and value, separated by tabs."""
    _write(path, "".join("\t".join(note) + "\n" for note in notes))


def _write(path: str | os.PathLike, text: str) -> None:
    """Writes a file atomically: a reader finds the old or the new content, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
