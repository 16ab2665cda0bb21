"""Semi-supervised methods, one file each: `class_targets(probs, options) -> (Y, W)`.

A method deals with classes alone. Adding one is a file here and its name in `actionformer_nt/names.py`, or a module
anywhere, named in the configuration with a dot (`method: my_methods.even`). docs/add-a-method.md has an example.
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
    module = importlib.import_module(name if "." in name else f".{name}", __name__)
    if not callable(getattr(module, "class_targets", None)):
        raise ValueError(f"method '{name}': {module.__file__} has no function class_targets(probs, options)")
    return module.class_targets
