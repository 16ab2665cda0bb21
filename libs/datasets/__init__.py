"""Data sets by name: the benchmarks of `presets.py` and data sets of plug-ins."""

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
    """Decorator: registers a class or function as the data set `name`. It is called with `(is_training, split,
    **dataset_section)` if the configuration has `dataset_name: name`. Raises ValueError if the name is taken."""

    def decorate(factory: Callable[..., Any]) -> Callable[..., Any]:
        if name in PRESETS:
            raise ValueError(f"data set '{name}' is already registered")
        return DATASETS.register(name, factory)

    return decorate


def make_dataset(name: str, is_training: bool, split: Sequence[str], **kwargs: Any) -> Any:
    """Builds the data set `name`.

    Args:
        split: subsets of the annotation file.
        kwargs: keys of the `dataset` section of a configuration.

    Raises:
        ValueError: unknown name; lists the known ones.
    """
    if name in PRESETS:
        return TALDataset(PRESETS[name], is_training, split, **kwargs)
    if name in DATASETS.names():
        return DATASETS.build(name, is_training, split, **kwargs)
    known = [*PRESETS, *DATASETS.names()]
    close = difflib.get_close_matches(name, known, n=1)
    raise ValueError(
        f"dataset_name: '{name}' is not one of {known}" + (f"; did you mean '{close[0]}'?" if close else "")
    )
