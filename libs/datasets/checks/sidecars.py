"""Checks the sidecars of feature files, and takes from them what the annotations lack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from libs.core.types import DatasetConfig
from libs.datasets.features import FeatureFiles
from libs.datasets.sidecar import Sidecar, common_settings

from .annotations import RawVideo, check_end
from .findings import DataCheck, Findings


def with_sidecars(
    videos: Sequence[RawVideo], files: FeatureFiles, data: DatasetConfig, check: DataCheck
) -> list[RawVideo]:
    """The videos with the frame rates and durations of their sidecars where the annotations have none.

    Args:
        check: gets findings about sidecars that are damaged, contradict the configuration or the annotations, or were
            made in different ways, and a fact about how the features were made.
    """
    found: dict[str, Sidecar] = {}
    for video in videos:
        try:
            if (sidecar := files.sidecar(video.id)) is not None:
                found[video.id] = sidecar
                fps = video.fps if data["default_fps"] is None else data["default_fps"]
                source, timing = str(files.path(video.id)), {key: data[key] for key in ("feat_stride", "num_frames")}
                sidecar.check(source=source, fps=fps, **timing)
        except ValueError as error:
            check.findings.add("error", "sidecar", video.id, str(error))
    if found:
        try:
            settings = common_settings(found)
            check.facts["features"] = ", ".join(
                f"{key} {value}" for key, value in settings.items() if value is not None
            )
        except ValueError as error:
            check.findings.add("error", "mixed-features", next(iter(found)), str(error))
    return [_filled(video, found.get(video.id), check.findings) for video in videos]


def check_rows(files: FeatureFiles, steps: dict[str, int], findings: Findings) -> None:
    """Reports feature files that have another number of rows than their sidecar says.

    Args:
        steps: video id -> rows.
    """
    for video_id, rows in steps.items():
        try:
            sidecar = files.sidecar(video_id)
        except ValueError:  # reported above
            continue
        if sidecar is not None and sidecar.rows != rows:
            findings.add(
                "error", "sidecar-rows", video_id, f"{rows} rows, but {sidecar.rows} in the sidecar",
                advice="the features were changed after they were made: extract them again",
            )  # fmt: skip


def _filled(video: RawVideo, sidecar: Sidecar | None, findings: Findings) -> RawVideo:
    if sidecar is None or (video.fps is not None and video.duration is not None):
        return video
    if video.duration is None:
        for start, end, _ in video.events:
            check_end(video.id, start, end, sidecar.duration, findings)
    return replace(video, fps=video.fps or sidecar.fps, duration=video.duration or sidecar.duration)
