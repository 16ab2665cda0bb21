"""Label splits: which training videos may show their labels.

For every fold, a split file holds the order in which videos receive labels; a ratio labels the first videos of this
order. A larger ratio therefore keeps all labeled videos of a smaller ratio. The file also holds the map from class
names to ids. Making a split is the only place where the labels of all training videos are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from actionformer_nt.methods import LABELED_ONLY
from libs.core.files import load_json, write_text
from libs.core.seeding import derive_seed
from libs.core.types import Config
from libs.datasets.annotations import Annotations, Video, read_annotations

from .orders import stratified_order, uniform_order

FORMAT = "actionformer-nt split 1"
RATIOS = (0.1, 0.2, 0.4, 0.6)
KINDS = ("stratified", "uniform", "published")


class SplitFile(TypedDict):
    """The content of a split file."""

    format: str
    kind: str  # see `KINDS`
    annotations: str  # name of the annotation file
    subsets: list[str]  # lower case
    seed: int | None  # None: nothing was drawn
    ratios: list[float]
    label_ids: dict[str, int]  # class name -> id
    videos: list[str]
    orders: list[list[str]]  # for each fold, the videos in the order in which they receive labels
    hash: str  # hash of all other keys


@dataclass(frozen=True)
class Split:
    """One ratio and fold of a split file."""

    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    label_ids: dict[str, int]
    source: str  # file, ratio and fold, for messages
    hash: str  # `SplitFile.hash`


def make_splits(
    annotations: Annotations,
    subsets: Sequence[str],
    *,
    kind: str,
    ratios: Sequence[float] = RATIOS,
    folds: int = 5,
    seed: int = 0,
) -> SplitFile:
    """Draws the content of a split file.

    Args:
        kind: "stratified": the next video is always one of the class with the smallest labeled share (videos without
            events count as a class); "uniform": at random.
        ratios: shares of labeled videos that must be possible.

    Raises:
        ValueError: a ratio that gives no labeled video, or more than there are without the mark `"labeled": false`.
    """
    if kind not in ("stratified", "uniform"):
        raise ValueError(f"split kind '{kind}' is neither 'stratified' nor 'uniform'")
    videos = annotations.of_subsets(subsets)
    allowed = [video for video in videos if video.labeled]
    for ratio in ratios:
        if not 0 < ratio <= 1 or round(ratio * len(videos)) < 1:
            raise ValueError(
                f"ratio {ratio} leaves no labeled video of {len(videos)}; the smallest is {0.5 / len(videos):.4f}"
            )
        if round(ratio * len(videos)) > len(allowed):
            raise ValueError(
                f"ratio {ratio} asks for {round(ratio * len(videos))} labeled videos of {len(videos)}, but only "
                f"{len(allowed)} are not marked labeled: false; the largest ratio is {len(allowed) / len(videos):.4g}"
            )
    longest = round(max(ratios) * len(videos))
    order = stratified_order if kind == "stratified" else uniform_order
    orders = [order(allowed, longest, random.Random(derive_seed(seed, fold, kind))) for fold in range(folds)]
    return _content(kind, annotations, subsets, videos, orders, ratios=list(ratios), seed=seed)


def published_split(annotations: Annotations, subsets: Sequence[str], listing: object, name: str) -> SplitFile:
    """A split file of one fold and ratio from a published list {"labeled": [ids], "unlabeled": [ids]}. Without
    "unlabeled", all other videos of the subsets are unlabeled. A prefix `v_` of an id is dropped if the annotations
    have the id without it.

    Args:
        listing: content of the list.
        name: file of the list, for messages.

    Raises:
        ValueError: ids that the annotations do not have, that occur twice, or that are in both lists; a labeled video
            that is marked `"labeled": false`.
    """
    videos = annotations.of_subsets(subsets)
    known = {video.id for video in videos}
    given = listing if isinstance(listing, dict) else {}
    lists = [given.get(key, []) for key in ("labeled", "unlabeled")]
    if "labeled" not in given or not all(
        isinstance(part, list) and all(isinstance(video, str) for video in part) for part in lists
    ):
        raise ValueError(f'{name}: expected {{"labeled": [video ids], "unlabeled": [video ids]}}')
    labeled = [_match_id(video, known, name) for video in given["labeled"]]
    rest = sorted(known - set(labeled))
    unlabeled = [_match_id(video, known, name) for video in given.get("unlabeled", rest)]
    for part, ids in (("labeled", labeled), ("unlabeled", unlabeled)):
        if repeated := sorted({video for video in ids if ids.count(video) > 1}):
            raise ValueError(f"{name}: the list '{part}' names {repeated} more than once")
    if marked := sorted(set(labeled) & {video.id for video in videos if not video.labeled}):
        raise ValueError(f"{name}: labeled videos {marked} are marked labeled: false in {annotations.path}")
    if both := sorted(set(labeled) & set(unlabeled)):
        raise ValueError(f"{name}: {len(both)} videos are labeled and unlabeled, the first is '{both[0]}'")
    if not labeled:
        raise ValueError(f"{name}: no labeled video")
    chosen = [video for video in videos if video.id in {*labeled, *unlabeled}]
    ratio = len(labeled) / len(chosen)
    return _content("published", annotations, subsets, chosen, [labeled], ratios=[ratio], seed=None)


def marked_split(annotations: Annotations, subsets: Sequence[str]) -> SplitFile:
    """A split file of one fold and ratio from the marks in the annotation file: videos marked `"labeled": false` are
    unlabeled, all others labeled.

    Raises:
        ValueError: all videos are marked, or none.
    """
    videos = annotations.of_subsets(subsets)
    labeled = [video.id for video in videos if video.labeled]
    if len(labeled) in (0, len(videos)):
        raise ValueError(
            f"{annotations.path}: {len(labeled)} of {len(videos)} videos of {list(subsets)} are labeled; expected some "
            'with "labeled": false and some without'
        )
    ratio = len(labeled) / len(videos)
    return _content("published", annotations, subsets, videos, [labeled], ratios=[ratio], seed=None)


def write_splits(path: str | os.PathLike, content: SplitFile) -> None:
    """Writes a split file, one value per line."""
    write_text(path, json.dumps(content, indent=0, separators=(",", ":")) + "\n")


def read_split(path: str | os.PathLike, ratio: float | None, fold: int = 0) -> Split:
    """One ratio and fold of a split file.

    Args:
        ratio: share of labeled videos; None: the only ratio of a published split.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a split file, changed since it was written, or without this fold or ratio.
    """
    content = load_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: not a split file (written by `actionformer-nt splits`)")
    shape = {"hash": str, "kind": str, "ratios": list, "label_ids": dict, "videos": list, "orders": list}
    if wrong := sorted(key for key, kind in shape.items() if not isinstance(content.get(key), kind)):
        raise ValueError(f"{path}: not a split file: {wrong} missing, or of another type")
    if (
        not content["videos"]
        or not content["orders"]
        or not all(isinstance(order, list) for order in content["orders"])
    ):
        raise ValueError(f"{path}: not a split file: it holds no video, or no fold")
    if content["hash"] != _hash(content):
        raise ValueError(f"{path}: its content does not fit its hash: it was changed after it was made")
    videos, orders = content["videos"], content["orders"]
    if fold >= len(orders):
        raise ValueError(f"{path}: no fold {fold}; folds 0 to {len(orders) - 1} are there")
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
    return Split(labeled, unlabeled, content["label_ids"], f"{path}, ratio {ratio:.4g}, fold {fold}", content["hash"])


def read_hidden(json_file: str, split: Split) -> Annotations:
    """The annotations that training may see: the events of unlabeled videos are dropped before any code reads them, and
    the label map is the split's.

    Raises:
        ValueError: the split names videos that the file does not have.
    """
    annotations = read_annotations(
        json_file,
        hidden=frozenset(split.unlabeled),
        label_ids=split.label_ids,
        source=f"the classes of split {split.source}",
    )
    known = {video.id for video in annotations.videos}
    marked = {video.id for video in annotations.videos if not video.labeled}
    if wrong := [video for video in split.labeled if video in marked]:
        raise ValueError(f"split {split.source}: its labeled videos {wrong} are marked labeled: false in {json_file}")
    missing = [video for video in (*split.labeled, *split.unlabeled) if video not in known]
    if missing:
        raise ValueError(
            f"split {split.source} names {len(missing)} videos that {json_file} does not have, "
            f"the first is '{missing[0]}'"
        )
    return annotations


def check_split(config: Config, annotations: Annotations, split: Split) -> None:
    """Raises ValueError if the split names videos outside `train_split`, which would silently be ignored, or if it has
    no unlabeled video although the method learns from these."""
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


def _content(
    kind: str,
    annotations: Annotations,
    subsets: Sequence[str],
    videos: Iterable[Video],
    orders: list[list[str]],
    *,
    ratios: list[float],
    seed: int | None,
) -> SplitFile:
    content: SplitFile = {
        "format": FORMAT,
        "kind": kind,
        "annotations": os.path.basename(annotations.path),
        "subsets": [subset.lower() for subset in subsets],
        "seed": seed,
        "ratios": ratios,
        "label_ids": annotations.label_ids,
        "videos": [video.id for video in videos],
        "orders": orders,
        "hash": "",
    }
    content["hash"] = _hash(content)
    return content


def _hash(content: Mapping[str, object]) -> str:
    body = {key: value for key, value in content.items() if key != "hash"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def _match_id(video: str, known: set[str], name: str) -> str:
    for candidate in (video, video.removeprefix("v_")):
        if candidate in known:
            return candidate
    raise ValueError(f"{name}: video '{video}' is not among the annotated videos of these subsets")
