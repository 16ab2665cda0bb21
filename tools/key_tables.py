"""Writes the tables of configuration keys into README.md and docs/: python tools/key_tables.py.

A table stands between the lines `<!-- keys: NAME -->` and `<!-- end -->`; NAME is a key of `TABLES`. Types, bounds and
defaults are taken from the schema; the meaning of a key is the docstring below its field.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from actionformer_nt.config import SemiSection
from actionformer_nt.method_sections import SECTIONS
from actionformer_nt.spot.schema import SpotSection
from actionformer_nt.study.plan import StudyFile
from libs.core.actionformer_section import LocPointTransformerSection
from libs.core.config import section_in
from libs.core.markdown import markdown_table
from libs.core.schema import RootSection, Section

ROOT = Path(__file__).resolve().parent.parent
TABLE = re.compile(r"(<!-- keys: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
NAMES = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    type(None): "`null`",
    Any: "anything",
    object: "anything",
}
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}  # attribute of pydantic's constraint, as in Field(gt=...) -> sign
OURS = "Ours. "  # prefix of the docstring of keys that ActionFormer does not have

Row = tuple[str, str, str, str]  # key, type, default, meaning


def key_rows(section: type[Section], prefix: str = "", seen: dict[type, str] | None = None) -> Iterator[Row]:
    """A row for every key of a section, each followed by the keys of its subsection. A type of section is expanded only
    once; `seen`: section -> key under which it was expanded."""
    seen = {} if seen is None else seen
    hints = get_type_hints(section, include_extras=True)
    for name, field in section.model_fields.items():
        key, meaning = prefix + name, (field.description or "").replace("\n", " ")
        inner = section_in(hints[name])
        kind = type_text(hints[name])
        if inner in seen:
            kind = f"like `{seen[inner]}`"
        yield f"`{key}`", kind, _default_text(field), meaning
        if inner is not None and inner not in seen:
            seen[inner] = key
            yield from key_rows(inner, f"{key}[]." if kind.startswith("list") else f"{key}.", seen)


def type_text(annotation: Any) -> str:
    """A field's type with its bounds, in the words of YAML."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        marks = [mark for item in arguments[1:] for mark in getattr(item, "metadata", [item])]
        bounds = [f"{sign} {getattr(m, name):g}" for m in marks for name, sign in SIGNS.items() if hasattr(m, name)]
        return f"{type_text(arguments[0])} {', '.join(bounds)}".strip()
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        parts = list(dict.fromkeys(map(type_text, arguments)))
        return " or ".join(part for part in parts if not (part == "integer" and "number" in parts))
    if origin is list:
        return f"list of {type_text(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(map(type_text, arguments))}]"
    if origin is dict:
        return "mapping"
    return "section" if section_in(annotation) else NAMES[annotation]


def _default_text(field: FieldInfo) -> str:
    """The default as YAML; for a section, only the values that differ from the defaults of its keys."""
    if field.is_required():
        return "required"
    default = field.default
    if isinstance(default, BaseModel):
        default = default.model_dump(exclude_defaults=True)
        if not default:
            return ""
    if isinstance(default, (list, tuple)):
        default = [v.model_dump(exclude_defaults=True) if isinstance(v, BaseModel) else v for v in default]
    text = yaml.safe_dump(default, default_flow_style=True, width=1000, sort_keys=False)
    text = text.strip().removesuffix("\n...")  # YAML's end of document, which follows a scalar
    return f"`{text}`"


def own_rows() -> Iterator[Row]:
    """The keys of a supervised configuration that ActionFormer does not have."""
    for key, kind, default, meaning in (*key_rows(RootSection), *key_rows(LocPointTransformerSection, "model.")):
        if meaning.startswith(OURS):
            yield key, kind, default, meaning.removeprefix(OURS)


def method_rows() -> Iterator[Row]:
    """The settings of the built-in methods."""
    for name, section in SECTIONS.items():
        yield from key_rows(section, f"{name}.")


TABLES = {
    "ours": own_rows,
    "semi_cfg": lambda: key_rows(SemiSection),
    "methods": method_rows,
    "model of SPOT": lambda: key_rows(SpotSection),
    "study": lambda: key_rows(StudyFile),
}


def with_tables(page: str) -> str:
    """The text of a page with its tables generated from the current schemas.

    Raises:
        KeyError: a table name that is not in `TABLES`.
    """

    def table(match: re.Match[str]) -> str:
        text = markdown_table(["key", "type", "default", "meaning"], TABLES[match[2]]())
        return f"{match[1]}\n{text}\n\n{match[3]}"

    return TABLE.sub(table, page)


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


if __name__ == "__main__":
    for path in pages():
        before = path.read_text(encoding="utf-8")
        if (after := with_tables(before)) != before:
            path.write_text(after, encoding="utf-8")
            print(path.relative_to(ROOT))
