"""Classes and training data of a run, and comparisons of later data with them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from libs.core import read_yaml
from libs.core.files import load_json
from libs.core.types import Config
from libs.datasets.annotations import Annotations, read_annotations
from libs.datasets.labels import names_of
from libs.datasets.presets import PRESETS
from libs.datasets.sidecar import Sidecar, common_settings, differences

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"
CLASSES = "classes.json"


class TrainingData(TypedDict, total=False):
    """The entry `data` of `run.json`. Empty if the run did not record its data."""

    annotations: str  # path of the annotation file
    sha256: str | None  # of the annotation file; None: no such file
    training_videos: int
    fps: list[float] | None  # the lowest and the highest frame rate
    features: dict[str, object] | None  # how they were made (`Sidecar.settings`); None: without sidecars
    label_ids: dict[str, int] | None  # class-agnostic data sets only, whose `classes.json` is empty


def read_label_ids(folder: Path) -> dict[str, int] | None:
    """Class name -> id of a run, from `classes.json`; None if the file is missing.

    Raises:
        ValueError: the file is not an object of names and ids.
    """
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
    """Class id -> name of a run, from `classes.json`; None if the file is missing."""
    ids = read_label_ids(folder)
    return None if ids is None else names_of(ids)


def check_classes(label_ids: dict[str, int], known: dict[str, int], *, what: str, source: str) -> None:
    """Checks that two mappings from class names to ids are equal.

    Args:
        label_ids: mapping to check; `what` names its origin.
        known: expected mapping; `source` names its origin.

    Raises:
        ValueError: ids or names differ; lists the classes.
    """
    if label_ids == known:
        return
    moved = [name for name in label_ids.keys() & known.keys() if label_ids[name] != known[name]]
    if moved:
        name = min(moved)
        raise ValueError(f"{what}: class '{name}' has id {label_ids[name]}, but {known[name]} in {source}")
    if surplus := sorted(label_ids.keys() - known.keys()):
        raise ValueError(f"{what}: classes {surplus} are not in {source}")
    raise ValueError(f"{what}: no classes {sorted(known.keys() - label_ids.keys())}, which are in {source}")


def read_as_run(config: Config, folder: Path) -> Annotations | None:
    """Reads the annotation file of a configuration with the class ids of the run in `folder`.

    The file may lack classes and ids of the run.

    Returns:
        None if the run recorded no classes, or the data set is a plug-in's, which reads its own files.

    Raises:
        ValueError: the file gives a class another id, or has a class that the run does not have; names the class.
    """
    known = read_label_ids(folder) or (data_of_run(folder).get("label_ids") or {})
    if not known or config["dataset_name"] not in PRESETS:
        return None
    return read_annotations(
        config["dataset"]["json_file"], label_ids=known, source=f"the classes of the run, {folder / CLASSES}"
    )


def describe_data(config: Config, dataset: Any) -> TrainingData:
    """Describes the training data for `run.json`."""
    file = config["dataset"]["json_file"]
    sidecars = getattr(dataset, "sidecars", {})
    videos = getattr(dataset, "videos", [])  # of a plug-in's data set: anything
    fps = {video.fps for video in videos if getattr(video, "fps", None)}
    if sidecars:
        fps |= {sidecars[video.id].fps for video in videos if video.fps is None and video.id in sidecars}
    default = config["dataset"]["default_fps"]
    rates = [default] if default is not None else sorted(fps)
    return {
        "annotations": str(file),
        "sha256": _digest(file),
        "training_videos": len(dataset),
        "fps": [rates[0], rates[-1]] if rates else None,
        "features": common_settings(sidecars) if sidecars else None,
        "label_ids": dataset.label_dict if getattr(dataset, "class_agnostic", False) else None,
    }


def check_features(sidecars: Mapping[str, Sidecar], known: Mapping[str, object] | None, *, what: str) -> None:
    """Checks that features were made like those of a run.

    Args:
        sidecars: of features, by video id; `what` names them.
        known: how those of the run were made; None: not known.

    Raises:
        ValueError: they were made otherwise; says both values.
    """
    if not sidecars or not known:
        return
    if wrong := differences(common_settings(sidecars), known):
        raise ValueError(f"{what} were made otherwise than the features of training: {wrong}")


def check_same_features(labeled: Any, others: Any, *, what: str) -> None:
    """Checks that a data set's features were made like those of the labeled one. Data sets of plug-ins may have no
    sidecars; `what` names the features of `others`.

    Raises:
        ValueError: they were made otherwise; says both values.
    """
    if sidecars := getattr(labeled, "sidecars", {}):
        check_features(getattr(others, "sidecars", {}), common_settings(sidecars), what=what)


def data_of_run(folder: Path) -> TrainingData:
    """Training data at the last start of a run, from `run.json`; empty if not recorded."""
    path = folder / "run.json"
    starts = load_json(path) if path.is_file() else []
    last = starts[-1] if isinstance(starts, list) and starts else {}
    return (last.get("data") if isinstance(last, dict) else None) or {}


def trained_fps(config: Config, folder: Path) -> tuple[float, float] | None:
    """The lowest and the highest frame rate of a run's training videos; None if not recorded."""
    rates = data_of_run(folder).get("fps")
    if rates is None and config["dataset"]["default_fps"] is not None:
        rates = [config["dataset"]["default_fps"]] * 2
    return None if rates is None else (rates[0], rates[1])


def tell_changed_data(old: TrainingData, new: TrainingData, folder: Path) -> None:
    """Warns if annotation file or number of training videos changed since the last start of the run in `folder`.

    Raises:
        ValueError: the features were made otherwise.
    """
    if wrong := differences(new.get("features") or {}, old.get("features") or {}):
        raise ValueError(f"{folder}: features were made otherwise than at the start of the run: {wrong}")
    old_values, new_values = dict(old), dict(new)
    for key, what in (("sha256", "content of the annotation file"), ("training_videos", "number of training videos")):
        if key in old_values and key in new_values and old_values[key] != new_values[key]:
            logger.warning(
                "%s: the %s has changed since the last start: %s then, %s now",
                folder, what, old_values[key], new_values[key],
            )  # fmt: skip


def _digest(path: str | Path | None) -> str | None:
    """SHA-256 of a file; None if it does not exist."""
    if path is None or not Path(path).is_file():
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def name_of_other_data(config: Config, folder: Path) -> str:
    """Suffix that keeps results on other data apart from a run's own results.

    Returns:
        "" if the run in `folder` was configured with the annotations and `val_split` of `config`, else the name of the
        annotation file, the subsets and the first digits of the file's SHA-256.
    """
    path = folder / CONFIG
    if not path.is_file():
        return ""
    run_config = read_yaml(path)
    same = sorted(config["val_split"]) == sorted(run_config.get("val_split", []))
    file, run_file = config["dataset"]["json_file"], run_config.get("dataset", {}).get("json_file")
    if same and (file == run_file or _digest(file) == _digest(run_file)):
        return ""
    return "-".join([Path(file).stem, *sorted(config["val_split"]), (_digest(file) or "")[:6]])
