"""Score thresholds of a checkpoint: chosen on a labeled set, stored beside the checkpoint, and reused if they match
it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from libs.core.device import select_device
from libs.core.types import Config
from libs.datasets import make_data_loader, make_dataset
from libs.datasets.annotations import Annotations
from libs.evaluation.average_precision import GroundTruth, ground_truth
from libs.evaluation.detections import Detections
from libs.evaluation.predict import predict
from libs.evaluation.thresholds import (
    Thresholds,
    best_thresholds,
    classes_of_thresholds,
    read_thresholds,
    write_thresholds,
)
from libs.training.resume import load_model
from libs.training.run_folder import results_folder, stem_of_results, unwritable_instead
from libs.training.run_identity import read_as_run, read_label_ids

logger = logging.getLogger(__name__)

TIOU = 0.5
DATA = "annotations and labeled videos"  # key of the digest of the data on which thresholds were chosen


def thresholds_file(checkpoint: Path, weights: str) -> Path:
    """Path of the thresholds beside a checkpoint."""
    return Path(f"{stem_of_results(checkpoint, weights)}_thresholds.json")


def stored_thresholds(
    config: Config, checkpoint: Path, *, weights: str = "ema", split: Sequence[str] | None = None
) -> Thresholds | None:
    """The thresholds stored for a checkpoint file. None if there are none, or if they were made with other weights,
    `test_cfg`, classes, data or, if `split` is given, another labeled set."""
    path = next((p for p in _places(checkpoint, weights) if p.is_file()), None)
    if path is None:
        return None
    thresholds, made_from = read_thresholds(path)
    chosen_on = made_from.get("split")
    now = _made_from(config, checkpoint, weights, split or (chosen_on if isinstance(chosen_on, list) else ()))
    if made_from.get(DATA) is None or now[DATA] is None:  # written by an earlier version, or the data files are missing
        now[DATA] = made_from.get(DATA)
    different = sorted(key for key in now if made_from.get(key) != now[key])
    known = read_label_ids(checkpoint.parent)
    if known and any(known.get(name) != i for name, i in classes_of_thresholds(path).items()):
        different.append("set of classes")
    if not different:
        return thresholds
    logger.info("%s: made with another %s: not used", path, ", ".join(different))
    return None


def _places(checkpoint: Path, weights: str) -> list[Path]:
    """Possible paths of the thresholds: beside the checkpoint, or in the substitute for a read-only folder."""
    beside = thresholds_file(checkpoint, weights)
    return [beside, unwritable_instead(checkpoint) / beside.name]


def choose_thresholds(
    config: Config,
    checkpoint: Path,
    *,
    weights: str = "ema",
    split: Sequence[str] | None = None,
    annotations: Annotations | None = None,
    video_ids: frozenset[str] | None = None,
    progress: bool = False,
) -> Thresholds:
    """Chooses the thresholds that maximise F1 at tIoU .5 (see `best_thresholds`) and writes them beside the checkpoint.

    Args:
        config: resolved configuration.
        checkpoint: checkpoint file.
        weights: "ema" or "raw".
        split: subsets with labels; None: `val_split`.
        annotations: used instead of reading the annotation file.
        video_ids: restricts the subsets to these videos.

    Raises:
        FileNotFoundError: missing features or annotations.
        ValueError: no events, or no detection matches an event.
    """
    split = list(split or config["val_split"])
    folder = results_folder(checkpoint)
    if annotations is None:
        annotations = read_as_run(config, checkpoint.parent)
    given: dict[str, object] = {} if annotations is None else {"annotations": annotations}
    given |= {} if video_ids is None else {"video_ids": video_ids}
    dataset = make_dataset(config["dataset_name"], False, split, **config["dataset"], **given)
    loader = make_data_loader(dataset, False, None, **config["loader"])
    model = load_model(config, checkpoint, weights=weights).to(select_device(config))
    detections = predict(loader, model, progress=progress, desc="choosing thresholds")
    labeled = frozenset(video.id for video in dataset.videos if video.labeled)
    in_labeled_video = np.array([video in labeled for video in detections.video_id], dtype=bool)
    detections = Detections(*(column[in_labeled_video] for column in detections))
    truth = ground_truth([video for video in dataset.videos if video.labeled])
    if dataset.class_agnostic:
        truth = GroundTruth(**truth._asdict() | {"label": np.zeros_like(truth.label)})
    thresholds = best_thresholds(truth, detections, tiou=TIOU)
    path, names = folder / thresholds_file(checkpoint, weights).name, dataset.class_names
    write_thresholds(path, thresholds, names, _made_from(config, checkpoint, weights, split))
    logger.info(
        "thresholds per class from %d events of %s: F1 %.3f with one for all; written to %s",
        thresholds.overall.events, split, thresholds.overall.f1, path,
    )  # fmt: skip
    return thresholds


def _made_from(config: Config, checkpoint: Path, weights: str, split: Sequence[str]) -> dict[str, object]:
    """Identifies what thresholds belong to: checkpoint, weights, tIoU, split, `test_cfg` and data."""
    digest = hashlib.sha256()
    with open(checkpoint, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {
        "sha256": digest.hexdigest(),
        "weights": weights,
        "tiou": TIOU,
        "split": list(split),
        "test_cfg": config["test_cfg"],
        DATA: _digest_of_data(config),
    }


def _digest_of_data(config: Config) -> str | None:
    """SHA-256 of the annotation file and, for a semi-supervised configuration, its split file; None if one is
    missing."""
    paths = [Path(config["dataset"]["json_file"])]
    if "semi_cfg" in config:
        paths.append(Path(config["semi_cfg"]["split"]["file"]))
    if not all(path.is_file() for path in paths):
        return None
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths))
    return digest.hexdigest()
