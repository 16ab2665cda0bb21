"""Schemas that plug-ins add: sections of their own, and the `model` section of their architectures.

Nothing here needs pydantic: a plug-in that gives its schema as "module:name" can be imported at no cost, and the
schema is imported when a configuration is checked against it.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .schema import Section

_sections: dict[str, type[Section] | str] = {}
_models: dict[str, type[Section] | str] = {"LocPointTransformer": "libs.core.schema:LocPointTransformerSection"}


def register_config_section(name: str, schema: type[Section] | str) -> None:
    """Adds an optional top-level section `name` to the configuration, checked against `schema` (a `Section`, or
    "module:name" of one). A name that is built in is an error when a configuration is read."""
    _sections[name] = schema


def register_model_schema(model_name: str, schema: type[Section] | str) -> None:
    """Registers what the `model` section may hold when `model_name` names this architecture."""
    _models[model_name] = schema


def config_section_names() -> list[str]:
    return list(_sections)


def model_names() -> list[str]:
    return sorted(_models)


def config_section(name: str) -> type[Section]:
    return _load(_sections[name])


def model_schema(model_name: str) -> type[Section]:
    return _load(_models[model_name])


def _load(schema: type[Section] | str) -> type[Section]:
    return pkgutil.resolve_name(schema) if isinstance(schema, str) else schema
