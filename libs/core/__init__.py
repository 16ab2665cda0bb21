"""Configurations. Loaded lazily, so that registering a plug-in stays cheap."""

from typing import TYPE_CHECKING, Any

from .registry import register_architecture, register_config_section, register_model_schema

if TYPE_CHECKING:
    from .config import dump_config, load_config, read_yaml, resolve_config, set_key, set_keys

__all__ = [
    "dump_config",
    "load_config",
    "read_yaml",
    "register_architecture",
    "register_config_section",
    "register_model_schema",
    "resolve_config",
    "set_key",
    "set_keys",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import config

    return getattr(config, name)
