"""A picture of the detections of a video: time to the right, a row per class, the stronger the surer."""

from __future__ import annotations

import os

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

MAX_CLASSES = 25
COLORS = ("#4477aa", "#ee6677", "#228833", "#aa3377", "#ccbb44", "#66ccee")  # Tol's bright scheme


def save_timeline(path: str | os.PathLike, table: pd.DataFrame, *, title: str, duration: float) -> None:
    """Draws a table of one video (see `results.to_table`), of more than `MAX_CLASSES` classes the surest; the
    format is that of the path's extension.

    Args:
        duration: seconds.
    """
    best = table.groupby("label")["score"].max().sort_values(ascending=False)
    shown = sorted(best.index[:MAX_CLASSES], key=lambda name: table.loc[table["label"] == name, "start"].min())
    figure = Figure(figsize=(10, 1.1 + 0.32 * max(len(shown), 1)), layout="constrained")
    axes = figure.add_subplot()
    for row, name in enumerate(shown):
        own = table[table["label"] == name].sort_values("score")
        for segment in own.itertuples():
            axes.barh(
                row, segment.end - segment.start, left=segment.start, height=0.7,
                color=COLORS[row % len(COLORS)], alpha=0.15 + 0.85 * min(max(segment.score, 0.0), 1.0),
            )  # fmt: skip
    axes.set_xlim(0, duration)
    axes.set_ylim(max(len(shown), 1) - 0.5, -0.5)
    axes.set_yticks(range(len(shown)), shown)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda s, _: f"{s:g} s" if duration < 120 else f"{s // 60:.0f}:{s % 60:02.0f}")
    )
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    left_out = f" ({len(best) - len(shown)} more classes)" if len(best) > len(shown) else ""
    axes.set_title(f"{title}: {len(table)} detections{left_out}", loc="left", fontsize="medium")
    figure.savefig(path, dpi=120)
