"""Semi-supervised methods, one file each: `class_targets(probs, options) -> (Y, W)`.

A method deals with classes alone. Adding one is a file here and its name in `METHODS`, or a module anywhere, named in
the configuration with a dot (`method: my_methods.even`). docs/add-a-method.md has an example. Names can be listed and
checked without importing torch.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import ClassTargets, Method, Options

__all__ = [
    "LABELED_ONLY",
    "METHODS",
    "ORACLE",
    "PARTITIONING",
    "ClassTargets",
    "Method",
    "Options",
    "check_method",
    "get_method",
    "list_methods",
]

LABELED_ONLY = "labeled_only"  # no pseudo labels at all: the baseline
ORACLE = "oracle_class"  # uses hidden labels: a diagnostic
PARTITIONING = ("nt_negative", "nt")  # learn from non-target classes
METHODS = (LABELED_ONLY, "target", "nt_negative", "nt", "soft", "complementary", ORACLE)


def check_method(name: str) -> None:
    """Raises ValueError, which lists the known methods, on any other name that is not that of a module (with a dot)."""
    if "." in name:
        try:
            found = importlib.util.find_spec(name)
        except ImportError:
            found = None
        if found is None:
            raise ValueError(f"method '{name}': there is no such module; its folder must be on PYTHONPATH, or current")
    elif name not in METHODS:
        close = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise ValueError(f"method '{name}' is not one of {list(METHODS)}{hint}")


def list_methods() -> list[str]:
    """Names that `semi_cfg.method` may have, beside modules of your own."""
    return list(METHODS)


def get_method(name: str) -> Method | None:
    """The method of this name; None for `labeled_only`. Raises ValueError on an unknown name; lists the known."""
    check_method(name)
    if name == LABELED_ONLY:
        return None
    module = importlib.import_module(name if "." in name else f".{name}", __name__)
    if not callable(getattr(module, "class_targets", None)):
        raise ValueError(f"method '{name}': {module.__file__} has no function class_targets(probs, options)")
    method: Method = module.class_targets
    return method


def __getattr__(name: str) -> Any:
    if name not in ("ClassTargets", "Method", "Options"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(".base", __name__), name)
