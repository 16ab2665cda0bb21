from .config import dump_config, load_config, resolve_config
from .schema import register_config_section, register_model_schema

__all__ = ["dump_config", "load_config", "register_config_section", "register_model_schema", "resolve_config"]
