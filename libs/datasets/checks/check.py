"""Checks all data that a configuration refers to."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from libs.core.types import Config, DatasetConfig
from libs.datasets import make_dataset
from libs.datasets.annotations import MIN_DURATION, UNUSED, read_annotations, with_subsets
from libs.datasets.features import FeatureFiles
from libs.datasets.presets import PRESETS, Preset

from .annotations import Labels, RawVideo, check_similar, scan_annotations
from .features import find_extra, scan_features
from .findings import DataCheck, Findings
from .on_grid import check_grid
from .sidecars import check_rows, with_sidecars


def check_data(
    config: Config,
    *,
    features: bool = True,
    full: bool = False,
    jobs: int = 4,
    progress: bool = False,
    own_subsets: Mapping[str, str] | None = None,
) -> DataCheck:
    """Checks annotations and feature files against each other and against a resolved configuration.

    Args:
        features: check the feature files.
        full: read all values instead of the headers only.
        jobs: files read in parallel.
        own_subsets: video id -> subset; replaces the file's; other videos are `UNUSED`.

    Returns:
        All findings; faulty data raises no exception.
    """
    check = DataCheck(Findings())
    findings, data = check.findings, config["dataset"]
    preset = PRESETS.get(config["dataset_name"], PRESETS["generic"])
    videos, labels = scan_annotations(data["json_file"], findings)
    if own_subsets is not None:
        videos = [replace(video, subset=own_subsets.get(video.id, UNUSED)) for video in videos]
    subsets = _subsets(config)
    used_ids = {v.id for v in videos if any(v.subset in names for names in subsets.values())}
    files = _feature_files(data, findings if features else None)
    if files is not None:
        own = with_sidecars([video for video in videos if video.id in used_ids], files, data, check)
        videos = own + [video for video in videos if video.id not in used_ids]
    splits = {name: [v for v in videos if v.subset in names] for name, names in subsets.items()}
    if videos or not findings.count("error"):
        _check_splits(config, videos, splits, findings)
        _check_classes(config, preset, splits, labels, findings)
        _check_times(data, preset, splits, findings)
    used = list({video.id: video for part in splits.values() for video in part}.values())
    steps = {}
    if features and files is not None:
        steps = _features(data, files, preset, videos, used, findings, full=full, jobs=jobs, progress=progress)
    check_grid(config, splits, steps, check)
    if features and used and not findings.count("error"):
        _check_loads(config, findings, own_subsets)
    return check


def _subsets(config: Config) -> dict[str, list[str]]:
    return {"train": config["train_split"], "val": config["val_split"]}


def _check_splits(
    config: Config, videos: list[RawVideo], splits: dict[str, list[RawVideo]], findings: Findings
) -> None:
    counts = Counter(video.subset for video in videos)
    for name, subsets in _subsets(config).items():
        for subset in subsets:
            if subset not in counts:
                findings.add("error", "no-videos", subset, f"{name}_split, but the file has {dict(counts)}")
    for subset in set(config["train_split"]) & set(config["val_split"]):
        findings.add("warning", "same-subset", subset, "for training and for evaluation")
    for name, part in splits.items():
        _check_events(f"{name}_split", part, findings)
    for video in {video.id: video for part in splits.values() for video in part}.values():
        if not video.labeled:
            findings.add(
                "note", "unlabeled", video.id, f"labeled: false ({video.subset})",
                advice="left out of supervised training and of evaluation; self-training may use it",
            )  # fmt: skip
        elif not video.events:
            findings.add("note", "no-events", video.id, f"nothing annotated ({video.subset}): all background")


def _check_events(split: str, videos: list[RawVideo], findings: Findings) -> None:
    """Adds an error if a split has no event to learn from or to evaluate."""
    if not videos:
        return  # reported by `_check_splits`
    events = [event for video in videos if video.labeled for event in video.events]
    if any(end - start >= MIN_DURATION for start, end, _ in events):
        return
    content = f"{len(events)} events, none of which has a length" if events else "no event"
    findings.add(
        "error", "nothing-to-learn" if split == "train_split" else "nothing-to-evaluate", split,
        f"{content} in {sum(v.labeled for v in videos)} labeled videos",
        advice="events stand under 'annotations' of each video, as {'segment': [start, end], 'label': name}",
    )  # fmt: skip


def _check_classes(
    config: Config, preset: Preset, splits: dict[str, list[RawVideo]], labels: Labels, findings: Findings
) -> None:
    count, numbers = config["dataset"]["num_classes"], labels.numbers()
    agnostic = preset.class_agnostic and count == 1
    if not agnostic:
        for name, number in numbers.items():
            if not 0 <= number < count:
                findings.add(
                    "error", "label-outside", name, f"label_id {number} is not in [0, dataset.num_classes={count})",
                    advice=f"dataset.num_classes: {max(numbers.values()) + 1}, ids from 0",
                )  # fmt: skip
        unused = sorted(set(range(count)) - set(numbers.values()))
        if unused:
            findings.add(
                "error" if preset.all_classes else "note", "class-without-label", f"label_id {unused[0]}",
                f"{len(unused)} of dataset.num_classes={count} have no label: {unused[:10]}",
                advice=f"dataset.num_classes: {len(set(numbers.values()))}" if preset.all_classes and numbers else "",
            )  # fmt: skip
    seen = {name: Counter(event[2] for video in part for event in video.events) for name, part in splits.items()}
    check_similar(labels, {f"{name}_split": dict(events_of) for name, events_of in seen.items()}, findings)
    for label in sorted(labels.first):
        for name, other in (("train", "val"), ("val", "train")):
            if splits[name] and not seen[name][label] and seen[other][label]:
                findings.add(
                    "warning", "absent-class", label,
                    f"{seen[other][label]} events in {other}_split, none in {name}_split",
                    advice="it cannot be learned, or not be measured",
                )  # fmt: skip


def _check_times(data: DatasetConfig, preset: Preset, splits: dict[str, list[RawVideo]], findings: Findings) -> None:
    for video in (video for part in splits.values() for video in part):
        if video.fps is None and data["default_fps"] is None and "fps" not in _faulty(findings, video.id):
            findings.add("error", "no-fps", video.id, "no 'fps'", advice="add it, or set dataset.default_fps")
        if video.duration is None and "duration" not in _faulty(findings, video.id):
            level = "error" if preset.default_duration is None else "warning"
            findings.add(level, "no-duration", video.id, "no 'duration' (seconds): detections are not clipped to it")


def _faulty(findings: Findings, video_id: str) -> set[str]:
    """Which of "fps" and "duration" have an invalid value in this video."""
    kinds = (kind for kind in ("fps", "duration") if kind in findings)
    return {kind for kind in kinds if any(where == video_id for where, _ in findings[kind].places)}


def _feature_files(data: DatasetConfig, findings: Findings | None) -> FeatureFiles | None:
    """The feature files, if there are any; else a finding, where findings are wanted."""
    try:
        return FeatureFiles(
            data["feat_folder"], prefix=data["file_prefix"], ext=data["file_ext"], channels=data["input_dim"]
        )
    except (ValueError, OSError) as error:
        if findings is not None:
            findings.add("error", "feature-folder", str(data["feat_folder"]), str(error))
        return None


def _features(
    data: DatasetConfig, files: FeatureFiles, preset: Preset, videos: list[RawVideo], used: list[RawVideo],
    findings: Findings, **options: Any,
) -> dict[str, int]:  # fmt: skip
    """Checks the feature files; returns video id -> number of steps of the readable ones."""
    policy = data["missing_features"] or preset.missing_features
    level = "error" if policy == "error" else "warning"
    try:
        steps = scan_features(files, [video.id for video in used], findings, missing=level, **options)
        check_rows(files, steps, findings)
        if videos:
            find_extra(files, {video.id for video in videos}, findings)
    except (ValueError, OSError) as error:
        findings.add("error", "feature-folder", str(data["feat_folder"]), str(error))
        return {}
    return steps


def _check_loads(config: Config, findings: Findings, own_subsets: Mapping[str, str] | None) -> None:
    """Builds the data sets, in case the other checks missed a problem."""
    logger = logging.getLogger("libs")
    level = logger.level
    logger.setLevel(logging.ERROR)  # its warnings are already among the findings
    given = {}
    try:
        if own_subsets is not None:
            annotations = read_annotations(config["dataset"]["json_file"])
            given = {"annotations": with_subsets(annotations, own_subsets)}
        for name, subsets in _subsets(config).items():
            try:
                make_dataset(config["dataset_name"], name == "train", subsets, **config["dataset"], **given)
            except (ValueError, OSError) as error:
                findings.add("error", "cannot-be-read", f"{name}_split", str(error))
    finally:
        logger.setLevel(level)
