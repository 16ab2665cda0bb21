"""One process at a time in a folder. The system frees a lock when its process ends, however it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


@contextlib.contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Makes a folder if need be, and keeps every other process from training in it.

    Raises:
        ValueError: another process does (names the folder).
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / name, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(
            f"{folder}: another process is writing there (it holds {name}); wait for its end, or choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()
