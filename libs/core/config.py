"""YAML file -> checked, complete, plain nested dict."""

from __future__ import annotations

import copy
import difflib
import importlib
import os
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import yaml
from pydantic import ValidationError

from .registry import MODEL_SCHEMAS, SECTIONS
from .schema import RootSection, Section
from .types import Config

# Keys that `load_config` copies from the dataset section into the model section. A file may repeat them in its model
# section if the values are equal.
DERIVED_FROM_DATASET = ("input_dim", "num_classes", "max_seq_len")
DERIVED_SECTIONS = ("train_cfg", "test_cfg")
CLOSE = 0.75  # lowest difflib ratio at which a known key is suggested for an unknown one


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and reads `1e-4` as a number, as YAML 1.2 does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: list[Any] = []  # not a set: a key may be a list or a mapping, which SafeLoader refuses below
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise ValueError(f"line {key_node.start_mark.line + 1}: key '{key_node.value}' is given twice")
            seen.append(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_config(path: str | os.PathLike, *, overrides: Iterable[str] = ()) -> Config:
    """Reads an ActionFormer-format YAML file.

    Args:
        overrides: KEY=VALUE strings that replace keys of the file, see `set_keys`.

    Returns:
        A plain nested dict with every default filled in. As in ActionFormer, the model section also holds
        `input_dim`, `num_classes`, `max_seq_len`, and `model.train_cfg` and `model.test_cfg` are the same dict
        objects as `train_cfg` and `test_cfg`. Two calls share no objects.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not YAML, a key is unknown, a value has the wrong type, or values contradict each other;
            names the key.
    """
    raw = read_yaml(path)
    set_keys(raw, overrides)
    return resolve_config(raw, source=str(path))


def read_yaml(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a YAML mapping and fills in no defaults. `1e-4` is a number.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not a YAML mapping, or a key is given twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"config file not found: {path}")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected a mapping of keys at the top level, found {type(raw).__name__}")
    return raw


def set_key(raw: dict[str, Any], key: str, value: Any) -> None:
    """Sets the dotted key `a.b.c` in a nested dict; missing sections are created. A part may be the index of an entry
    that a list has, counted from 0, as in `a.0.c`.

    Raises:
        ValueError: `a` or `a.b` is neither a section nor a list, or a list has no such entry.
    """
    *sections, last = key.split(".")
    inner: Any = raw
    for section in sections:
        inner = inner.setdefault(section, {}) if isinstance(inner, dict) else inner[_entry(inner, section, key)]
        if not isinstance(inner, (dict, list)):
            raise ValueError(f"key '{key}': '{section}' is not a section")
    inner[last if isinstance(inner, dict) else _entry(inner, last, key)] = value


def _entry(values: list[Any], text: str, key: str) -> int:
    """Index of an entry of a list."""
    if not text.isdecimal() or int(text) >= len(values):
        expected = f"0 to {len(values) - 1}" if values else "nothing, since it is empty"
        raise ValueError(f"key '{key}': '{text}': no entry of the list there; expected {expected}")
    return int(text)


def set_keys(raw: dict[str, Any], overrides: Iterable[str]) -> None:
    """Sets keys from strings such as "opt.epochs=5" or "dataset.crop_ratio=[0.8, 1.0]"; values are YAML.

    Raises:
        ValueError: a string is not KEY=VALUE, or its value is not YAML.
    """
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not all(key.split(".")):
            raise ValueError(f"--set '{override}': expected KEY=VALUE, such as train_cfg.droppath=0.2")
        try:
            value = yaml.load(text, Loader=_Loader)
        except (yaml.YAMLError, ValueError) as error:
            raise ValueError(f"--set '{override}': the value is not YAML: {error}") from None
        set_key(raw, key, value)


def resolve_config(raw: dict[str, Any], source: str = "config") -> Config:
    """Checks a configuration dict and fills in its defaults, as `load_config` does for a file.

    Args:
        raw: keys as in the file; not changed.
        source: names the configuration in error messages.

    Raises:
        ValueError: see `load_config`.
    """
    raw = copy.deepcopy({key: value for key, value in raw.items() if value is not None})
    _import_plugins(raw.get("plugins") or [], source)
    if built_in := set(SECTIONS.names()) & set(RootSection.model_fields):
        raise ValueError(f"{source}: a plug-in registers sections that are built in: {sorted(built_in)}")
    extra = {name: raw.pop(name) for name in SECTIONS.names() if name in raw}
    derived = _pop_derived(raw, source)

    config: Any = _validate(RootSection, raw, source, "", known=SECTIONS.names())
    if config["model_name"] not in (known := sorted(MODEL_SCHEMAS.names())):
        raise ValueError(
            f"{source}: model_name: '{config['model_name']}' is not a known architecture {known}"
            + _suggest(config["model_name"], known)
        )
    schema = MODEL_SCHEMAS.get(config["model_name"])
    config["model"] = _validate(schema, config["model"], source, "model")
    for name, value in extra.items():
        config[name] = _validate(SECTIONS.get(name), value, source, name)

    for key in DERIVED_FROM_DATASET:
        if key in derived and derived[key] != config["dataset"][key]:
            raise ValueError(
                f"{source}: model.{key}: {derived[key]} contradicts dataset.{key}: {config['dataset'][key]}; "
                f"set it in the dataset section only"
            )
        config["model"][key] = copy.deepcopy(config["dataset"][key])
    for key in DERIVED_SECTIONS:
        config["model"][key] = config[key]
    if config["opt"]["early_stop_epochs"] is None:
        del config["opt"]["early_stop_epochs"]  # ActionFormer's scripts read this key with a default
    try:
        schema.check_data(config["model"], config["dataset"])
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return cast(Config, config)


def dump_config(config: Config, path: str | os.PathLike) -> None:
    """Writes a resolved configuration as YAML; `load_config` on that file returns an equal dict."""
    config = copy.deepcopy(config)
    for key in DERIVED_FROM_DATASET + DERIVED_SECTIONS:
        config["model"].pop(key, None)
    Path(path).write_text(yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=100), encoding="utf-8")


