"""What a converter is told and returns, and how it is written."""

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
    """What a format may have to be told; None: not given.

    Attributes:
        label: which of several labels of an event is the class.
        classes: file with the names of the classes.
        grid: frames from one feature to the next, to which clips are widened.
    """

    label: str | None = None
    classes: str | os.PathLike | None = None
    grid: int | None = None

    def given(self) -> list[str]:
        return [entry.name for entry in fields(self) if getattr(self, entry.name) is not None]


class Note(NamedTuple):
    """Something that was dropped or changed."""

    reason: str
    where: str  # file, row and name
    value: str


@dataclass
class Converted:
    """
    Attributes:
        database: video id -> video, as in an annotation file; times in seconds.
        notes: everything that was dropped or changed.
    """

    database: dict[str, VideoEntry] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def reasons(self) -> dict[str, list[Note]]:
        """Notes by reason, in the order of their first occurrence."""
        found: dict[str, list[Note]] = {}
        for note in self.notes:
            found.setdefault(note.reason, []).append(note)
        return found


def write_annotations(path: str | os.PathLike, database: dict[str, VideoEntry]) -> None:
    """Writes an annotation file; folders are made where they are missing."""
    _write(path, json.dumps({"database": database}, ensure_ascii=False) + "\n")


def write_notes(path: str | os.PathLike, notes: Sequence[Note]) -> None:
    """Writes a line for each note: reason, place and value, with tabs between them."""
    _write(path, "".join("\t".join(note) + "\n" for note in notes))


def _write(path: str | os.PathLike, text: str) -> None:
    """Writes a file at once: whoever reads `path` finds the old content or the new, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
