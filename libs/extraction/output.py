"""The folder of an extraction: what is there already, and writing that leaves whole files only, whenever it ends."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from torch import Tensor

from libs.datasets.sidecar import Sidecar, differences, find_sidecar, sidecar_path

from .decode import VideoFile

INSTEAD = "choose another folder, or --overwrite"


class OutputFolder:
    """A folder of features, NAME.npy (N, C) float32 with a sidecar NAME.json for each video.

    Args:
        path: of the folder.
        settings: how features are to be made (`Extractor.settings`).
        fps: frames per second at which videos are seen; None: each video's own.
        overwrite: replace features that were made otherwise, and files that no extraction made, instead of refusing.
    """

    def __init__(
        self, path: str | os.PathLike, settings: Mapping[str, object], *, fps: Fraction | None, overwrite: bool = False
    ) -> None:
        self.path, self.settings, self.fps, self.overwrite = Path(path), settings, fps, overwrite

    def features(self, video: str) -> Path:
        """The feature file of a video."""
        return self.path / f"{Path(video).stem}.npy"

    def there(self, videos: Sequence[str]) -> list[str]:
        """The videos whose features are there already.

        Raises:
            ValueError: two videos have the same name; or what is there was made otherwise, or by others.
        """
        check_names(videos)
        found, refused = [], []
        for video in videos:
            try:
                found += [video] if self.is_there(video) else []
            except ValueError as error:
                refused.append(str(error))
        if refused:
            raise ValueError(refused[0] + (f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""))
        self._check_neighbours()
        return found

    def is_there(self, video: str) -> bool:
        """Whether the features of a video are there. Raises ValueError if they were made otherwise, or by others."""
        features = self.features(video)
        side = sidecar_path(features)
        if not (features.exists() or side.exists()):
            return False
        try:
            found = find_sidecar(features)
        except ValueError as error:
            return self._replace(f"{error}: {INSTEAD}")
        if found is None:
            if _hidden(side).exists():  # an extraction was killed between its two files
                return False
            return self._replace(f"{side if side.exists() else features} was not made by an extraction: {INSTEAD}")
        if os.path.isfile(video) and found.digest not in ("", digest_of(video)):
            return self._replace(f"{features} is of another video called {found.video}: {INSTEAD}")
        if wrong := differences(found.settings() | {"fps": found.fps}, self._wanted(video)):
            return self._replace(f"{features} has other settings ({wrong}): {INSTEAD}")
        return _shape(features) == (found.rows, found.channels)

    def _wanted(self, video: str) -> dict[str, object]:
        fps = self.fps
        if fps is None and os.path.isfile(video):
            fps = VideoFile(video).rate
        return {**self.settings} | ({} if fps is None else {"fps": float(fps)})

    def _replace(self, message: str) -> bool:
        """False: not there, so that it is made anew; or raises ValueError with the message."""
        if not self.overwrite:
            raise ValueError(message)
        return False

    def _check_neighbours(self) -> None:
        """Raises ValueError if the folder has features of other settings, of whatever video."""
        if self.overwrite or not self.path.is_dir():
            return
        for features in sorted(self.path.glob("*.npy")):
            if (found := find_sidecar(features)) is not None:
                if wrong := differences(found.settings(), self.settings):
                    raise ValueError(f"{features} in the same folder has other settings ({wrong}): {INSTEAD}")
                return  # they are all alike

    def claim(self, video: str) -> FileLock | None:
        """A lock that admits one process to a video; None if another process has it."""
        lock = FileLock(self.path / f".{Path(video).stem}.lock", thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        return lock

    def write(self, video: str, rows: np.ndarray, sidecar: Sidecar) -> None:
        """Writes features (N, C) and their sidecar. The sidecar comes last: without it, they count as not there."""
        features = self.features(video)
        side = sidecar_path(features)
        parts = _hidden(features), _hidden(side)
        try:
            sidecar.write(parts[1])
            with open(parts[0], "wb") as file:
                np.save(file, rows)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            for part in parts:
                part.unlink(missing_ok=True)
            raise
        side.unlink(missing_ok=True)  # of earlier features
        os.replace(parts[0], features)
        os.replace(parts[1], side)


class Rows:
    """Rows (N, C) float32 in one array that grows by doubling.

    One by one, between the large tensors of clips, they would keep memory from being used again.
    """

    def __init__(self, channels: int) -> None:
        self._held, self.count = np.empty((64, channels), np.float32), 0

    def append(self, row: Tensor) -> None:
        """Adds a row (C,)."""
        if self.count == len(self._held):
            self._held = np.concatenate([self._held, np.empty_like(self._held)])
        self._held[self.count] = row.numpy()
        self.count += 1

    def array(self) -> np.ndarray:
        """(N, C)."""
        return self._held[: self.count]


def check_names(videos: Sequence[str]) -> None:
    """Raises ValueError if two videos would have one feature file."""
    names: dict[str, str] = {}
    for path in videos:
        other = names.setdefault(Path(path).stem, path)
        if other != path:
            raise ValueError(
                f"several videos have the name {Path(path).stem}, {other} and {path}; their features would be one "
                "file: extract them into a folder each"
            )


def digest_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file's size, first and last 64 KiB: enough to tell videos apart."""
    size = os.path.getsize(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(1 << 16))
        file.seek(max(size - (1 << 16), 0))
        digest.update(file.read())
    return digest.hexdigest()


def _hidden(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f".{path.name}.part")


def _shape(features: Path) -> tuple[int, ...] | None:
    """Shape of an array in a file; None if it cannot be read."""
    try:
        shape: tuple[int, ...] = np.load(features, mmap_mode="r").shape
        return shape
    except (OSError, ValueError, EOFError):
        return None
