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
        kind: noun for an entry, used in error messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Any] = {}

    def register(self, name: str, entry: Any = None) -> Any:
        """Registers `entry` under `name` and returns it; without `entry`, returns a decorator that does so.

        Args:
            entry: a class, a function, or "module:name" of either.

        Raises:
            ValueError: another entry has this name. The same entry may be registered again, as after a reload.
        """
        if entry is None:
            return lambda decorated: self.register(name, decorated)
        if _origin(self._entries.setdefault(name, entry)) != _origin(entry):
            raise ValueError(f"{self.kind} '{name}' is already registered")
        self._entries[name] = entry
        return entry

    def names(self) -> list[str]:
        """All names, in the order of registration."""
        return list(self._entries)

    def get(self, name: str) -> Any:
        """The class or function registered under `name`.

        Raises:
            ValueError: `name` is unknown; lists the known names.
        """
        if name not in self._entries:
            raise ValueError(f"unknown {self.kind} '{name}'; known: {sorted(self._entries)}")
        entry = self._entries[name]
        if isinstance(entry, str):
            entry = self._entries[name] = pkgutil.resolve_name(entry)
        return entry

    def build(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Calls the class or function registered under `name` with the other arguments."""
        return self.get(name)(*args, **kwargs)


def _origin(entry: Any) -> str:
    return entry if isinstance(entry, str) else f"{entry.__module__}:{entry.__qualname__}"


SECTIONS = Registry("section of the configuration")
MODEL_SCHEMAS = Registry("schema of an architecture")
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
    schema="libs.core.schema:LocPointTransformerSection",
    model="libs.modeling.build:build_detector",
)
