"""Checkpoints of semi-supervised runs."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from torch import Tensor

from libs.core import distributed
from libs.core.seeding import generator_state, set_generator_state
from libs.training import resume
from libs.training.checkpoint import Checkpoint, load_checkpoint

from .curves import Records
from .made_with import MadeWith, check_made_with, made_with
from .setup import SemiRun
from .stage_start import restart_schedule
from .teacher import TeacherState
from .watch import WatchState


class SemiCheckpoint(Checkpoint, TeacherState):
    """A checkpoint of a semi-supervised run."""

    iteration: int  # completed iterations
    rng_state: Tensor  # torch's generators in the main process
    rng_states: list[Tensor]  # torch's generators in every process
    record_sums: list[dict[str, float]]  # per process: sums over the iterations since the last record
    watch: WatchState | None
    split_hash: str
    made_with: MadeWith


def checkpoint_of(run: SemiRun, iteration: int, records: Records) -> SemiCheckpoint:
    """The state of a run after `iteration` iterations: ActionFormer's keys (the teacher is `state_dict_ema`), and what
    an exact resume needs."""
    teacher: TeacherState = {"unlabeled": None, "frozen_teacher": None}
    if run.teacher is not None and iteration > run.stages.burn_in:
        teacher = run.teacher.state()
    return {
        **resume.training_state(iteration, run.updater, run.ema),
        **teacher,
        "iteration": iteration,
        "rng_state": generator_state(),
        "rng_states": distributed.gather(generator_state()),
        "record_sums": distributed.gather(dict(records.sums)),
        "watch": None if records.watch is None else records.watch.state(),
        "split_hash": run.split.hash,
        "made_with": made_with(run.split, run.semi, iteration),
    }


def restore(path: Path, run: SemiRun, records: Records, *, burn_in: bool = False) -> int:
    """Restores a checkpoint of `checkpoint_of`. On a CPU, the run then continues bit for bit as if never interrupted.

    Args:
        burn_in: the checkpoint is `semi_cfg.burn_in_checkpoint`; else the run is resumed from it.

    Returns:
        The number of completed iterations.

    Raises:
        ValueError: the checkpoint is of supervised training, or made with another configuration (`check_made_with`).
    """
    state = cast(SemiCheckpoint, load_checkpoint(path))
    if "iteration" not in state:
        raise ValueError(f"{path}: not a checkpoint of semi-supervised training")
    check_made_with(path, state, run.split, run.semi, burn_in=burn_in)
    restart_schedule(run, run.stages.at(max(state["iteration"] - 1, 0)))
    record = state.get("made_with")
    resume.restore(
        path, run.updater, run.ema, iters_per_epoch=1, with_optimizer=not (burn_in and _begins_anew(run)),
        with_extra=record is None or record["method"] == run.semi.method,  # a burn-in may be another method's
    )  # fmt: skip
    records.restore(state.get("record_sums", []))
    if records.watch is not None and (watch_state := state.get("watch")):
        records.watch.load_state(watch_state)
    if run.teacher is not None:
        run.teacher.load_state(state)
    if len(state.get("rng_states", [0])) == distributed.world_size() > 1:
        set_generator_state(state["rng_states"][distributed.rank()])
    else:
        set_generator_state(state["rng_state"])
    return state["iteration"]


def _begins_anew(run: SemiRun) -> bool:
    """Whether self-training begins with a new optimizer."""
    first, total = run.stages.burn_in, run.stages.total
    return first < total and run.stages.at(first).options.schedule == "own"
