"""Semi-supervised methods, one file each: `class_targets(probs, options) -> (Y, W)`.

A method deals with classes alone. Adding one is a file here, its name in `NAMES`, and a configuration.
"""

from __future__ import annotations

import difflib
import importlib

from .base import ClassTargets, Method, Options

__all__ = ["LABELED_ONLY", "NAMES", "ClassTargets", "Method", "Options", "get_method"]

LABELED_ONLY = "labeled_only"  # no pseudo labels at all: the baseline
NAMES = (LABELED_ONLY, "target", "nt_negative", "nt", "soft", "complementary", "oracle_class")


def get_method(name: str) -> Method | None:
    """The method of this name; None for `labeled_only`.

    Raises:
        ValueError: unknown; lists the known.
    """
    if name not in NAMES:
        close = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise ValueError(f"semi_cfg.method: '{name}' is not one of {list(NAMES)}{hint}")
    if name == LABELED_ONLY:
        return None
    return importlib.import_module(f".{name}", __name__).class_targets
