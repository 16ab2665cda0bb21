"""Data sets by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from libs.core.registry import DATASETS

from .dataset import TALDataset
from .loader import make_data_loader
from .presets import PRESETS, Preset

__all__ = ["Preset", "TALDataset", "make_data_loader", "make_dataset", "register_dataset"]


def register_dataset(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: registers a class or function `(is_training, split, **dataset_section)` as `dataset_name`."""

    def decorate(factory: Callable[..., Any]) -> Callable[..., Any]:
        if name in PRESETS:
            raise ValueError(f"data set '{name}' is already registered")
        return DATASETS.register(name, factory)

    return decorate


def make_dataset(name: str, is_training: bool, split: Sequence[str], **kwargs: Any) -> Any:
    """The data set `name` with the keys of the `dataset` section."""
    if name in PRESETS:
        return TALDataset(PRESETS[name], is_training, split, **kwargs)
    if name in DATASETS.names():
        return DATASETS.build(name, is_training, split, **kwargs)
    known = [*PRESETS, *DATASETS.names()]
    close = difflib.get_close_matches(name, known, n=1)
    raise ValueError(
        f"dataset_name: '{name}' is not one of {known}" + (f"; did you mean '{close[0]}'?" if close else "")
    )
