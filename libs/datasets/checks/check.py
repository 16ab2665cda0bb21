"""The whole check of the data that a configuration names."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from libs.datasets import make_dataset
from libs.datasets.annotations import MIN_DURATION
from libs.datasets.features import FeatureFiles
from libs.datasets.grid import GridRule
from libs.datasets.presets import PRESETS, Preset

from . import pyramid
from .annotations import Labels, RawVideo, check_similar, scan_annotations
from .features import find_extra, scan_features
from .findings import LEVELS, Findings
from .timing import VideoLength, check_ends, check_lengths


@dataclass
class DataCheck:
    findings: Findings
    facts: dict[str, Any] = field(default_factory=dict)  # plain numbers
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)  # by title

    def format(self) -> str:
        parts = [self.findings.format()]
        parts += [f"{title}\n{table.to_string(float_format='%.4g')}" for title, table in self.tables.items()]
        if self.facts:
            parts.append("\n".join(f"{name}: {value}" for name, value in self.facts.items()))
        counts = [f"{n} {level}{'' if n == 1 else 's'}" for level in LEVELS for n in [self.findings.count(level)]]
        return "\n\n".join([*parts, ", ".join(counts)])

    def to_dict(self) -> dict[str, Any]:
        tables = {title: table.reset_index().to_dict(orient="records") for title, table in self.tables.items()}
        return {"findings": self.findings.to_list(), "facts": self.facts, "tables": tables}


def check_data(
    config: dict[str, Any], *, features: bool = True, full: bool = False, jobs: int = 4, progress: bool = False
) -> DataCheck:
    """Checks annotations and feature files against each other and against a resolved configuration.

    Args:
        features: look at the feature files.
        full: read all of their numbers instead of their headers alone.
        jobs: files at a time.

    Returns:
        Everything that was found; nothing is raised for faulty data.
    """
    check = DataCheck(Findings())
    findings, data = check.findings, config["dataset"]
    preset = PRESETS.get(config["dataset_name"], PRESETS["generic"])
    videos, labels = scan_annotations(data["json_file"], findings)
    splits = {name: [v for v in videos if v.subset in config[f"{name}_split"]] for name in ("train", "val")}
    if videos or not findings.count("error"):
        _check_splits(config, videos, splits, findings)
        _check_classes(config, preset, splits, labels, findings)
        _check_times(data, preset, splits, findings)
    used = list({video.id: video for part in splits.values() for video in part}.values())
    steps = (
        _features(config, preset, videos, used, findings, full=full, jobs=jobs, progress=progress) if features else {}
    )
    _check_grid(config, preset, splits, steps, check)
    if features and used and not findings.count("error"):
        _check_loads(config, findings)
    return check


def _check_splits(
    config: dict[str, Any], videos: list[RawVideo], splits: dict[str, list[RawVideo]], findings: Findings
) -> None:
    there = Counter(video.subset for video in videos)
    for name in splits:
        for subset in config[f"{name}_split"]:
            if subset not in there:
                findings.add("error", "no-videos", subset, f"{name}_split, but the file has {dict(there)}")
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
    """A split must hold something to learn, or to evaluate."""
    if not videos:
        return  # a finding already
    events = [event for video in videos if video.labeled for event in video.events]
    if any(end - start >= MIN_DURATION for start, end, _ in events):
        return
    found = f"{len(events)} events, none of which has a length" if events else "no event"
    findings.add(
        "error", "nothing-to-learn" if split == "train_split" else "nothing-to-evaluate", split,
        f"{found} in {sum(v.labeled for v in videos)} labeled videos",
        advice="events stand under 'annotations' of each video, as {'segment': [start, end], 'label': name}",
    )  # fmt: skip


def _check_classes(
    config: dict[str, Any], preset: Preset, splits: dict[str, list[RawVideo]], labels: Labels, findings: Findings
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
    check_similar(labels, {f"{name}_split": dict(found) for name, found in seen.items()}, findings)
    for label in sorted(labels.first):
        for name, other in (("train", "val"), ("val", "train")):
            if splits[name] and not seen[name][label] and seen[other][label]:
                findings.add(
                    "warning", "absent-class", label,
                    f"{seen[other][label]} events in {other}_split, none in {name}_split",
                    advice="it cannot be learned, or not be measured",
                )  # fmt: skip


def _check_times(data: dict[str, Any], preset: Preset, splits: dict[str, list[RawVideo]], findings: Findings) -> None:
    for video in (video for part in splits.values() for video in part):
        if video.fps is None and data["default_fps"] is None and "fps" not in _faulty(findings, video.id):
            findings.add("error", "no-fps", video.id, "no 'fps'", advice="add it, or set dataset.default_fps")
        if video.duration is None and "duration" not in _faulty(findings, video.id):
            level = "error" if preset.default_duration is None else "warning"
            findings.add(level, "no-duration", video.id, "no 'duration' (seconds): detections are not clipped to it")


def _faulty(findings: Findings, video_id: str) -> set[str]:
    """Keys of a video that were there and could not be read."""
    kinds = (kind for kind in ("fps", "duration") if kind in findings)
    return {kind for kind in kinds if any(where == video_id for where, _ in findings[kind].places)}


def _features(
    config: dict[str, Any], preset: Preset, videos: list[RawVideo], used: list[RawVideo], findings: Findings, **how: Any
) -> dict[str, int]:
    data = config["dataset"]
    try:
        files = FeatureFiles(
            data["feat_folder"], prefix=data["file_prefix"], ext=data["file_ext"], channels=data["input_dim"]
        )
        policy = data["missing_features"] or preset.missing_features
        level = "error" if policy == "error" else "warning"
        steps = scan_features(files, [video.id for video in used], findings, missing=level, **how)
        if videos:
            find_extra(files, {video.id for video in videos}, findings)
    except (ValueError, OSError) as error:
        findings.add("error", "feature-folder", str(data["feat_folder"]), str(error))
        return {}
    return steps


def _check_grid(
    config: dict[str, Any], preset: Preset, splits: dict[str, list[RawVideo]], steps: dict[str, int], check: DataCheck
) -> None:
    """Everything that is counted in grid steps."""
    data, findings = config["dataset"], check.findings
    rule = GridRule(**{key: data[key] for key in GridRule.__dataclass_fields__})
    fps = {v.id: data["default_fps"] or v.fps for part in splits.values() for v in part}
    known = [v for part in splits.values() for v in part if v.duration and fps[v.id]]
    if rule.regular:
        lengths = [VideoLength(v.id, steps[v.id], v.duration, fps[v.id]) for v in known if v.id in steps]
        check_lengths(lengths, findings, stride=data["feat_stride"], num_frames=data["num_frames"])
        ends = {v.id: max((stop for _, stop, _ in v.events), default=0.0) for v in known}
        check_ends(lengths, ends, findings)
    grids = {}
    for video in known:
        count = steps.get(video.id)
        if count is None and rule.regular:
            count = max(round((video.duration * fps[video.id] - data["num_frames"]) / data["feat_stride"]) + 1, 1)
        if count is None:
            continue
        try:
            grids[video.id] = rule.grid(video.id, count, video.duration * fps[video.id])
        except ValueError as error:
            findings.add("error", "too-long", video.id, str(error))
    for video in known:
        if video.id in steps and video.id in grids and "timing" not in findings:
            grid = grids[video.id]
            end = ((grid.length - 1) * grid.stride + grid.num_frames) / fps[video.id]
            for start, stop, name in video.events:
                if start >= end or stop <= 0:
                    findings.add(
                        "warning", "beyond-features", video.id,
                        f"'{name}' [{start:g}, {stop:g}] begins after the features end ({end:.1f} s)",
                    )  # fmt: skip
    _check_any_on_grid(splits["train"], grids, fps, findings)
    _summary(config, splits, fps, grids, check)


def _check_any_on_grid(videos: list[RawVideo], grids: dict[str, Any], fps: dict[str, Any], findings: Findings) -> None:
    """Some event of the training videos must lie where there are features."""
    found = [(v, event) for v in videos if v.labeled and v.id in grids for event in v.events]
    if found and not any(
        stop > 0 and start * fps[v.id] < (grids[v.id].length - 1) * grids[v.id].stride + grids[v.id].num_frames
        for v, (start, stop, _) in found
    ):
        findings.add(
            "error", "nothing-to-learn", "train_split",
            f"all {len(found)} events lie outside the features of their videos",
            advice="are segments in seconds, and fps, feat_stride and num_frames those of the features?",
        )  # fmt: skip


def _summary(
    config: dict[str, Any], splits: dict[str, list[RawVideo]], fps: dict[str, Any], grids: dict[str, Any],
    check: DataCheck,
) -> None:  # fmt: skip
    findings, model = check.findings, config["model"]
    for name, part in splits.items():
        check.facts[f"{name}_split"] = (
            f"{len(part)} videos, {sum(len(v.events) for v in part)} events, "
            f"{len({event[2] for v in part for event in v.events})} classes"
        )
    events = [(v.id, event[1] - event[0]) for part in splits.values() for v in part for event in v.events]
    if not events:
        return
    seconds = np.array([length for _, length in events])
    training = [(v.id, event[1] - event[0]) for v in splits["train"] for event in v.events]

    def in_steps(rows: list[tuple[str, float]]) -> tuple[np.ndarray, list[str]]:
        rows = [(v, length) for v, length in rows if v in grids]
        return np.array([length * fps[v] / grids[v].stride for v, length in rows]), [v for v, _ in rows]

    steps, where = in_steps(events)
    check.tables["length of events"] = pyramid.percentiles(seconds, steps if len(steps) else None)
    if not len(steps):
        return
    share = pyramid.check_short(steps, where, findings)
    check.facts["events shorter than two grid steps"] = pyramid.percent(share)
    steps, where = in_steps(training)
    has_pyramid = config["model_name"] == "LocPointTransformer"
    levels = 1
    if has_pyramid and len(steps):
        table = pyramid.check_pyramid(steps, where, findings, model=model, train_cfg=config["train_cfg"])
        check.tables["levels of the pyramid, and training events that can be learned there"] = table
        levels = pyramid.recommended_levels(steps, model)
        check.facts["levels"] = (
            f"{len(model['regression_range'])}; recommended {levels} (backbone_arch[2]: "
            f"{levels - 1 + model['fpn_start_level']})"
        )
    lengths = np.array([grids[v.id].length for v in splits["train"] if v.id in grids])
    if len(lengths) and not config["dataset"]["force_upsampling"]:
        now = config["dataset"]["max_seq_len"]
        multiple = pyramid.multiple_of(model, max(levels, model["backbone_arch"][2] + 1)) if has_pyramid else 1
        best = pyramid.recommended_length(lengths, multiple)
        check.facts["max_seq_len"] = (
            f"{now} holds {pyramid.percent(np.mean(lengths <= now))} of the training videos, {best} would hold "
            f"{pyramid.percent(np.mean(lengths <= best))} (longest {lengths.max()} steps)"
        )


def _check_loads(config: dict[str, Any], findings: Findings) -> None:
    """Whether the data sets can be made: the last word, should everything above have missed something."""
    logger = logging.getLogger("libs")
    level = logger.level
    logger.setLevel(logging.ERROR)  # its warnings are findings already
    try:
        for name, training in (("train_split", True), ("val_split", False)):
            try:
                make_dataset(config["dataset_name"], training, config[name], **config["dataset"])
            except (ValueError, OSError) as error:
                findings.add("error", "cannot-be-read", name, str(error))
    finally:
        logger.setLevel(level)
