"""Detections as SubRip subtitles (.srt), which video players show."""

from __future__ import annotations

import pandas as pd


def to_srt(table: pd.DataFrame) -> str:
    """One subtitle per row of a table of one video (see `evaluation.detections.to_table`), in order of time."""
    rows = table.sort_values(["start", "end"], kind="stable")
    columns = zip(rows["start"], rows["end"], rows["label"], rows["score"], strict=True)
    blocks = [
        f"{number}\n{srt_time(start)} --> {srt_time(end)}\n{label} {score:.2f}\n"
        for number, (start, end, label, score) in enumerate(columns, start=1)
    ]
    return "\n".join(blocks)


def srt_time(seconds: float) -> str:
    """Seconds -> hh:mm:ss,mmm."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d},{rest % 1000:03d}"
