"""Checks in grid steps: whether events lie within the features, how long they are, and which settings suit them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from libs.core.types import Config
from libs.datasets.grid import Grid, GridRule

from .annotations import RawVideo
from .findings import DataCheck, Findings
from .pyramid import Levels, check_pyramid, check_short, percent, percentiles, recommended_length
from .timing import VideoLength, check_ends, check_lengths


class _Timed(NamedTuple):
    """A video whose duration and frame rate are known."""

    video: RawVideo
    duration: float  # seconds
    fps: float


def check_grid(config: Config, splits: dict[str, list[RawVideo]], steps: dict[str, int], check: DataCheck) -> None:
    """Runs all checks that need lengths in grid steps.

    Args:
        splits: "train" and "val" -> videos.
        steps: video id -> number of feature steps, for videos whose features could be read.
        check: receives findings, facts and tables.
    """
    data, findings = config["dataset"], check.findings
    rule = GridRule(
        feat_stride=data["feat_stride"], num_frames=data["num_frames"], downsample_rate=data["downsample_rate"],
        max_seq_len=data["max_seq_len"], force_upsampling=data["force_upsampling"],
    )  # fmt: skip
    known = [
        _Timed(video, video.duration, fps)
        for part in splits.values()
        for video in part
        if video.duration and (fps := data["default_fps"] or video.fps)
    ]
    if rule.regular:
        lengths = [VideoLength(v.id, steps[v.id], duration, fps) for v, duration, fps in known if v.id in steps]
        check_lengths(lengths, findings, stride=data["feat_stride"], num_frames=data["num_frames"])
        ends = {v.id: max((stop for _, stop, _ in v.events), default=0.0) for v, _, _ in known}
        check_ends(lengths, ends, findings)
    grids: dict[str, Grid] = {}
    for video, duration, fps in known:
        count = steps.get(video.id)
        if count is None and rule.regular:
            count = max(round((duration * fps - data["num_frames"]) / data["feat_stride"]) + 1, 1)
        if count is None:
            continue
        try:
            grids[video.id] = rule.grid(video.id, count, duration * fps)
        except ValueError as error:
            findings.add("error", "too-long", video.id, str(error))
    for video, _, fps in known:
        if video.id in steps and video.id in grids and "timing" not in findings:
            grid = grids[video.id]
            end = ((grid.length - 1) * grid.stride + grid.num_frames) / fps
            for start, stop, name in video.events:
                if start >= end or stop <= 0:
                    findings.add(
                        "warning", "beyond-features", video.id,
                        f"'{name}' [{start:g}, {stop:g}] begins after the features end ({end:.1f} s)",
                    )  # fmt: skip
    rates = {video.id: fps for video, _, fps in known}
    _check_overlap(splits["train"], grids, rates, findings)
    _summary(config, splits, rates, grids, check)


def _check_overlap(videos: list[RawVideo], grids: dict[str, Grid], fps: dict[str, float], findings: Findings) -> None:
    """Adds an error if no training event overlaps the features of its video."""
    events = [(v, event) for v in videos if v.labeled and v.id in grids for event in v.events]
    if events and not any(
        stop > 0 and start * fps[v.id] < (grids[v.id].length - 1) * grids[v.id].stride + grids[v.id].num_frames
        for v, (start, stop, _) in events
    ):
        findings.add(
            "error", "nothing-to-learn", "train_split",
            f"all {len(events)} events lie outside the features of their videos",
            advice="are segments in seconds, and fps, feat_stride and num_frames those of the features?",
        )  # fmt: skip


def _summary(
    config: Config, splits: dict[str, list[RawVideo]], fps: dict[str, float], grids: dict[str, Grid],
    check: DataCheck,
) -> None:  # fmt: skip
    """Adds the facts and tables: sizes of the splits, lengths of events, pyramid levels, max_seq_len."""
    findings = check.findings
    for name, part in splits.items():
        check.facts[f"{name}_split"] = (
            f"{len(part)} videos, {sum(len(v.events) for v in part)} events, "
            f"{len({event[2] for v in part for event in v.events})} classes"
        )
    events = [(v.id, event[1] - event[0]) for part in splits.values() for v in part for event in v.events]
    if not events:
        return
    seconds = np.array([length for _, length in events])
    training = [(v.id, event[1] - event[0]) for v in splits["train"] for event in v.events]

    def in_steps(rows: list[tuple[str, float]]) -> tuple[np.ndarray, list[str]]:
        rows = [(v, length) for v, length in rows if v in grids]
        return np.array([length * fps[v] / grids[v].stride for v, length in rows]), [v for v, _ in rows]

    steps, where = in_steps(events)
    check.tables["length of events"] = percentiles(seconds, steps if len(steps) else None)
    if not len(steps):
        return
    share = check_short(steps, where, findings)
    check.facts["events shorter than two grid steps"] = percent(share)
    steps, where = in_steps(training)
    levels = Levels.of(config) if "regression_range" in config["model"] else None
    best_count = 1
    if levels is not None and len(steps):
        table = check_pyramid(steps, where, findings, levels=levels)
        check.tables["levels of the pyramid, and training events that can be learned there"] = table
        best_count = levels.recommended(steps)
        check.facts["levels"] = (
            f"{len(levels.ranges)}; recommended {best_count} (backbone_arch[2]: {best_count - 1 + levels.first})"
        )
    lengths = np.array([grids[v.id].length for v in splits["train"] if v.id in grids])
    if len(lengths) and not config["dataset"]["force_upsampling"]:
        now = config["dataset"]["max_seq_len"]
        multiple = 1 if levels is None else levels.multiple(max(best_count, levels.last + 1))
        best = recommended_length(lengths, multiple)
        check.facts["max_seq_len"] = (
            f"{now} holds {percent(float(np.mean(lengths <= now)))} of the training videos, {best} would hold "
            f"{percent(float(np.mean(lengths <= best)))} (longest {lengths.max()} steps)"
        )
