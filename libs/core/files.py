"""Reading and writing small text and JSON files, always as UTF-8. JSON objects with repeated keys are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class RepeatedKeysError(ValueError):
    """A JSON object repeats the keys in `keys`."""

    def __init__(self, message: str, keys: list[str]) -> None:
        super().__init__(message)
        self.keys = keys


def load_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file, with or without a byte-order mark.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, or an object repeats a key (Python's reader would silently keep the last value); names the
            file and the keys.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"file not found: {os.fspath(path)}")
    try:
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file, object_pairs_hook=_unique)
    except RepeatedKeysError as error:
        raise RepeatedKeysError(
            f"{os.fspath(path)}: {error} more than once in one object; merge the entries or remove one", error.keys
        ) from None
    except RecursionError:
        raise ValueError(f"{os.fspath(path)}: broken JSON: nested too deeply") from None
    except (ValueError, UnicodeDecodeError) as error:  # ValueError: broken JSON, or an integer with too many digits
        raise ValueError(f"{os.fspath(path)}: broken JSON: {error}") from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a file atomically: after a crash, `path` still holds the old content."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The dict of a JSON object; raises RepeatedKeysError if it repeats a key."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        named = ", ".join(repr(key) for key in repeated[:5]) + (", ..." if len(repeated) > 5 else "")
        plural = len(repeated) > 1
        raise RepeatedKeysError(f"the key{'s' * plural} {named} stand{'' if plural else 's'}", repeated)
    return content
