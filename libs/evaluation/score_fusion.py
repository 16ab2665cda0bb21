"""Fuses detections with class scores of whole videos from another model (ActivityNet's external classifiers)."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

import numpy as np

from libs.core.files import load_json

from .detections import Detections, concatenate, make_detections

logger = logging.getLogger(__name__)


def read_video_scores(
    path: str | os.PathLike, *, label_ids: Mapping[str, int] | None = None, num_classes: int | None = None
) -> dict[str, np.ndarray]:
    """Class scores (C,) per video, from JSON ({video: [...]}, possibly under "results") or npz (one array per video).

    Args:
        label_ids: class name -> id. A list `class` of names in the file (in an npz: an array of text) gives the class
            of each score. Without the list, the scores must be as many as the classes, in the order of their ids.
        num_classes: another accepted number of scores.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format (a pickle is refused, since loading it runs code), no scores, an unknown class name,
            or a wrong number of scores.
    """
    path = os.fspath(path)
    names = None
    if path.endswith(".json"):
        content = load_json(path)
        if isinstance(content, dict):
            names = content.pop("class", content.pop("classes", None))
            content = content.get("results", content)
        if names is not None and (not isinstance(names, list) or not all(isinstance(name, str) for name in names)):
            raise ValueError(f"{path}: 'class' must be a list of class names, found {names!r}")
    elif path.endswith(".npz"):
        if not os.path.isfile(path):
            raise FileNotFoundError(f"file not found: {path}")
        try:
            with np.load(path, allow_pickle=False) as archive:
                content = dict(archive)
                names = content.pop("class").tolist() if "class" in content else None
        except Exception as error:  # numpy and zipfile raise many types of errors on damaged files
            raise ValueError(f"{path}: damaged or not an npz file: {error}") from None
    else:
        raise ValueError(
            f"{path}: score files are read from .json or .npz. If it is a pickle that you trust: python -c "
            f"\"import pickle, numpy; d = pickle.load(open({path!r}, 'rb')); "
            "numpy.savez('scores.npz', **d.get('scores', d))\""
        )
    try:
        scores = {video: np.asarray(values, dtype=np.float64) for video, values in content.items()}
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: expected an object with a list of class scores per video: {error}") from None
    bad = next((video for video, values in scores.items() if values.ndim != 1 or not np.isfinite(values).all()), None)
    if bad is not None or not scores:
        raise ValueError(
            f"{path}: expected finite class scores per video, found none" + (f" for '{bad}'" if bad else "")
        )
    return scores if not label_ids else _by_id(path, scores, names, label_ids, num_classes)


def _by_id(
    path: str,
    scores: dict[str, np.ndarray],
    names: list[str] | None,
    label_ids: Mapping[str, int],
    num_classes: int | None,
) -> dict[str, np.ndarray]:
    """Scores in the order of the class ids; 0 for classes that the file does not name."""
    size = max(label_ids.values()) + 1
    if names is None:
        accepted = {size} if num_classes is None else {size, num_classes}
        for video, values in scores.items():
            if len(values) not in accepted:
                raise ValueError(
                    f"{path}: video '{video}' has {len(values)} class scores, but there are {max(accepted)} classes; a "
                    "list 'class' of names beside 'results' says which class each score is of"
                )
        return scores
    if unknown := sorted({name for name in names if name not in label_ids}):
        raise ValueError(f"{path}: its list 'class' names {unknown}, which are not classes of the annotations")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path}: its list 'class' names {repeated} more than once")
    if missing := sorted(label_ids.keys() - set(names)):
        logger.warning("%s: no scores of the classes %s, which are never detected", path, missing)
    columns = [label_ids[name] for name in names]
    by_id = {}
    for video, values in scores.items():
        if len(values) != len(names):
            raise ValueError(
                f"{path}: video '{video}' has {len(values)} class scores, its list 'class' {len(names)} names"
            )
        by_id[video] = np.zeros(size)
        by_id[video][columns] = values
    return by_id


def fuse_scores(
    detections: Detections, video_scores: dict[str, np.ndarray], *, num_pred: int = 200, topk: int = 2
) -> Detections:
    """Repeats each of the best `num_pred` detections of a video for the video's `topk` best classes, with the score
    sqrt(class score * detection score). The labels of the detections are dropped.

    Args:
        video_scores: video id -> class scores (C,).

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
    """Row indices of each video; videos in the order of their first row."""
    rows: dict[str, list[int]] = {}
    for i, video in enumerate(video_id):
        rows.setdefault(video, []).append(i)
    return {video: np.array(indices) for video, indices in rows.items()}
