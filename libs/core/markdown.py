"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in GitHub's Markdown, one line per row, without a trailing newline.

    Args:
        columns: titles; they may be empty or repeated.
        rows: one cell per column. A cell is written as `str(cell)` with "|" escaped; numbers are not rounded.

    Raises:
        ValueError: a row has more or fewer cells than there are columns.
    """
    titles, *lines = [
        [str(cell).replace("|", "\\|") for cell, _ in zip(row, columns, strict=True)] for row in (columns, *rows)
    ]
    # stralign=None: cells are not padded to the longest of their column
    return pd.DataFrame(lines, columns=titles).to_markdown(index=False, disable_numparse=True, stralign=None)
