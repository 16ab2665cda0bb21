"""What a checkpoint says about the split that it was trained with, and the comparison with a split to be tested."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict, cast

from libs.core import read_yaml
from libs.core.types import Config
from libs.datasets.annotations import Annotations
from libs.training.checkpoint import load_checkpoint
from libs.training.run_folder import LAST
from libs.training.run_identity import CONFIG

from .splits import Split, read_hidden, read_split

logger = logging.getLogger(__name__)


class SplitRecord(TypedDict):
    """A split, for comparisons. Videos are given as their number and a hash of their ids."""

    hash: str  # of the split file
    file: str  # its name, without folder
    ratio: float
    fold: int
    labeled: str
    unlabeled: str
    test: str | None  # the split's own test videos; None: those of `val_split`
    classes: str  # number of classes and hash of names and ids


def record_of(split: Split) -> SplitRecord:
    """The record of a split."""
    return {
        "hash": split.hash,
        "file": Path(split.file).name,
        "ratio": split.ratio,
        "fold": split.fold,
        "labeled": _counted(split.labeled, "videos"),
        "unlabeled": _counted(split.unlabeled, "videos"),
        "test": None if split.test is None else _counted(split.test, "videos"),
        "classes": _counted((f"{i} {name}" for name, i in split.label_ids.items()), "classes"),
    }


def _counted(names: Iterable[str], what: str) -> str:
    names = sorted(names)
    return f"{len(names)} {what} ({hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]})"


def name_of(record: SplitRecord) -> str:
    """Ratio, fold and file, for messages."""
    return f"ratio {record['ratio']:.4g}, fold {record['fold']} of {record['file']}"


def read_tested(config: Config, split: Split, folder: str | os.PathLike) -> Annotations:
    """The annotations with which a semi-supervised run is evaluated: those of `read_hidden`. Warns if a checkpoint does
    not say with which videos it was trained, and the split has test videos of its own.

    Args:
        folder: the run folder, or a checkpoint in it.

    Raises:
        ValueError: the split has test videos of its own, and the run was trained with other labeled or test videos: its
            training videos may be among those that are tested.
    """
    if split.test is not None:
        path = Path(folder)
        _check_trained(split, path / LAST if path.is_dir() else path)
    return read_hidden(config["dataset"]["json_file"], split)


def _check_trained(split: Split, checkpoint: Path) -> None:
    trained, expected = _trained_with(split, checkpoint), record_of(split)
    if trained is None:
        logger.warning(
            "%s does not say with which videos it was trained: make sure that the test videos of split %s are not "
            "among them", checkpoint, split.source,
        )  # fmt: skip
        return
    whole = f"split {split.source} has test videos of its own, but the run {checkpoint.parent} was trained with "
    if trained["test"] != expected["test"]:
        raise ValueError(
            f"{whole}fold {trained['fold']} of {trained['file']}: it may have seen them; evaluate it with its own "
            f"split and fold (its test videos: {trained['test'] or 'those of val_split'}; here: {expected['test']})"
        )
    if trained["labeled"] != expected["labeled"]:
        raise ValueError(
            f"{whole}other labels, those of {name_of(trained)}: its results would be noted under the wrong ones; "
            f"evaluate it with its own split (labeled: {trained['labeled']}; here: {expected['labeled']})"
        )


def _trained_with(split: Split, checkpoint: Path) -> SplitRecord | None:
    """The record in a checkpoint or, for one without it, of the configuration beside it; None: neither is there.

    Raises:
        ValueError: the checkpoint is of supervised training, or of a split file that is not at hand.
    """
    state = dict(load_checkpoint(checkpoint)) if checkpoint.is_file() else {}
    if made := state.get("made_with"):
        return cast(SplitRecord, cast("dict[str, object]", made)["split"])
    file = checkpoint.parent / CONFIG
    if not file.is_file():
        return None
    raw = read_yaml(file)
    if "semi_cfg" not in raw:
        raise ValueError(
            f"split {split.source} has test videos of its own, but the run {file.parent} was trained without semi_cfg, "
            f"on all videos of train_split {raw.get('train_split')}: it may have seen them; evaluate it with its own "
            "configuration"
        )
    section, split_hash = raw["semi_cfg"]["split"], cast("str | None", state.get("split_hash"))
    record = older_record(section, split_hash, split)
    if record is None and split_hash not in (None, split.hash):
        raise ValueError(
            f"split {split.source} has test videos of its own, but the run {file.parent} was trained with another "
            f"split file, which is not at hand ({section['file']}): it may have seen them"
        )
    return record


def older_record(section: dict[str, object], split_hash: str | None, split: Split) -> SplitRecord | None:
    """The record of a run whose checkpoint has none; None if its split file cannot be read.

    Args:
        section: `semi_cfg.split` of the run.
        split_hash: hash of the run's split file; None: not known.
        split: where the hashes are equal, its file is read, wherever the run's is now.
    """
    file = split.file if split_hash == split.hash else str(section["file"])
    try:
        found = read_split(file, cast("float | None", section.get("ratio")), cast(int, section.get("fold", 0)))
    except (ValueError, OSError):
        return None
    return record_of(found) if split_hash in (None, found.hash) else None
