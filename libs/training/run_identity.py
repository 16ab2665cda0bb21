"""What a run was trained on: its classes and its data, which whatever is read later is compared with."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any, TypedDict

from libs.core import read_yaml
from libs.core.files import load_json
from libs.core.types import Config
from libs.datasets.annotations import Annotations, read_annotations
from libs.datasets.labels import names_of
from libs.datasets.presets import PRESETS

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"
CLASSES = "classes.json"


class TrainingData(TypedDict, total=False):
    """What a run was trained on, as `run.json` has it. Empty where the run does not say."""

    annotations: str  # file
    sha256: str | None  # of the file; None: there is none
    training_videos: int
    fps: list[float] | None  # the lowest and the highest frame rate
    label_ids: dict[str, int] | None  # where one class stands for all: `classes.json` is empty then


def read_label_ids(folder: Path) -> dict[str, int] | None:
    """Class name -> id of a run; None where the folder does not say."""
    path = folder / CLASSES
    if not path.is_file():
        if (folder / CONFIG).is_file():
            logger.warning("%s is missing: class names and ids of files cannot be compared with the run's", path)
        return None
    content = load_json(path)
    if not isinstance(content, dict) or any(not isinstance(i, int) for i in content.values()):
        raise ValueError(f"{path}: expected an object of class names and ids")
    return content


def read_classes(folder: Path) -> dict[int, str] | None:
    """Class id -> name of a run; None where the folder does not say."""
    ids = read_label_ids(folder)
    return None if ids is None else names_of(ids)


def check_classes(label_ids: dict[str, int], known: dict[str, int], *, what: str, source: str) -> None:
    """Raises ValueError where `label_ids`, of `what`, gives a class another id than `known`, of `source`, or names
    others; tells which."""
    if label_ids == known:
        return
    moved = [name for name in label_ids.keys() & known.keys() if label_ids[name] != known[name]]
    if moved:
        name = min(moved)
        raise ValueError(f"{what}: class '{name}' has id {label_ids[name]}, but {known[name]} in {source}")
    if more := sorted(label_ids.keys() - known.keys()):
        raise ValueError(f"{what}: classes {more} are not in {source}")
    raise ValueError(f"{what}: no classes {sorted(known.keys() - label_ids.keys())}, which are in {source}")


def read_as_run(config: Config, folder: Path) -> Annotations | None:
    """The annotation file of a configuration, read with the classes of the run in `folder`: a file may lack classes and
    ids, but not contradict them. None: the folder names no classes, or the data set reads its own files.

    Raises:
        ValueError: a class with another id, or one that the run does not have; names it.
    """
    known = read_label_ids(folder) or (data_of_run(folder).get("label_ids") or {})
    if not known or config["dataset_name"] not in PRESETS:
        return None
    return read_annotations(
        config["dataset"]["json_file"], label_ids=known, source=f"the classes of the run, {folder / CLASSES}"
    )


def describe_data(config: Config, dataset: Any) -> TrainingData:
    """What a later start, or a prediction, is compared with: the annotation file, the number of training videos, their
    frame rates."""
    file = config["dataset"]["json_file"]
    fps = {video.fps for video in getattr(dataset, "videos", []) if getattr(video, "fps", None)}
    default = config["dataset"]["default_fps"]
    rates = [default] if default is not None else sorted(fps)
    return {
        "annotations": str(file),
        "sha256": _digest(file),
        "training_videos": len(dataset),
        "fps": [rates[0], rates[-1]] if rates else None,  # the lowest and the highest
        # where one class stands for all, `classes.json` is empty
        "label_ids": dataset.label_dict if getattr(dataset, "class_agnostic", False) else None,
    }


def data_of_run(folder: Path) -> TrainingData:
    """What `describe_data` said at the last start of a run; empty where the folder does not say."""
    path = folder / "run.json"
    starts = load_json(path) if path.is_file() else []
    last = starts[-1] if isinstance(starts, list) and starts else {}
    return (last.get("data") if isinstance(last, dict) else None) or {}


def trained_fps(config: Config, folder: Path) -> tuple[float, float] | None:
    """The lowest and the highest frame rate of a run's training videos; None: the run does not say."""
    rates = data_of_run(folder).get("fps")
    if rates is None and config["dataset"]["default_fps"] is not None:
        rates = [config["dataset"]["default_fps"]] * 2
    return None if rates is None else (rates[0], rates[1])


def tell_changed_data(before: TrainingData, now: TrainingData, folder: Path) -> None:
    """Warns where a run goes on with other data than `describe_data` said before."""
    then, at_present = dict(before), dict(now)
    for key, what in (("sha256", "content of the annotation file"), ("training_videos", "number of training videos")):
        if key in then and key in at_present and then[key] != at_present[key]:
            logger.warning(
                "%s: the %s has changed since the last start: %s then, %s now", folder, what, then[key], at_present[key]
            )


def _digest(path: str | Path | None) -> str | None:
    """SHA-256 of a file; None: there is none."""
    if path is None or not Path(path).is_file():
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def name_of_other_data(config: Config, folder: Path) -> str:
    """Empty where a run is evaluated on the data of its own configuration, else annotations and subsets by name.
    Results on other data then stand beside the run's own."""
    path = folder / CONFIG
    if not path.is_file():
        return ""
    own = read_yaml(path)
    same = sorted(config["val_split"]) == sorted(own.get("val_split", []))
    file, own_file = config["dataset"]["json_file"], own.get("dataset", {}).get("json_file")
    if same and (file == own_file or _digest(file) == _digest(own_file)):
        return ""
    return "-".join([Path(file).stem, *sorted(config["val_split"]), (_digest(file) or "")[:6]])
