"""Detection of class names that may be two spellings of one class."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

SHORT = 5  # letters; shorter words must be equal: "polo" and "pool" are two games


def close_names(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ only in case, spaces, hyphens or underscores, or by one typing error per word: a
    letter too many, missing or wrong, except the first letter. Words with different numbers never match."""
    words = {name: re.sub(r"[\s_-]+", " ", name.casefold()).split() for name in names}
    return [
        (first, second)
        for first, second in itertools.combinations(names, 2)
        if "".join(words[first]) == "".join(words[second])
        or (
            len(words[first]) == len(words[second])
            and all(_close(a, b) for a, b in zip(words[first], words[second], strict=True))
        )
    ]


def _close(a: str, b: str) -> bool:
    if a == b:
        return True
    typed = min(len(a), len(b)) >= SHORT and a[0] == b[0] and abs(len(a) - len(b)) <= 1
    return typed and re.findall(r"\d+", a) == re.findall(r"\d+", b) and edit_distance(a, b) == 1


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: the number of letters to insert, remove or replace to turn one word into the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]
