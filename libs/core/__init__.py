from .config import dump_config, load_config, read_yaml, resolve_config, set_key
from .schema import register_config_section, register_model_schema

__all__ = [
    "dump_config",
    "load_config",
    "read_yaml",
    "register_config_section",
    "register_model_schema",
    "resolve_config",
    "set_key",
]
