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
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import FromClassTargets, Method
    from .evidence import Averaged, ClassTargets, Evidence, Lesson, Matched, Options, Progress, Sizes, Student, Trunk

__all__ = [
    "LABELED_ONLY",
    "METHODS",
    "Averaged",
    "ClassTargets",
    "Evidence",
    "FromClassTargets",
    "Lesson",
    "Matched",
    "Method",
    "Options",
    "Progress",
    "Sizes",
    "Student",
    "Trunk",
    "check_method",
    "get_method",
    "list_methods",
    "needs_truth",
]

LAZY = {"FromClassTargets": ".base", "Method": ".base"} | dict.fromkeys(
    ("Averaged", "ClassTargets", "Evidence", "Lesson", "Matched", "Options", "Progress", "Sizes", "Student", "Trunk"),
    ".evidence",
)  # name -> module that has it; imported at its first use
LABELED_ONLY = "labeled_only"  # baseline without pseudo labels
METHODS = (
    LABELED_ONLY, "target", "nt_negative", "nt", "soft", "soft_scored", "complementary", "fixmatch", "dense_teacher",
    "fullmatch", "npl", "apl", "apl_quality", "plr", "ssp", "sstap", "oracle_class",
)  # fmt: skip


def parts_of(method: str) -> list[str]:
    """The names of the methods that are composed, such as ["nt", "npl"] of "nt+npl"."""
    return method.split("+")


def check_method(name: str) -> None:
    """Raises ValueError if a part of `name` is neither a known method, which the message lists, nor the dotted path of
    a module, or if the parts do not go together."""
    parts = parts_of(name)
    for part in parts:
        _check_part(part)
    if len(parts) > 1 and (LABELED_ONLY in parts or len(set(parts)) < len(parts)):
        raise ValueError(f"method '{name}': expected different methods with pseudo labels")


def _check_part(name: str) -> None:
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


def get_method(name: str, options: Mapping[str, Mapping[str, Any]] | None = None) -> Method | None:
    """A new instance of the method of this name; None for `labeled_only`.

    The method of a module is the one subclass of `Method` that it defines; without one, its function `class_targets`,
    which `FromClassTargets` wraps with the module's constants `SPARES`, `NEEDS_TRUTH` and `SIGMOID_NOTICE`. Several
    names, joined by +, are composed (`composed.Composed`).

    Args:
        options: `semi_cfg.method_options`.

    Raises:
        ValueError: as `check_method`; the module has several subclasses, or neither; wrong settings; methods that do
            not go together.
    """
    check_method(name)
    if name == LABELED_ONLY:
        return None
    parts = {part: _with_settings(part, (options or {}).get(part, {})) for part in parts_of(name)}
    if len(parts) == 1:
        return parts[name]
    composed: Any = importlib.import_module(".composed", __name__)
    method: Method = composed.Composed(parts)
    return method


def _with_settings(name: str, options: Mapping[str, Any]) -> Method:
    from actionformer_nt.method_sections import validated

    method = _one_method(name)
    if method.schema is not None:
        method.settings = validated(name, method.schema, options)
    elif options:
        raise ValueError(f"method_options: {name}: {dict(options)}: the method has no settings; leave them out")
    return method


def _one_method(name: str) -> Method:
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
    """Whether the method of this name reads hidden labels. Raises ValueError as `get_method`, but for settings."""
    check_method(name)
    return name != LABELED_ONLY and any(_one_method(part).needs_truth for part in parts_of(name))


def _subclasses(module: ModuleType) -> list[type[Method]]:
    """Subclasses of `Method` that a module defines; imported ones do not count."""
    base: Any = importlib.import_module(".base", __name__)
    found = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, base.Method)]
    return [value for value in found if value.__module__ == module.__name__]


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(LAZY[name], __name__), name)
