"""The list of videos that could not be read, `failed.csv` in the folder of the features."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from filelock import FileLock

from libs.core.files import write_text

FAILED = "failed.csv"
HEADER = ["video", "reason"]


class Failures:
    """The list of a folder. Several extractions into one folder, such as its parts, share it.

    A video stands in it until it has features, or until its file is gone.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FAILED
        self.lock = FileLock(folder / f".{FAILED}.lock")

    def note(self, video: str, reason: str | None) -> None:
        """Notes why a video failed, at once; None: it did not."""
        if reason is None and not self.path.exists():
            return
        with self.lock:
            found = {name: text for name, text in self.read().items() if name != video and os.path.exists(name)}
            if reason is not None:
                found[video] = reason
            if not found:
                self.path.unlink(missing_ok=True)
                return
            text = io.StringIO(newline="")
            csv.writer(text).writerows([HEADER, *found.items()])
            write_text(self.path, text.getvalue())

    def read(self) -> dict[str, str]:
        """Video -> reason."""
        if not self.path.exists():
            return {}
        with open(self.path, encoding="utf-8", newline="") as file:
            return {row[0]: row[1] for row in csv.reader(file) if len(row) == 2 and row != HEADER}
