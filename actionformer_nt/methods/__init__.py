"""Semi-supervised methods, one file each: `class_targets(probs, options) -> (Y, W)`.

A method deals with classes alone. Adding one is a file here, its name in `actionformer_nt/names.py`, and a
configuration.
"""

from __future__ import annotations

import importlib

from actionformer_nt.names import LABELED_ONLY, check_method

from .base import ClassTargets, Method, Options

__all__ = ["ClassTargets", "Method", "Options", "get_method"]


def get_method(name: str) -> Method | None:
    """The method of this name; None for `labeled_only`. Raises ValueError on an unknown name; lists the known."""
    check_method(name)
    if name == LABELED_ONLY:
        return None
    return importlib.import_module(f".{name}", __name__).class_targets
