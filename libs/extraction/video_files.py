"""Which files are videos."""

from __future__ import annotations

import os
from pathlib import Path

from libs.datasets.features import files_below

OVERLAY = "_overlay"  # end of the names of copies with detections drawn in, which are nobody's input
VIDEO_SUFFIXES = (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv")


def is_video(path: str | os.PathLike) -> bool:
    """Whether a file has the name of a video."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def videos_below(folder: str | os.PathLike) -> list[str]:
    """The video files in a folder and below, by name; no hidden files."""
    found = (Path(folder, name) for name in files_below(folder))
    return sorted(
        str(path)
        for path in found
        if is_video(path) and not path.name.startswith(".") and not path.stem.endswith(OVERLAY)
    )
