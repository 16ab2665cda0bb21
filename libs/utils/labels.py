"""What the label of an event or a detection means: a class name, or the id of a class.

Files name classes by text ("run", "3") or by number (3, 3.0). A whole number stands for the name without decimals, and
for a class id only where no class has that name.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

UNKNOWN_LABEL = -1  # a class that the annotations do not have; no class has a negative id


def label_text(value: Any, where: str) -> str:
    """The class name that a label in a file gives: 3 and 3.0 give "3".

    Raises:
        ValueError: neither text nor a finite number.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where}: label {value!r} must be a text or a number")
    return str(int(value)) if value == int(value) else str(value)


def whole_number(value: Any) -> int | None:
    """3 for 3, 3.0 and "3"; None for everything that is not a whole number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
        return int(number) if number == int(number) else None
    except (ValueError, OverflowError):
        return None


def label_number(value: Any, where: str) -> int:
    """A class id as a file gives it: 3 or 3.0.

    Raises:
        ValueError: not a whole number, or negative.
    """
    number = None if isinstance(value, str) else whole_number(value)
    if number is None:
        raise ValueError(f"{where}: label_id {value!r} is not an integer")
    if number < 0:
        raise ValueError(f"{where}: label_id {value!r} is negative; ids count from 0")
    return number


def find_label(label: Any, number: Any, label_ids: Mapping[str, int], ids: Collection[int] | None, where: str) -> int:
    """The class id of a detection.

    Args:
        label: a class name or an id; None: only the id is given.
        number: `label_id` of the detection; None: none is given.
        label_ids: class name -> id.
        ids: the ids that a `label_id` beside an unknown name may mean; None: none, since the annotations have no ids
            of their own.

    Returns:
        The id of the class of that name; else a label that is a whole number itself; else `number` where `ids` has it;
        else `UNKNOWN_LABEL`.

    Raises:
        ValueError: a label that is neither text nor a number, or an id that is not a whole number.
    """
    if label is None:
        own = whole_number(number)
        if own is None:
            raise ValueError(f"{where}: label_id {number!r} is not an integer")
        return max(own, UNKNOWN_LABEL)
    name = label_text(label, where)
    if name in label_ids:
        return label_ids[name]
    own = whole_number(label)
    if own is not None:
        return max(own, UNKNOWN_LABEL)
    beside = whole_number(number)
    return beside if beside is not None and ids is not None and beside in ids else UNKNOWN_LABEL
