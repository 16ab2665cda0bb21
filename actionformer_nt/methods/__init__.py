"""Semi-supervised methods, one file each: `class_targets(probs, options) -> (Y, W)`.

A method computes class targets only. To add a method, add a file here and its name to `METHODS`, or name any module in
the configuration by its dotted path (`method: my_methods.even`); docs/add-a-method.md has an example. Names can be
listed and checked without importing torch.
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

LABELED_ONLY = "labeled_only"  # baseline without pseudo labels
ORACLE = "oracle_class"  # diagnostic that uses hidden labels
PARTITIONING = ("nt_negative", "nt")  # learn from non-target classes
METHODS = (LABELED_ONLY, "target", "nt_negative", "nt", "soft", "complementary", ORACLE)


def check_method(name: str) -> None:
    """Raises ValueError if `name` is neither a known method, which the message lists, nor the dotted path of a
    module."""
    if "." in name:
        try:
            spec = importlib.util.find_spec(name)
        except ImportError:
            spec = None
        if spec is None:
            raise ValueError(f"method '{name}': there is no such module; its folder must be on PYTHONPATH, or current")
    elif name not in METHODS:
        close = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise ValueError(f"method '{name}' is not one of {list(METHODS)}{hint}")


def list_methods() -> list[str]:
    """Names that `semi_cfg.method` may have, besides modules of the user."""
    return list(METHODS)


def get_method(name: str) -> Method | None:
    """The method of this name; None for `labeled_only`. Raises ValueError as `check_method`, or if the module has no
    `class_targets`."""
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
