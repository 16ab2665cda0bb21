"""An input file, read on demand as a CSV table or as JSON."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from libs.core.files import load_json


class Source:
    """A UTF-8 file, with or without a byte-order mark."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = os.fspath(path)
        if not os.path.isfile(self.path):
            raise FileNotFoundError(f"file not found: {self.path}")

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @cached_property
    def header(self) -> tuple[str, ...]:
        """Column names of a CSV table; empty if the file is JSON or not text."""
        try:
            with open(self.path, encoding="utf-8-sig", newline="") as file:
                start = file.read(4096).lstrip()
                if start[:1] in ("{", "["):
                    return ()
                file.seek(0)
                return tuple(next(csv.reader(file), ()))
        except (UnicodeDecodeError, csv.Error):
            return ()

    @cached_property
    def content(self) -> Any:
        """The content of a JSON file; None for any other."""
        with open(self.path, "rb") as file:
            is_json = file.read(4096).lstrip()[:1] in (b"{", b"[")
        return load_json(self.path) if is_json else None

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
        """Yields (location for messages, row) of each row of a table; a location is "FILE, line 12".

        Raises:
            ValueError: one of `columns` is missing, or a row does not have as many cells as the header.
        """
        if missing := [column for column in columns if column not in self.header]:
            raise ValueError(
                f"{self.path}: no column {', '.join(missing)}; the file has {', '.join(self.header) or 'none'}"
            )
        try:
            with open(self.path, encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file)
                next(reader)
                for cells in filter(None, reader):  # skips empty lines
                    where = f"{self.path}, line {reader.line_num}"
                    if len(cells) != len(self.header):
                        raise ValueError(f"{where}: {len(cells)} cells, expected {len(self.header)}, as in the header")
                    yield where, dict(zip(self.header, cells, strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{self.path}: not a table in UTF-8: {error}") from None
