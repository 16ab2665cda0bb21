"""Converts annotation files of public data sets to this project's annotation JSON (docs/data.md).

A format is a module of this package that `FORMATS` lists. The module defines

* `TITLE`, a line for error messages, and `OPTIONS`, the names of the options that it takes;
* `recognizes(source) -> bool`: whether the content of a file has this format;
* `read(sources, options) -> Converted`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from . import ego4d, epic
from .result import Converted, Note, Options, write_annotations, write_notes
from .source import Source

__all__ = ["FORMATS", "Converted", "Note", "Options", "convert", "write_annotations", "write_notes"]

FORMATS: dict[str, ModuleType] = {"epic": epic, "ego4d": ego4d}


def convert(
    paths: Sequence[str | os.PathLike], *, source_format: str | None = None, options: Options | None = None
) -> Converted:
    """Reads annotation files of one data set.

    Args:
        paths: files, all of one format.
        source_format: a key of `FORMATS`; None: recognized by the content of the files.
        options: options of the format.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: unknown format, an option that the format does not have, or unexpected content; names the file, the
            row and the value.
    """
    options = options or Options()
    sources = [Source(path) for path in paths]
    name = _guess(sources) if source_format is None else source_format
    if name not in FORMATS:
        raise ValueError(f"--from {name}: not a known format; expected one of:{_known()}")
    for key in options.given():
        if key not in FORMATS[name].OPTIONS:
            raise ValueError(f"--{key}: not an option of the format {name}, which has {_options(name)}")
    return FORMATS[name].read(sources, options)


def _guess(sources: Sequence[Source]) -> str:
    """Name of the only format that recognizes all files."""
    for source in sources:
        if not any(module.recognizes(source) for module in FORMATS.values()):
            raise ValueError(f"{source.path}: not a file of a known format; expected one of:{_known()}")
    fitting = [name for name, module in FORMATS.items() if all(map(module.recognizes, sources))]
    if len(fitting) == 1:
        return fitting[0]
    what = f"are of several formats: {fitting}; choose with --from" if fitting else "are of different formats"
    raise ValueError(f"{', '.join(str(Path(source.path).name) for source in sources)} {what}")


def _known() -> str:
    return "".join(f"\n  {name}: {module.TITLE}" for name, module in FORMATS.items())


def _options(name: str) -> str:
    return ", ".join(f"--{key}" for key in FORMATS[name].OPTIONS)