def _import_plugins(plugins: Any, source: str) -> None:
    if not isinstance(plugins, list):
        raise ValueError(f"{source}: plugins: expected a list of module names, found {plugins!r}")
    for name in plugins:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ValueError(f"{source}: plugins: cannot import '{name}': {error}") from error


def _pop_derived(raw: dict[str, Any], source: str) -> dict[str, Any]:
    """Removes the keys that `load_config` adds to the model section; returns those copied from the dataset section.

    Raises:
        ValueError: `model.train_cfg` or `model.test_cfg` differs from the top-level section of that name.
    """
    model = raw.get("model")
    if not isinstance(model, dict):
        return {}
    for key in DERIVED_SECTIONS:
        if key in model and model.pop(key) != raw.get(key):
            raise ValueError(f"{source}: model.{key} differs from {key}; set it at the top level only")
    return {key: model.pop(key) for key in DERIVED_FROM_DATASET if key in model}


def _validate(schema: type[Section], value: Any, source: str, prefix: str, known: Sequence[str] = ()) -> dict[str, Any]:
    if value is None:
        value = {}
    try:
        return _plain(schema.model_validate(value).model_dump())
    except ValidationError as error:
        raise ValueError(f"{source}: {explained(error, schema, prefix, known)}") from None


def explained(error: ValidationError, schema: type[Section], prefix: str, known: Sequence[str] = ()) -> str:
    """What is wrong with the keys of a section, a line each, in the words of a configuration file.

    Args:
        prefix: dotted key of the section; known: further keys to suggest for an unknown one.
    """
    return "\n  ".join(dict.fromkeys(_explain(item, schema, prefix, known) for item in error.errors()))


def _explain(item: Mapping[str, Any], schema: type[Section], prefix: str, known: Sequence[str]) -> str:
    path = _field_path(schema, item["loc"])
    key = ".".join(str(part) for part in ([prefix] if prefix else []) + path)
    if item["type"] == "extra_forbidden":
        names = list(_section_at(schema, path[:-1]).model_fields) + list(known)
        return f"unknown key '{key}' (value {item['input']!r})" + _suggest(str(path[-1]), names)
    if item["type"] == "missing" and isinstance(path[-1], int):
        return f"{key.rpartition('.')[0]}: {list(item['input'])}: expected more entries"
    if item["type"] == "missing":
        return f"key '{key}' is required"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error" and not path:
        return f"{prefix}: {message}" if prefix else message
    if item["type"] == "value_error" and isinstance(item["input"], dict):
        return f"{key}: {message}"
    return f"{key}: {item['input']!r}: {message}"


def _field_path(schema: type[Section], loc: tuple) -> list:
    """Drops the names of union members from a pydantic error location; what remains is the key in the file."""
    path: list = []
    section: type[Section] | None = schema
    for part in loc:
        if isinstance(part, str) and section is None:
            break
        path.append(part)
        if isinstance(part, str) and section is not None:
            section = _child_section(section, part)
    return path


def _child_section(section: type[Section], name: str) -> type[Section] | None:
    field = section.model_fields.get(name)
    return None if field is None else section_in(field.annotation)


def section_in(annotation: Any) -> type[Section] | None:
    """The section type in an annotation such as `list[StageSection] | None`; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((inner for part in get_args(annotation) if (inner := section_in(part)) is not None), None)


def _section_at(schema: type[Section], path: list) -> type[Section]:
    for part in path:
        schema = _child_section(schema, part) or schema
    return schema


def _suggest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=CLOSE)
    return f"; did you mean '{close[0]}'?" if close else ""


def _plain(value: Any) -> Any:
    """Turns tuples into lists, as YAML does, so that `dump_config` and `load_config` give back an equal dict."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
