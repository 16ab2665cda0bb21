"""Packages that only some users need."""

from __future__ import annotations

import importlib
from types import ModuleType


class MissingExtraError(ImportError, ValueError):
    """A package of an extra is not installed; the message has the line that installs it."""


def need(module: str, *, extra: str, what: str) -> ModuleType:
    """Imports a module of an extra.

    Args:
        what: what needs it, such as "decoding videos".

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        raise MissingExtraError(f"{what} needs the package {module}: pip install 'actionformer-nt[{extra}]'") from None
