"""Draws the detections of a video: time on the x axis, one row per class, higher scores more opaque.

The colour of a class depends only on its id, so that it is the same in the pictures of all videos of a run.
"""

from __future__ import annotations

import colorsys
import os
import textwrap

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

MAX_CLASSES = 25
COLORS = ("#4477aa", "#ee6677", "#228833", "#aa3377", "#ccbb44", "#66ccee")  # Tol's bright scheme
GOLDEN = 0.618034  # golden ratio: step of the hue, which keeps the hues of successive classes far apart
STEPS = (15, 30, 60, 120, 300, 600, 900, 1800, 3600)  # seconds between ticks
MAX_TICKS = 10
WIDTH_OF_NAME, WIDTH_OF_TITLE = 32, 110  # characters per line


def class_color(label_id: int) -> str:
    """`#rrggbb` of a class: the first ids have Tol's colours, which suit colour-blind readers; others are computed."""
    if 0 <= label_id < len(COLORS):
        return COLORS[label_id]
    lightness, saturation = (0.4, 0.24, 0.32)[label_id % 3], (0.8, 0.45)[label_id % 2]
    rgb = colorsys.hls_to_rgb((0.94 + label_id * GOLDEN) % 1, lightness, saturation)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def save_timeline(path: str | os.PathLike, table: pd.DataFrame, *, title: str, duration: float) -> None:
    """Draws a table of one video (see `evaluation.detections.to_table`) and saves it. The extension of `path` decides
    the format. If there are more than `MAX_CLASSES` classes, those with the highest scores are shown.

    Args:
        duration: seconds.
    """
    draw_timeline(table, title=title, duration=duration).savefig(path, dpi=120)


def draw_timeline(table: pd.DataFrame, *, title: str, duration: float) -> Figure:
    """Like `save_timeline`, but returns the figure."""
    best = table.groupby("label")["score"].max().sort_values(ascending=False)
    shown = sorted(best.index[:MAX_CLASSES], key=lambda name: table.loc[table["label"] == name, "start"].min())
    names = ["\n".join(textwrap.wrap(name, WIDTH_OF_NAME)) for name in shown]
    left_out = f" ({len(best) - len(shown)} more classes)" if len(best) > len(shown) else ""
    heading = textwrap.wrap(f"{title}: {len(table)} detections{left_out}", WIDTH_OF_TITLE, break_on_hyphens=False)
    lines = max((name.count("\n") + 1 for name in names), default=1)
    inches = 0.9 + 0.2 * len(heading) + (0.16 + 0.16 * lines) * max(len(names), 1)
    figure = Figure(figsize=(10, inches), layout="constrained")
    axes = figure.add_subplot()
    for row, name in enumerate(shown):
        segments = table[table["label"] == name].sort_values("score")
        for segment in segments.itertuples():
            axes.barh(
                row, segment.end - segment.start, left=segment.start, height=0.7,
                color=class_color(segment.label_id), alpha=0.15 + 0.85 * min(max(segment.score, 0.0), 1.0),
            )  # fmt: skip
    axes.set_xlim(0, duration)
    axes.set_ylim(max(len(shown), 1) - 0.5, -0.5)
    axes.set_yticks(range(len(shown)), names)
    if duration >= 120:
        axes.xaxis.set_major_locator(MultipleLocator(time_step(duration)))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda s, _: f"{s:g} s" if duration < 120 else clock(s, hours=duration >= 3600))
    )
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.suptitle("\n".join(heading), x=0.01, ha="left", fontsize="medium")
    return figure


def time_step(duration: float) -> float:
    """Seconds between ticks: a usual unit of a clock, or whole hours, with at most `MAX_TICKS` intervals."""
    hours = -(-duration // (MAX_TICKS * 3600))
    return next((step for step in STEPS if duration <= MAX_TICKS * step), 3600 * hours)


def clock(seconds: float, *, hours: bool) -> str:
    """Seconds -> m:ss, or h:mm:ss."""
    minutes, s = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{s:02d}" if hours else f"{minutes}:{s:02d}"
