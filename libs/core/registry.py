"""Registries: names in a configuration -> classes and functions. Plug-ins add their own.

This module imports neither torch nor pydantic, and an entry given as "module:name" is imported at its first use, so
registering a plug-in is cheap.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .schema import Section


class Registry:
    """Classes and functions of one kind by name.

    Args:
        kind: what they are, for error messages.
        replace: whether a later entry replaces an earlier one of the same name.
    """

    def __init__(self, kind: str, *, replace: bool = False) -> None:
        self.kind, self.replace = kind, replace
        self._entries: dict[str, Any] = {}  # as registered
        self._resolved: dict[str, Any] = {}  # what "module:name" has been imported as

    def register(self, name: str, entry: Any = None) -> Any:
        """Adds a class, a function or another callable, or "module:name" of one. Without `entry`, it is a decorator.

        Raises:
            ValueError: another entry has this name. A class or function of a module that was reloaded may come again.
        """
        if entry is None:
            return lambda decorated: self.register(name, decorated)
        known = self._entries.get(name)
        if known is not None and not self.replace and not _is_same(known, entry):
            raise ValueError(f"{self.kind} '{name}' is already registered")
        self._entries[name] = entry
        self._resolved.pop(name, None)
        return entry

    def names(self) -> list[str]:
        """All names, in the order of registration."""
        return list(self._entries)

    def get(self, name: str) -> Any:
        """The entry of that name; "module:name" is imported at its first use.

        Raises:
            ValueError: an unknown name; lists the known.
        """
        if name not in self._entries:
            raise ValueError(f"unknown {self.kind} '{name}'; known: {sorted(self._entries)}")
        if name not in self._resolved:
            entry = self._entries[name]
            self._resolved[name] = pkgutil.resolve_name(entry) if isinstance(entry, str) else entry
        return self._resolved[name]

    def build(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Calls the entry of that name: an instance of a class, or the result of a function."""
        return self.get(name)(*args, **kwargs)


def _is_same(known: Any, entry: Any) -> bool:
    """Whether two entries are one, or the same class or function of a reloaded module."""
    if known is entry or known == entry:
        return True
    return _origin(known) is not None and _origin(known) == _origin(entry)


def _origin(entry: Any) -> str | None:
    """Module and name of a class or function at the top of a module; None for what is made at run time."""
    if isinstance(entry, str):
        return entry
    module, name = getattr(entry, "__module__", None), getattr(entry, "__qualname__", None)
    return f"{module}:{name}" if module and name and "<" not in name else None


SECTIONS = Registry("section of the configuration", replace=True)
MODEL_SCHEMAS = Registry("schema of an architecture", replace=True)
META_ARCHS = Registry("meta-architecture")
SELF_TRAINING = Registry("self-training of an architecture")
BACKBONES = Registry("backbone")
NECKS = Registry("neck")
DATASETS = Registry("data set")


def register_architecture(
    name: str,
    *,
    schema: type[Section] | str | None = None,
    model: Callable[..., Any] | str | None = None,
    self_training: Callable[..., Any] | str | None = None,
) -> None:
    """Registers an architecture, or one part of it per call. Every part may be given as "module:name".

    Args:
        name: `model_name` in the configuration.
        schema: the `Section` that validates the `model` section.
        model: builds the network from the keys of the `model` section.
        self_training: how the architecture learns from unlabeled videos, see
            `actionformer_nt.self_training.interface.SelfTraining`.
    """
    for registry, entry in ((MODEL_SCHEMAS, schema), (META_ARCHS, model), (SELF_TRAINING, self_training)):
        if entry is not None:
            registry.register(name, entry)


def register_config_section(name: str, schema: type[Section] | str) -> None:
    """Adds an optional top-level section to the configuration.

    Args:
        name: key of the section. The name of a built-in section is reported when a configuration is read.
        schema: the `Section` that validates it, or "module:name" of that class.
    """
    SECTIONS.register(name, schema)


def register_model_schema(model_name: str, schema: type[Section] | str) -> None:
    """Registers the `Section` that validates the `model` section of architecture `model_name`."""
    register_architecture(model_name, schema=schema)


register_architecture(
    "LocPointTransformer",
    schema="libs.core.actionformer_section:LocPointTransformerSection",
    model="libs.modeling.meta_archs:PtTransformer",
)
