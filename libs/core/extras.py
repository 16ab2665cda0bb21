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


def need_torchvision(module: str, *, what: str) -> ModuleType:
    """Imports a module of torchvision.

    Raises:
        MissingExtraError: torchvision is not installed.
        ValueError: it was built for another torch.
    """
    try:
        need("torchvision", extra="video", what=what)
        return need(module, extra="video", what=what)
    except RuntimeError as error:
        raise ValueError(
            f"torchvision does not fit the installed torch ({error}); install both anew, in versions that belong "
            "together and both for CPUs or both for CUDA"
        ) from None
