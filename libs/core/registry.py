"""Names in a configuration -> what they stand for. Everything that a plug-in may add is registered here.

Nothing here imports torch or pydantic, and what is registered as "module:name" is imported at its first use, so that
registering a plug-in stays cheap.
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
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Any] = {}

    def register(self, name: str, entry: Any = None) -> Any:
        """Files `entry`, a class or function or "module:name" of one, under `name`; without it a decorator.

        Raises:
            ValueError: another entry has this name. The same one may come again, from a module that was reloaded.
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
        """The class or function of that name.

        Raises:
            ValueError: an unknown name; lists the known.
        """
        if name not in self._entries:
            raise ValueError(f"unknown {self.kind} '{name}'; known: {sorted(self._entries)}")
        entry = self._entries[name]
        if isinstance(entry, str):
            entry = self._entries[name] = pkgutil.resolve_name(entry)
        return entry

    def build(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """An instance of the class of that name, or what the function returns."""
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
    """Registers the parts of an architecture; each may come by itself. All of them may be given as "module:name".

    Args:
        name: `model_name` in the configuration.
        schema: a `Section` that says what the `model` section may hold.
        model: builds the network from the keys of the `model` section.
        self_training: how the architecture learns from unlabeled videos, see
            `actionformer_nt.self_training.interface.SelfTraining`.
    """
    for registry, entry in ((MODEL_SCHEMAS, schema), (META_ARCHS, model), (SELF_TRAINING, self_training)):
        if entry is not None:
            registry.register(name, entry)


def register_config_section(name: str, schema: type[Section] | str) -> None:
    """Adds an optional top-level section `name` to the configuration, checked against `schema` (a `Section`, or
    "module:name" of one). A name that is built in is an error when a configuration is read."""
    SECTIONS.register(name, schema)


def register_model_schema(model_name: str, schema: type[Section] | str) -> None:
    """Registers what the `model` section may hold when `model_name` names this architecture."""
    register_architecture(model_name, schema=schema)


register_architecture(
    "LocPointTransformer",
    schema="libs.core.schema:LocPointTransformerSection",
    model="libs.modeling.build:build_detector",
)
