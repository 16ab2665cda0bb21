"""Label splits: which training videos may show their labels, and which videos are tested if the split says so.

For every fold, a split file holds the order in which videos receive labels; a ratio labels the first videos of this
order. A larger ratio therefore keeps all labeled videos of a smaller ratio. The file also holds the map from class
names to ids. A fold may have test videos of its own: `train_split` and `val_split` are then the fold's training and
test videos, whatever subsets the annotation file has.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from actionformer_nt.config import semi_section
from actionformer_nt.methods import LABELED_ONLY
from libs.core.types import Config
from libs.datasets.annotations import Annotations, read_annotations, with_subsets

from .draws import make_splits, marked_split, published_split, splits_with_tests
from .split_file import FORMAT, KINDS, RATIOS, SplitFile, read_content, write_splits

__all__ = [
    "FORMAT", "KINDS", "RATIOS", "Split", "SplitFile", "check_split", "make_splits", "marked_split", "published_split",
    "read_hidden", "read_shown", "read_split", "split_of", "splits_with_tests", "tested_note", "unlabeled_classes",
    "write_splits",
]  # fmt: skip

TRAINING, TEST = "training", "test"  # subsets of a split with test videos of its own


@dataclass(frozen=True)
class Split:
    """One ratio and fold of a split file."""

    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    label_ids: dict[str, int]
    file: str
    ratio: float
    fold: int
    hash: str  # `SplitFile.hash`
    test: tuple[str, ...] | None = None  # None: the videos of `val_split`

    @property
    def source(self) -> str:
        """File, ratio and fold, for messages."""
        return f"{self.file}, ratio {self.ratio:.4g}, fold {self.fold}"

    @property
    def subsets(self) -> dict[str, str] | None:
        """Subset of each video of a split with test videos of its own; None: the annotation file's subsets hold."""
        if self.test is None:
            return None
        return dict.fromkeys((*self.labeled, *self.unlabeled), TRAINING) | dict.fromkeys(self.test, TEST)


def read_split(path: str | os.PathLike, ratio: float | None, fold: int = 0) -> Split:
    """One ratio and fold of a split file.

    Args:
        ratio: share of labeled videos, of the fold's training videos; None: the only ratio of a published split.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a split file, changed since it was written, or without this fold or ratio.
    """
    content = read_content(path)
    orders = content["orders"]
    if fold >= len(orders):
        raise ValueError(f"{path}: no fold {fold}; folds 0 to {len(orders) - 1} are there")
    test = tuple(content["tests"][fold]) if "tests" in content else None
    held_out = set(test or ())
    videos = [video for video in content["videos"] if video not in held_out]
    if ratio is None:
        if content["kind"] != "published":
            raise ValueError(f"{path}: semi_cfg.split.ratio is missing; this file is made for {content['ratios']}")
        ratio = len(orders[fold]) / len(videos)
    count = round(ratio * len(videos))
    if content["kind"] == "published" and count != len(orders[fold]):
        raise ValueError(
            f"{path}: ratio {ratio:g} asks for {count} labeled videos of {len(videos)}, but this split is a list of "
            f"{len(orders[fold])}: set semi_cfg.split.ratio to {len(orders[fold]) / len(videos):.4g}, or leave it out"
        )
    if count < 1 or count > len(orders[fold]):
        largest = len(orders[fold]) / len(videos)
        raise ValueError(
            f"{path}: ratio {ratio} asks for {count} labeled videos of {len(videos)}; it must give at least 1 and at "
            f"most {len(orders[fold])} (ratio {largest:.4g})"
        )
    labeled = tuple(orders[fold][:count])
    unlabeled = tuple(video for video in videos if video not in set(labeled))
    return Split(labeled, unlabeled, content["label_ids"], str(path), ratio, fold, content["hash"], test)


def read_shown(json_file: str, split: Split, *, hidden: frozenset[str] = frozenset()) -> Annotations:
    """The annotations with the split's label map and, if it has test videos of its own, its subsets.

    Args:
        hidden: ids of videos whose events are dropped before any code reads them.
    """
    annotations = read_annotations(
        json_file, hidden=hidden, label_ids=split.label_ids, source=f"the classes of split {split.source}"
    )
    return annotations if split.subsets is None else with_subsets(annotations, split.subsets)


def read_hidden(json_file: str, split: Split) -> Annotations:
    """The annotations that training may see: the events of unlabeled videos are dropped before any code reads them, and
    the label map is the split's. If the split has test videos of its own, the subset of every video is `TRAINING`,
    `TEST` or `unused`, as the split says.

    Raises:
        ValueError: the split names videos that the file does not have.
    """
    annotations = read_shown(json_file, split, hidden=frozenset(split.unlabeled))
    known = {video.id for video in annotations.videos}
    marked = {video.id for video in annotations.videos if not video.labeled}
    if split.test is not None and marked.issuperset(split.test):
        raise ValueError(f"split {split.source}: all its test videos are marked labeled: false in {json_file}")
    if wrong := [video for video in split.labeled if video in marked]:
        raise ValueError(f"split {split.source}: its labeled videos {wrong} are marked labeled: false in {json_file}")
    named = (*split.labeled, *split.unlabeled, *(split.test or ()))
    missing = [video for video in named if video not in known]
    if missing:
        raise ValueError(
            f"split {split.source} names {len(missing)} videos that {json_file} does not have, "
            f"the first is '{missing[0]}'"
        )
    return annotations


def split_of(config: Config) -> Split:
    """The split of a semi-supervised configuration. Raises as `read_split`."""
    options = semi_section(config).split
    return read_split(options.file, options.ratio, options.fold)


def tested_note(split: Split) -> dict[str, object]:
    """What result files say about a split with test videos of its own; nothing about other splits."""
    if split.test is None:
        return {}
    return {"label_split": split.source, "label_split_hash": split.hash, "tested_videos": sorted(split.test)}


def check_split(config: Config, annotations: Annotations, split: Split) -> None:
    """Raises ValueError if the split names videos outside `train_split`, which would silently be ignored, or if it has
    no unlabeled video although the method learns from these. With test videos of its own, `train_split` and `val_split`
    must be the names of its parts."""
    if split.test is not None and (config["train_split"], config["val_split"]) != ([TRAINING], [TEST]):
        raise ValueError(
            f"split {split.source} has test videos of its own: train_split must be [{TRAINING}] and val_split "
            f"[{TEST}], not {config['train_split']} and {config['val_split']}"
        )
    inside = {video.id for video in annotations.of_subsets(config["train_split"])}
    if outside := [video for video in (*split.labeled, *split.unlabeled) if video not in inside]:
        raise ValueError(
            f"split {split.source} names {len(outside)} videos that are not in train_split {config['train_split']}, "
            f"the first is '{outside[0]}'"
        )
    method = config["semi_cfg"]["method"]
    if method != LABELED_ONLY and not split.unlabeled:
        raise ValueError(
            f"split {split.source} has no unlabeled video: nothing for method '{method}' to learn from; use method: "
            f"{LABELED_ONLY}"
        )


def unlabeled_classes(annotations: Annotations, split: Split) -> list[str]:
    """Names of the classes that no labeled video contains."""
    labeled = set(split.labeled)
    present = {event.label_id for video in annotations.videos if video.id in labeled for event in video.events}
    return sorted(name for name, i in split.label_ids.items() if i not in present)
