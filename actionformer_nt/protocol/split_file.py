"""The content of a split file: for every fold, the order in which videos receive labels, and its own test videos if it
has any."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from typing_extensions import NotRequired

from libs.core.files import load_json, write_text
from libs.datasets.annotations import Annotations, Video

FORMAT = "actionformer-nt split 1"
FORMAT_WITH_TESTS = "actionformer-nt split 2"  # another name, so that a reader that ignores `tests` refuses the file
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
    videos: list[str]  # those of all folds, for training or as own test videos
    orders: list[list[str]]  # for each fold, the videos in the order in which they receive labels
    tests: NotRequired[list[list[str]]]  # for each fold, its own test videos; absent: those of `val_split`
    hash: str  # hash of all other keys


def split_content(
    kind: str,
    annotations: Annotations,
    subsets: Sequence[str],
    videos: Iterable[Video],
    orders: list[list[str]],
    *,
    ratios: list[float],
    seed: int | None,
    tests: list[list[str]] | None = None,
) -> SplitFile:
    """The content of a split file, with its hash. `tests`: for each fold, its own test videos."""
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
    if tests is not None:
        content["format"], content["tests"] = FORMAT_WITH_TESTS, tests
    content["hash"] = digest(content)
    return content


def write_splits(path: str | os.PathLike, content: SplitFile) -> None:
    """Writes a split file, one value per line."""
    write_text(path, json.dumps(content, indent=0, separators=(",", ":")) + "\n")


def read_content(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a split file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a split file, or changed since it was written.
    """
    content = load_json(path)
    if not isinstance(content, dict) or content.get("format") not in (FORMAT, FORMAT_WITH_TESTS):
        raise ValueError(f"{path}: not a split file (written by `actionformer-nt splits`)")
    shape = {"hash": str, "kind": str, "ratios": list, "label_ids": dict, "videos": list, "orders": list}
    if content["format"] == FORMAT_WITH_TESTS:
        shape["tests"] = list
    if wrong := sorted(key for key, kind in shape.items() if not isinstance(content.get(key), kind)):
        raise ValueError(f"{path}: not a split file: {wrong} missing, or of another type")
    lists = [*content["orders"], *content.get("tests", [])]
    if not content["videos"] or not content["orders"] or not all(isinstance(part, list) for part in lists):
        raise ValueError(f"{path}: not a split file: it holds no video, or no fold")
    if content["hash"] != digest(content):
        raise ValueError(f"{path}: its content does not fit its hash: it was changed after it was made")
    if content["format"] == FORMAT_WITH_TESTS:
        _check_tests(path, content["videos"], content["orders"], content["tests"])
    return content


def _check_tests(path: str | os.PathLike, videos: list[str], orders: list[list[str]], tests: list[list[str]]) -> None:
    """Raises ValueError unless every fold has test videos, which are among the videos and never labeled."""
    if len(tests) != len(orders):
        raise ValueError(f"{path}: {len(orders)} folds, but test videos of {len(tests)}")
    for fold, (order, test) in enumerate(zip(orders, tests, strict=True)):
        if not test:
            raise ValueError(f"{path}: fold {fold} has no test video")
        if both := sorted(set(order) & set(test)):
            raise ValueError(f"{path}: fold {fold} labels {len(both)} of its test videos, the first is '{both[0]}'")
        if unknown := sorted(set(test) - set(videos)):
            raise ValueError(f"{path}: fold {fold} tests {len(unknown)} unknown videos, the first is '{unknown[0]}'")


def digest(content: Mapping[str, object]) -> str:
    """Hash of all keys but `hash`."""
    body = {key: value for key, value in content.items() if key != "hash"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
