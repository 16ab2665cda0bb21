"""Checks of `check-data` for semi-supervised configurations: `semi_cfg` and its split file."""

from __future__ import annotations

from actionformer_nt.config import semi_section
from actionformer_nt.protocol.splits import Split, check_split, read_hidden, read_split, unlabeled_classes
from libs.core.types import Config
from libs.datasets.annotations import MIN_DURATION, Annotations
from libs.datasets.checks.findings import Findings

from .setup import check_config


def check_semi(config: Config, findings: Findings) -> None:
    """Adds to `findings` the problems that would keep a semi-supervised run from starting or from learning."""
    try:
        check_config(config, diagnostic=True)
    except ValueError as error:
        findings.add("error", "semi-cfg", "semi_cfg", str(error))
    split_options = semi_section(config).split
    try:
        split = read_split(split_options.file, split_options.ratio, split_options.fold)
        annotations = read_hidden(config["dataset"]["json_file"], split)
        check_split(config, annotations, split)
    except (ValueError, OSError) as error:
        findings.add("error", "split", split_options.file, str(error), advice="`actionformer-nt splits` makes one")
        return
    _check_labeled(config, annotations, split, findings)


def _check_labeled(config: Config, annotations: Annotations, split: Split, findings: Findings) -> None:
    labeled = [video for video in annotations.videos if video.id in set(split.labeled)]
    events = [event for video in labeled for event in video.events]
    if not any(event.end - event.start >= MIN_DURATION for event in events):
        problem = f"{len(events)} events, none of which has a length" if events else "no event"
        findings.add(
            "error", "nothing-to-learn", "labeled videos", f"{problem} in the {len(labeled)} labeled videos",
            advice="choose another fold, or label other videos",
        )  # fmt: skip
    for name in unlabeled_classes(annotations, split):
        findings.add(
            "warning", "class-not-labeled", name, "no labeled video has it",
            advice="it cannot be learned; `actionformer-nt splits --kind stratified` avoids that where it can",
        )  # fmt: skip
    trained = {*split.labeled, *split.unlabeled}
    tested = [v.id for v in annotations.videos if v.subset in config["val_split"] and v.id in trained]
    if tested:
        findings.add("warning", "trained-and-tested", tested[0], f"{len(tested)} videos of the split are in val_split")
