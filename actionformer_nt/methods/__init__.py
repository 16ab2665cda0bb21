"""Semi-supervised methods, one file each: what the student learns from the teacher's pseudo labels.

Most files have one function, `class_targets(probs, options) -> (Y, W)`; others have a subclass of `Method`. To add a
method, add a file here and its name to `METHODS`, or name any module in the configuration by its dotted path
(`method: my_methods.even`); docs/add-a-method.md has an example. Names can be listed and checked without importing
torch.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import ClassTargets, Evidence, FromClassTargets, Lesson, Method, Options

__all__ = [
    "LABELED_ONLY",
    "METHODS",
    "ClassTargets",
    "Evidence",
    "FromClassTargets",
    "Lesson",
    "Method",
    "Options",
    "check_method",
    "get_method",
    "list_methods",
    "needs_truth",
]

LABELED_ONLY = "labeled_only"  # baseline without pseudo labels
METHODS = (LABELED_ONLY, "target", "nt_negative", "nt", "soft", "soft_scored", "complementary", "oracle_class")


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
    """A new instance of the method of this name; None for `labeled_only`.

    The method of a module is the one subclass of `Method` that it defines; without one, its function `class_targets`,
    which `FromClassTargets` wraps with the module's constants `SPARES`, `NEEDS_TRUTH` and `SIGMOID_NOTICE`.

    Raises:
        ValueError: as `check_method`, or the module has several subclasses, or neither.
    """
    check_method(name)
    if name == LABELED_ONLY:
        return None
    module = importlib.import_module(name if "." in name else f".{name}", __name__)
    classes = _subclasses(module)
    function = getattr(module, "class_targets", None)
    if len(classes) == 1:
        return classes[0]()
    if classes or not callable(function):
        found = ", ".join(c.__name__ for c in classes) or "neither"
        raise ValueError(
            f"method '{name}': {module.__file__} must have one subclass of Method or a function "
            f"class_targets(probs, options); found {found}"
        )
    base: Any = importlib.import_module(".base", __name__)
    method: Method = base.FromClassTargets(
        function,
        spares=getattr(module, "SPARES", False),
        needs_truth=getattr(module, "NEEDS_TRUTH", False),
        sigmoid_notice=getattr(module, "SIGMOID_NOTICE", None),
    )
    return method


def needs_truth(name: str) -> bool:
    """Whether the method of this name reads hidden labels. Raises ValueError as `get_method`."""
    method = get_method(name)
    return method is not None and method.needs_truth


def _subclasses(module: ModuleType) -> list[type[Method]]:
    """Subclasses of `Method` that a module defines; imported ones do not count."""
    base: Any = importlib.import_module(".base", __name__)
    found = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, base.Method)]
    return [value for value in found if value.__module__ == module.__name__]


def __getattr__(name: str) -> Any:
    if name not in ("ClassTargets", "Evidence", "FromClassTargets", "Lesson", "Method", "Options"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(".base", __name__), name)
