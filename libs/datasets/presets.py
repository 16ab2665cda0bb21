"""Rules of each benchmark for reading and evaluating, as data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def _range(low: float, high: float, count: int) -> tuple[float, ...]:
    return tuple(np.linspace(low, high, count).tolist())


@dataclass(frozen=True)
class Preset:
    """Rules of one benchmark.

    Attributes:
        title: data set name that ActionFormer reports.
        tiou: tIoU thresholds of the evaluation.
        missing_features: what to do with a video without a feature file: "skip" (and count) or "error".
        default_duration: duration in seconds of videos without one; None: a missing duration is an error.
        duplicates: "keep" or "remove" repeated events in training.
        all_classes: whether every class id below `num_classes` must have a label.
        spread: whether `feat_stride` <= 0 and `force_upsampling` are allowed, as for ActivityNet.
        clip_to_features: whether training events are cut at the end of the features.
        class_agnostic: whether `num_classes: 1` means one class for all actions.
    """

    title: str
    tiou: tuple[float, ...]
    missing_features: str = "skip"
    default_duration: float | None = 1e8
    duplicates: str = "keep"
    all_classes: bool = True
    spread: bool = False
    clip_to_features: bool = False
    class_agnostic: bool = False


PRESETS = {
    "thumos": Preset("thumos-14", _range(0.3, 0.7, 5)),
    "anet": Preset(
        "ActivityNet 1.3",
        _range(0.5, 0.95, 10),
        missing_features="error",
        default_duration=None,
        duplicates="remove",
        spread=True,
        clip_to_features=True,
        class_agnostic=True,
    ),
    "epic": Preset("epic-kitchens-100", _range(0.1, 0.5, 5), missing_features="error", all_classes=False),
    "ego4d": Preset("ego4d", _range(0.1, 0.5, 5)),
    "generic": Preset("generic", _range(0.3, 0.7, 5), default_duration=None, all_classes=False, spread=True),
}
