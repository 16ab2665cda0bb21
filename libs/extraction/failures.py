"""The list of videos that could not be read, `failed.csv` in the folder of the features."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from libs.core.files import write_text

FAILED = "failed.csv"
HEADER = ["video", "reason"]


class Failures:
    """The list of a folder. Several extractions into one folder, such as its parts, share it.

    A video stands in it until its features are there.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FAILED
        self.lock = FileLock(folder / f".{FAILED}.lock")

    def add(self, video: str, reason: str) -> None:
        """Adds a video, at once."""
        with self.lock:
            self._write(self._without([video]) | {os.path.abspath(video): reason})

    def remove(self, videos: Iterable[str]) -> None:
        """Removes the videos whose features are there."""
        if self.path.exists():
            with self.lock:
                self._write(self._without(videos))

    def read(self) -> dict[str, str]:
        """Absolute path of a video -> reason."""
        if not self.path.exists():
            return {}
        with open(self.path, encoding="utf-8", newline="") as file:
            return {row[0]: row[1] for row in csv.reader(file) if len(row) == 2 and row != HEADER}

    def _without(self, videos: Iterable[str]) -> dict[str, str]:
        names = {Path(video).stem for video in videos}  # those of their features, wherever the videos lie
        return {video: reason for video, reason in self.read().items() if Path(video).stem not in names}

    def _write(self, found: dict[str, str]) -> None:
        if not found:
            self.path.unlink(missing_ok=True)
            return
        text = io.StringIO(newline="")
        csv.writer(text).writerows([HEADER, *found.items()])
        write_text(self.path, text.getvalue().encode("utf-8", "backslashreplace").decode())
