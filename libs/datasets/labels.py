"""What the label of an event or a detection means: a class name, or the id of a class.

Files name classes by text ("run", "3") or by number (3, 3.0). A whole number stands for the name without decimals, and
for a class id only where no class has that name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

LARGEST = 2**53  # ids beyond are not told apart everywhere
WHOLE = re.compile(r"[+-]?[0-9]{1,16}(\.0*)?")
UNKNOWN_LABEL = -1  # a class that the annotations do not have; no class has a negative id


def label_text(value: Any, where: str) -> str:
    """The class name that a label in a file gives: 3 and 3.0 give "3".

    Raises:
        ValueError: neither text nor a finite number.
    """
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, float) or not math.isfinite(value):
        raise ValueError(f"{where}: label {value!r} must be a text or a number")
    return str(int(value)) if value == int(value) else str(value)


def whole_number(value: Any) -> int | None:
    """3 for 3, 3.0 and the texts "3" and "3.0"; None for everything that is not a whole number, or too large an id."""
    if isinstance(value, str):
        value = int(value.split(".")[0]) if WHOLE.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST <= value <= LARGEST:
        return None
    return int(value) if value == int(value) else None


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


def names_of(label_ids: dict[str, int]) -> dict[int, str]:
    """Class id -> name; of several names of one id the first."""
    return {i: name for name, i in reversed(label_ids.items())}


def label_ids(dataset: Any) -> dict[str, int]:
    """Class name -> id; empty where one class stands for all."""
    return {} if getattr(dataset, "class_agnostic", False) else dict(getattr(dataset, "label_dict", {}))


def label_names(dataset: Any, *, external_scores: bool = False) -> dict[int, str]:
    """Class id -> name; empty where one class stands for all, unless external scores tell them apart."""
    if getattr(dataset, "class_agnostic", False) and not external_scores:
        return {}
    return names_of(getattr(dataset, "label_dict", {}))


def find_label(label: Any, number: Any, label_ids: Mapping[str, int], own_ids: bool, where: str) -> int:
    """The class id of a detection.

    Args:
        label: a class name or an id; None: only the id is given.
        number: `label_id` of the detection; None: none is given.
        label_ids: class name -> id.
        own_ids: whether the annotations have ids of their own, which `number` may mean.

    Returns:
        The id of the class of that name; else a label that is a whole number itself; else, with `own_ids`, `number`;
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
    return max(beside, UNKNOWN_LABEL) if beside is not None and own_ids else UNKNOWN_LABEL
