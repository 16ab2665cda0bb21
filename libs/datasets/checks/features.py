"""Checks feature files: their headers, or all values."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import joblib
from tqdm import tqdm

from libs.datasets.features import EXTENSIONS, FeatureError, FeatureFiles, files_below, is_hdf5

from .findings import Findings

ADVICE = {
    "swapped": "files must be T x C, a row per step",
    "channels": "see dataset.input_dim",
    "not-finite": "NaN or infinity in training ends it; extract these features again",
}


class _Inspection(NamedTuple):
    """Result of reading one feature file."""

    video_id: str
    steps: int | None
    kind: str | None  # kind of the problem; None: no problem
    message: str


def scan_features(
    files: FeatureFiles,
    video_ids: list[str],
    findings: Findings,
    *,
    missing: str,
    full: bool,
    jobs: int,
    progress: bool,
) -> dict[str, int]:
    """Number of steps of every video with readable features; the others become findings.

    Args:
        missing: level of the finding for a missing file.
        full: read all values, not only the headers.
        jobs: files read in parallel.

    Returns:
        Video id -> number of steps.
    """
    present = [video_id for video_id in video_ids if files.exists(video_id)]
    for video_id in sorted(set(video_ids) - set(present)):
        findings.add(
            "error" if not present else missing, "missing-file", video_id, f"no {files.path(video_id)}",
            advice=_other_names(files) or "dataset.missing_features says whether such a video is skipped or an error",
        )  # fmt: skip
    work = (joblib.delayed(_inspect)(files, video_id, full) for video_id in present)
    inspections = joblib.Parallel(n_jobs=jobs, prefer="threads", return_as="generator")(work)
    steps = {}
    for inspection in tqdm(
        inspections, total=len(present), desc="features", unit="video", leave=False, disable=None if progress else True
    ):
        if inspection.kind is not None:
            level = "warning" if inspection.kind == "all-zero" else "error"
            findings.add(
                level, inspection.kind, inspection.video_id, inspection.message, advice=ADVICE.get(inspection.kind, "")
            )
        if inspection.steps is not None:
            steps[inspection.video_id] = inspection.steps
    return steps


def find_extra(files: FeatureFiles, known: set[str], findings: Findings) -> None:
    """Warns about feature files of videos that are not in the annotations."""
    for video_id in files.ids():
        if video_id not in known:
            findings.add(
                "warning", "extra-file", video_id, f"{files.path(video_id)} belongs to no video of the annotations",
                advice="it is never read",
            )  # fmt: skip


def _inspect(files: FeatureFiles, video_id: str, full: bool) -> _Inspection:
    try:
        steps, _ = files.shape(video_id)
        if full and not files.read(video_id).any():
            return _Inspection(video_id, steps, "all-zero", "every number is 0")
    except FeatureError as error:
        return _Inspection(video_id, None, error.kind, str(error))
    except (ValueError, OSError) as error:
        return _Inspection(video_id, None, "unreadable", str(error))
    return _Inspection(video_id, steps, None, "")


def _other_names(files: FeatureFiles) -> str:
    """Advice if a wrong prefix or extension explains that all files are missing; else empty."""
    folder = files.folders[0]
    if is_hdf5(folder) or files.ids():
        return ""
    names = sorted(name for name in files_below(folder) if Path(name).suffix in EXTENSIONS)
    if not names:
        return f"{folder} holds no feature file"
    (ending, count), example = Counter(Path(name).suffix for name in names).most_common(1)[0], names[0]
    return f"{folder} holds {count} files {ending}, such as {example}: see dataset.file_ext and dataset.file_prefix"
