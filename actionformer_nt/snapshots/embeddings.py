"""2-D embeddings (principal components) of the class head's input features, for the report.

They are computed after training, on a few videos of the test split, and coloured by ground truth.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

import numpy as np

from actionformer_nt.config import semi_section
from actionformer_nt.self_training.interface import self_training_of
from libs.core.device import select_device
from libs.core.types import Config
from libs.datasets import make_dataset
from libs.datasets.annotations import Annotations
from libs.datasets.labels import names_of
from libs.training.resume import load_model
from libs.training.run_folder import SAMPLES

MAX_POINTS = 500  # largest number of points in events, and of points in the background
BACKGROUND = -1


class Plane(TypedDict):
    """Features projected onto their first two principal components."""

    points: list[tuple[float, float, int]]  # x, y in units of the larger standard deviation; label
    explained: list[float]  # share of the variance along x and along y
    nearest: float | None  # see `embed`


def write_embeddings(config: Config, checkpoint: Path, annotations: Annotations) -> None:
    """Writes `samples/embeddings.json` for the student of a semi-supervised run, unless `semi_cfg.samples.videos` is 0.

    Args:
        checkpoint: in the run folder, which gets the file.
        annotations: ground truth of the test split.
    """
    count = semi_section(config).samples.videos
    if not count:
        return
    model = load_model(config, checkpoint, weights="raw").to(select_device(config))
    self_training = self_training_of(config["model_name"])
    dataset = make_dataset(
        config["dataset_name"], False, config["val_split"], **config["dataset"], annotations=annotations
    )
    names = names_of(dataset.label_dict)
    feats, labels, videos = [], [], []
    for number in range(min(len(dataset), count)):
        index = number * len(dataset) // min(len(dataset), count)
        x, time = self_training.class_features(model, dataset[index])
        feats.append(x)
        labels.append(label_at(time, *dataset.events(index)))
        videos.append(np.full(len(x), number))
    planes = embed(np.concatenate(feats), np.concatenate(labels), np.concatenate(videos))
    folder = checkpoint.parent / SAMPLES
    folder.mkdir(exist_ok=True)
    used = {int(i): names.get(int(i), str(i)) for i in np.unique(np.concatenate(labels)) if i != BACKGROUND}
    (folder / "embeddings.json").write_text(json.dumps(planes | {"labels": used}), encoding="utf-8")


def label_at(time: np.ndarray, segments: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Class (P,) of the shortest event that contains each time, or BACKGROUND.

    Args:
        time: (P,); segments: (N, 2), in the same unit; labels: (N,).
    """
    result = np.full(len(time), BACKGROUND)
    for k in np.argsort(segments[:, 0] - segments[:, 1], kind="stable"):  # longest first
        result[(time >= segments[k, 0]) & (time <= segments[k, 1])] = labels[k]
    return result


def embed(feats: np.ndarray, labels: np.ndarray, videos: np.ndarray) -> dict[str, Plane]:
    """Projects features onto principal components, after thinning them to `MAX_POINTS`.

    Args:
        feats: (P, D); labels: (P,) class or BACKGROUND; videos: (P,) index of the point's video.

    Returns:
        `foreground`, of points in events and in the background, and `classes`, of points in events only. `nearest` is
        the share of points whose nearest neighbour among the points of other videos, in all D dimensions, agrees in
        being an event or not (`foreground`) or in its class (`classes`); None with a single video.
    """
    inside = _thin(np.flatnonzero(labels != BACKGROUND))
    rows = np.sort(np.concatenate([inside, _thin(np.flatnonzero(labels == BACKGROUND))]))
    planes = {"foreground": (rows, labels != BACKGROUND), "classes": (inside, labels)}
    return {name: _plane(feats[r], labels[r], kind[r], videos[r]) for name, (r, kind) in planes.items()}


def _thin(rows: np.ndarray) -> np.ndarray:
    count = min(len(rows), MAX_POINTS)
    return rows[np.arange(count) * len(rows) // max(count, 1)]


def _plane(feats: np.ndarray, labels: np.ndarray, kind: np.ndarray, videos: np.ndarray) -> Plane:
    if len(feats) < 2:
        return {"points": [], "explained": [0.0, 0.0], "nearest": None}
    x = feats.astype(np.float64) - feats.mean(axis=0, dtype=np.float64)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    u, s = np.pad(u, ((0, 0), (0, 2)))[:, :2], np.pad(s, (0, 2))
    u = u * np.where(u[np.abs(u).argmax(axis=0), [0, 1]] < 0, -1, 1)  # LAPACK libraries differ in the sign
    plane = u * s[:2] / max(s[0] / np.sqrt(len(x)), 1e-12)
    total = max(float((s**2).sum()), 1e-12)
    return {
        "points": [(round(a, 3), round(b, 3), int(k)) for (a, b), k in zip(plane.tolist(), labels, strict=True)],
        "explained": [round(float(v), 4) for v in s[:2] ** 2 / total],
        "nearest": _nearest(x, kind, videos),
    }


def _nearest(x: np.ndarray, kind: np.ndarray, videos: np.ndarray) -> float | None:
    other = videos[:, None] != videos[None, :]
    if not other.any(axis=1).all():
        return None
    square = (x**2).sum(axis=1)
    distance = np.where(other, square[:, None] + square[None, :] - 2 * x @ x.T, np.inf)
    return round(float((kind[distance.argmin(axis=1)] == kind).mean()), 4)
