"""Compares lengths of events with the grid and the pyramid's regression ranges, and recommends settings."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from libs.core.types import Config

from .findings import Findings

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
SHORT = 2.0  # grid steps; shorter events contain hardly more than one point
MANY_SHORT = 0.1  # share of short events above which the note becomes a warning
HELD = 0.95  # share of the training videos that must fit into max_seq_len


def percent(share: float) -> str:
    """A share in percent with one digit; "100 %" and "0 %" stand only for exactly 1 and 0."""
    tenths = round(1000 * float(share))
    if tenths == 1000 and share < 1:
        return "99.9 %"
    if tenths == 0 and share > 0:
        return "0.1 %"
    return f"{tenths / 10:g} %"


def percentiles(seconds: np.ndarray, steps: np.ndarray | None) -> pd.DataFrame:
    """Rows `seconds` and, where the grid is known, `grid steps`."""
    rows = {"seconds": seconds} | ({} if steps is None else {"grid steps": steps})
    names = ["min" if p == 0 else "median" if p == 50 else "max" if p == 100 else f"{p} %" for p in PERCENTILES]
    return pd.DataFrame({key: np.percentile(values, PERCENTILES) for key, values in rows.items()}, index=names).T


class Levels(NamedTuple):
    """ActionFormer's pyramid: regression ranges, strides and attention windows of its levels."""

    ranges: list[list[float]]  # regression range of each level, in grid steps
    first: int  # the first level has stride `scale_factor` ** `first`, in grid steps
    last: int  # the backbone's last level has stride `scale_factor` ** `last`
    scale_factor: int
    windows: int | list[int]  # attention window: one for all levels, or one per level
    center_radius: float | None  # radius of center sampling, in units of a level's stride; None: no center sampling

    @classmethod
    def of(cls, config: Config) -> Levels:
        model, training = config["model"], config["train_cfg"]
        return cls(
            ranges=model["regression_range"],
            first=model["fpn_start_level"],
            last=model["backbone_arch"][2],
            scale_factor=model["scale_factor"],
            windows=model["n_mha_win_size"],
            center_radius=training["center_sample_radius"] if training["center_sample"] == "radius" else None,
        )

    def usable(self, steps: np.ndarray) -> np.ndarray:
        """Which events can be learned at which level.

        An event can be learned at a level if some point that label assignment considers has its distance to the farther
        boundary within the level's regression range. At the centre of the event this distance is half its length;
        center sampling admits points up to the radius away from the centre.

        Args:
            steps: (N,) lengths of events in grid steps.

        Returns:
            (L, N) bool.
        """
        rows = []
        for level, (low, high) in enumerate(self.ranges, start=self.first):
            reach = steps
            if self.center_radius is not None:
                reach = np.minimum(steps, steps / 2 + self.center_radius * self.scale_factor**level)
            rows.append((steps / 2 <= high) & (reach >= low) & (steps > 0))
        return np.array(rows)

    def recommended(self, steps: np.ndarray) -> int:
        """Number of levels, with upper ends of the ranges that double from level to level, such that the last range
        reaches half the 99th percentile of the event lengths `steps` (N,)."""
        if not len(steps):
            return 1
        first = self.ranges[0][1]
        half = float(np.percentile(steps, 99)) / 2
        return 1 + max(0, math.ceil(math.log2(half / first))) if half > first else 1

    def multiple(self, count: int) -> int:
        """The number that must divide `max_seq_len`, given strides and attention windows of `count` levels."""
        windows = self.windows
        windows = [windows] * count if isinstance(windows, int) else [*windows, *[windows[-1]] * count][:count]
        return math.lcm(*(self.scale_factor**i * (2 * (w // 2) if w > 1 else 1) for i, w in enumerate(windows)))


def check_pyramid(steps: np.ndarray, where: list[str], findings: Findings, *, levels: Levels) -> pd.DataFrame:
    """The table of levels: regression range in grid steps, and share of the events that can be learned there.

    Args:
        steps: (N,) lengths of training events in grid steps.
        where: (N,) ids of their videos.
    """
    usable, ranges = levels.usable(steps), levels.ranges
    for i in np.flatnonzero(~usable.any(axis=0) & (steps > 0)):
        findings.add(
            "warning", "no-level", where[i], f"an event of {steps[i]:.1f} grid steps fits no regression range",
            advice=f"model.regression_range ends at {max(high for _, high in ranges):g}",
        )  # fmt: skip
    for level in np.flatnonzero(~usable.any(axis=1)):
        findings.add(
            "note", "unused-level", f"level {level}", f"regression range {list(ranges[level])}: no training event",
            advice="nothing is learned there: fewer levels, or features at another stride, would do",
        )  # fmt: skip
    share = usable.mean(axis=1) if len(steps) else np.zeros(len(ranges))
    return pd.DataFrame({"range": [f"{low:g}-{high:g}" for low, high in ranges], "events, %": 100 * share})


def check_short(steps: np.ndarray, where: list[str], findings: Findings) -> float:
    """Share of events shorter than two grid steps, zero length included; each becomes a finding."""
    short = np.flatnonzero(steps < SHORT - 1e-6)
    share = len(short) / max(len(steps), 1)
    for i in short:
        findings.add(
            "warning" if share > MANY_SHORT else "note", "short-event", where[i],
            f"{steps[i]:.2f} grid steps, shorter than {SHORT:g}",
            advice="a smaller feat_stride or downsample_rate would resolve them",
        )  # fmt: skip
    return share


def recommended_length(num_steps: np.ndarray, multiple: int) -> int:
    """The smallest multiple of `multiple` that holds 95 % of the training videos, of lengths `num_steps` (V,)."""
    needed = float(np.percentile(num_steps, 100 * HELD, method="higher"))
    return max(math.ceil(needed / multiple), 1) * multiple
