"""A lock that admits one process per folder. The operating system frees it when the process ends, even by a crash."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


@contextlib.contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Creates `folder` if it does not exist, and holds its lock within the context.

    Raises:
        ValueError: another process holds the lock; names the folder.
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
