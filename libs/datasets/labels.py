"""Interpretation of labels in files: a label is a class name or a class id.

Files give labels as text ("run", "3") or numbers (3, 3.0). A whole number is first looked up as a class name without
decimals ("3"); it is a class id only if no class has that name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

LARGEST = 2**53  # float64 does not represent all larger integers
WHOLE = re.compile(r"[+-]?[0-9]{1,16}(\.0*)?")
UNKNOWN_LABEL = -1  # id of detections whose class the annotations do not have; class ids are not negative


def label_text(value: object, where: str) -> str:
    """The class name of a label: 3 and 3.0 give "3".

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


def whole_number(value: object) -> int | None:
    """3 for 3, 3.0 and the texts "3" and "3.0"; None for all other values, and for integers beyond `LARGEST`."""
    if isinstance(value, str):
        value = int(value.split(".")[0]) if WHOLE.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST <= value <= LARGEST:
        return None
    return int(value) if value == int(value) else None


def label_number(value: object, where: str) -> int:
    """The class id of a `label_id`: 3 or 3.0.

    Raises:
        ValueError: not a whole number, or negative.
    """
    number = None if isinstance(value, str) else whole_number(value)
    if number is None:
        raise ValueError(f"{where}: label_id {value!r} is not an integer")
    if number < 0:
        raise ValueError(f"{where}: label_id {value!r} is negative; ids count from 0")
    return number


def names_of(label_ids: Mapping[str, int]) -> dict[int, str]:
    """Class id -> name, in the given order; if several names share an id, the first name."""
    names: dict[int, str] = {}
    for name, i in label_ids.items():
        names.setdefault(i, name)
    return names


def label_ids(dataset: Any) -> dict[str, int]:
    """Class name -> id of a data set, including data sets of users' own classes; empty if it is class-agnostic."""
    return {} if getattr(dataset, "class_agnostic", False) else dict(getattr(dataset, "label_dict", {}))


def label_names(dataset: Any, *, external_scores: bool = False) -> dict[int, str]:
    """Class id -> name of a data set, including data sets of users' own classes; empty if it is class-agnostic.

    Args:
        external_scores: whether the labels are from external class scores, so that a class-agnostic data set has names
            too.
    """
    if getattr(dataset, "class_agnostic", False) and not external_scores:
        return {}
    return names_of(getattr(dataset, "label_dict", {}))


def find_label(label: object, number: object, label_ids: Mapping[str, int], own_ids: bool, where: str) -> int:
    """The class id of a detection.

    Args:
        label: class name or id; None: only `number` is given.
        number: `label_id` of the detection; None: not given.
        label_ids: class name -> id.
        own_ids: whether the annotations have their own ids, so that `number` may be one of them.

    Returns:
        The id of the class named `label`; else `label` if it is a whole number; else `number` if `own_ids`; else
            `UNKNOWN_LABEL`.

    Raises:
        ValueError: a label that is neither text nor a number, or an id that is not a whole number.
    """
    if label is None:
        class_id = whole_number(number)
        if class_id is None:
            raise ValueError(f"{where}: label_id {number!r} is not an integer")
        return max(class_id, UNKNOWN_LABEL)
    name = label_text(label, where)
    if name in label_ids:
        return label_ids[name]
    class_id = whole_number(label)
    if class_id is not None:
        return max(class_id, UNKNOWN_LABEL)
    given_id = whole_number(number)
    return max(given_id, UNKNOWN_LABEL) if given_id is not None and own_ids else UNKNOWN_LABEL
