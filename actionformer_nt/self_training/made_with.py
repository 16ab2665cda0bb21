"""What a checkpoint says about the run that made it, and whether another run may go on from it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypedDict, cast

from actionformer_nt.config import SemiSection, semi_section
from actionformer_nt.protocol.split_record import SplitRecord, name_of, older_record, record_of
from actionformer_nt.protocol.splits import Split
from actionformer_nt.stage_sections import StageSection
from libs.core import read_yaml
from libs.training.run_identity import CONFIG

from .stages import place

logger = logging.getLogger(__name__)


class StageRecord(TypedDict):
    """A stage and its learning-rate schedule."""

    options: dict[str, object]  # `StageSection` as plain data
    schedule: list[int]  # iterations at which it begins and ends
    warmup: int  # iterations


class MadeWith(TypedDict):
    """The entry `made_with` of a checkpoint, plain data."""

    split: SplitRecord
    method: str
    stages: list[StageRecord]  # those that have begun, in order


def made_with(split: Split, semi: SemiSection, iteration: int) -> MadeWith:
    """The entry of a run after `iteration` iterations."""
    return {"split": record_of(split), "method": semi.method, "stages": stages_begun(semi, iteration)}


def stages_begun(semi: SemiSection, iteration: int) -> list[StageRecord]:
    """The stages of a run that have begun before it has completed `iteration` iterations."""
    return [
        {
            "options": stage.options.model_dump(mode="json"),
            "schedule": [stage.schedule_start, stage.schedule_end],
            "warmup": stage.warmup,
        }
        for stage in place(semi)
        if stage.start < iteration
    ]


def check_made_with(path: Path, state: Mapping[str, object], split: Split, semi: SemiSection, *, burn_in: bool) -> None:
    """Checks that a run may go on from a checkpoint.

    Labeled videos, the split's own test videos, and classes must be those of the run, and so must all stages that have
    begun, with their schedules. To resume, so must method and unlabeled videos. A burn-in may be made by another
    method; after pretext tasks, which use them, the unlabeled videos must be the same. Warns if a checkpoint does not
    say what it was made with.

    Args:
        path: the checkpoint, for messages; `state` is its content.
        burn_in: the checkpoint is `semi_cfg.burn_in_checkpoint`; else the run is resumed from it.

    Raises:
        ValueError: it may not; says what was found, what was expected, and what to do.
    """
    iteration, total = cast(int, state["iteration"]), sum(stage.iterations for stage in semi.plan())
    length = sum(stage.iterations for stage in semi.plan() if stage.learn != "pseudo")
    if burn_in and iteration != length:
        raise ValueError(
            f"{path}: after {iteration} iterations, but the burn-in of this run has {length}; make a burn-in with the "
            "stages of this run, or give this run those of the burn-in"
        )
    if iteration > total:
        raise ValueError(
            f"{path}: after {iteration} iterations, but this run has {total}; resume with the configuration that it "
            "was started with, or begin a new run"
        )
    found = cast("MadeWith | None", state.get("made_with")) or _of_older(path, state, split)
    if found is None:
        logger.warning(
            "%s does not say which videos were labeled and which stages were run, and there is no %s beside it that "
            "does: make sure that they are those of this run", path, CONFIG,
        )  # fmt: skip
        return
    expected = made_with(split, semi, iteration)
    if wrong := list(_differences(found, expected, burn_in=burn_in)):
        advice = (
            "use a burn-in of the same fold, ratio and stages, or leave out semi_cfg.burn_in_checkpoint"
            if burn_in
            else "resume with the configuration that it was started with, or begin a new run"
        )
        raise ValueError(f"{path}: made with another configuration than this run: {'; '.join(wrong)}. {advice}")


def _differences(found: MadeWith, expected: MadeWith, *, burn_in: bool) -> Iterator[str]:
    """What a checkpoint has, and what was expected."""
    pretext = any(stage["options"]["learn"] == "pretext" for stage in expected["stages"])
    what = {"labeled": "labeled videos", "test": "test videos", "classes": "classes"}
    if pretext or not burn_in:
        what["unlabeled"] = "unlabeled videos"
    one, two = found["split"], expected["split"]
    for key, name in what.items():
        if one.get(key) != two.get(key):
            a, b = (record.get(key) or "those of val_split" for record in (one, two))
            yield f"{name}: {a} of {name_of(one)}, expected {b} of {name_of(two)}"
    if not burn_in and found["method"] != expected["method"]:
        yield f"method: {found['method']}, expected {expected['method']}"
    if len(found["stages"]) != len(expected["stages"]):
        yield f"stages: {len(found['stages'])} have begun, expected {len(expected['stages'])}"
    for number, pair in enumerate(zip(found["stages"], expected["stages"], strict=False), start=1):
        yield from (f"stage {number}: {difference}" for difference in _of_stage(*pair))


def _of_stage(found: StageRecord, expected: StageRecord) -> Iterator[str]:
    defaults = StageSection(learn="labeled", iterations=1).model_dump(mode="json")  # for keys that came later
    one, two = (defaults | record["options"] for record in (found, expected))
    for key in ("learn", *(two.keys() - {"learn", "repeat"})):
        if one[key] != two[key]:
            yield f"{key}: {one[key]}, expected {two[key]}"
    for key, what in (("schedule", "iterations of its schedule"), ("warmup", "warm-up")):
        if found[key] != expected[key]:  # type: ignore[literal-required]
            yield f"{what}: {found[key]}, expected {expected[key]}"  # type: ignore[literal-required]


def _of_older(path: Path, state: Mapping[str, object], split: Split) -> MadeWith | None:
    """The entry of a checkpoint without it, from the configuration beside it; None without one that can be read."""
    if state["split_hash"] != split.hash:
        raise ValueError(f"{path}: made with another split file than {split.source}")
    try:
        raw = read_yaml(path.parent / CONFIG)
        semi = semi_section(raw)  # type: ignore[arg-type]
        record = older_record(raw["semi_cfg"]["split"], split.hash, split)
    except (ValueError, OSError, KeyError):
        return None
    iteration = cast(int, state["iteration"])
    return None if record is None else {"split": record, "method": semi.method, "stages": stages_begun(semi, iteration)}
