"""Fusing detections with class scores of whole videos from another model (ActivityNet's external classifiers)."""

from __future__ import annotations

import os

import numpy as np

from libs.core.files import load_json

from .results import Detections, concatenate, make_detections


def read_video_scores(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Class scores (C,) per video, from JSON ({video: [...]}, possibly under "results") or npz (one array a video).

    Raises:
        ValueError: another format (a pickle is refused, since loading it runs code), or no scores in it.
    """
    path = os.fspath(path)
    if ".json" in path:
        content = load_json(path)
        content = content.get("results", content) if isinstance(content, dict) else content
    elif path.endswith(".npz"):
        if not os.path.isfile(path):
            raise FileNotFoundError(f"file not found: {path}")
        try:
            with np.load(path, allow_pickle=False) as archive:
                content = dict(archive)
        except Exception as error:  # numpy and zipfile raise many kinds on damaged files
            raise ValueError(f"{path}: damaged or not an npz file: {error}") from None
    else:
        raise ValueError(f"{path}: score files are read from .json or .npz; convert a pickle to one of them first")
    try:
        scores = {video: np.asarray(values, dtype=np.float64) for video, values in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected an object with a list of class scores per video: {error}") from None
    bad = next((video for video, values in scores.items() if values.ndim != 1 or not np.isfinite(values).all()), None)
    if bad is not None or not scores:
        raise ValueError(
            f"{path}: expected finite class scores per video, found none" + (f" for '{bad}'" if bad else "")
        )
    return scores


def fuse_scores(
    detections: Detections, video_scores: dict[str, np.ndarray], *, num_pred: int = 200, topk: int = 2
) -> Detections:
    """Each of the best `num_pred` detections of a video is repeated for the video's `topk` best classes, with the
    score sqrt(class score * detection score). The detections' own labels are dropped.

    Raises:
        ValueError: a video without scores; names it.
    """
    parts = []
    for video, rows in _rows_by_video(detections.video_id).items():
        if video not in video_scores:
            raise ValueError(f"external scores: no entry for video '{video}' ({len(video_scores)} videos have one)")
        scores = video_scores[video]
        rows = rows[np.argsort(-detections.score[rows], kind="stable")[:num_pred]]
        classes = np.argsort(-scores, kind="stable")[:topk]
        fused = np.sqrt(scores[classes][:, None] * detections.score[rows][None, :])  # (topk, n)
        repeat = np.tile(rows, len(classes))
        parts.append(
            make_detections(
                detections.video_id[repeat],
                detections.t_start[repeat],
                detections.t_end[repeat],
                np.repeat(classes, len(rows)),
                fused.ravel(),
            )
        )
    return concatenate(parts)


def _rows_by_video(video_id: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of each video, videos in order of first appearance."""
    rows: dict[str, list[int]] = {}
    for i, video in enumerate(video_id):
        rows.setdefault(video, []).append(i)
    return {video: np.array(found) for video, found in rows.items()}
