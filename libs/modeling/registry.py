"""Names in a configuration -> classes. A plug-in registers its own with the same decorators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Registry:
    """Classes of one kind by name.

    Args:
        kind: what they are, for error messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind, self._entries = kind, {}

    def register(self, name: str) -> Callable[[type], type]:
        """Decorator that files a class under `name`; another class of that name is a ValueError."""

        def decorate(cls: type) -> type:
            if self._entries.setdefault(name, cls) is not cls:
                raise ValueError(f"{self.kind} '{name}' is already registered")
            return cls

        return decorate

    def build(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """An instance of the class of that name; an unknown one is a ValueError that lists the known."""
        if name not in self._entries:
            raise ValueError(f"unknown {self.kind} '{name}'; known: {sorted(self._entries)}")
        return self._entries[name](*args, **kwargs)


META_ARCHS = Registry("meta-architecture")
BACKBONES = Registry("backbone")
NECKS = Registry("neck")

register_meta_arch, register_backbone, register_neck = META_ARCHS.register, BACKBONES.register, NECKS.register
make_backbone, make_neck = BACKBONES.build, NECKS.build


def make_meta_arch(name: str, **kwargs: Any):
    """Builds an architecture from the `model` section of a resolved configuration."""
    return META_ARCHS.build(name, **kwargs)
