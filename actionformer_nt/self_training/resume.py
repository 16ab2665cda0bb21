"""Checkpoints of semi-supervised runs."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from libs.core import distributed
from libs.training import resume
from libs.training.checkpoint import Checkpoint, load_checkpoint

from .curves import Records
from .setup import SemiRun
from .stage_start import restart_schedule
from .teacher import TeacherState
from .watch import WatchState


class SemiCheckpoint(Checkpoint, TeacherState):
    """A checkpoint of a semi-supervised run."""

    iteration: int  # completed iterations
    rng_state: Tensor  # torch's generator in the main process
    rng_states: list[Tensor]  # torch's generator in every process
    record_sums: list[dict[str, float]]  # per process: sums over the iterations since the last record
    watch: WatchState | None
    split_hash: str


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
        "rng_state": torch.get_rng_state(),
        "rng_states": distributed.gather(torch.get_rng_state()),
        "record_sums": distributed.gather(dict(records.sums)),
        "watch": None if records.watch is None else records.watch.state(),
        "split_hash": run.split.hash,
    }


def restore(path: Path, run: SemiRun, records: Records) -> int:
    """Restores a checkpoint of `checkpoint_of`. On a CPU, the run then continues bit for bit as if never interrupted.

    Returns:
        The number of completed iterations.

    Raises:
        ValueError: the checkpoint is of supervised training, or of another split.
    """
    state = cast(SemiCheckpoint, load_checkpoint(path))
    if "iteration" not in state:
        raise ValueError(f"{path}: not a checkpoint of semi-supervised training")
    if state["split_hash"] != run.split.hash:
        raise ValueError(f"{path}: made with another split file than {run.split.source}")
    restart_schedule(run, run.stages.at(max(state["iteration"] - 1, 0)))
    resume.restore(path, run.updater, run.ema, iters_per_epoch=1)
    records.restore(state.get("record_sums", []))
    if records.watch is not None and (watch_state := state.get("watch")):
        records.watch.load_state(watch_state)
    if run.teacher is not None:
        run.teacher.load_state(state)
    if len(state.get("rng_states", [0])) == distributed.world_size() > 1:
        torch.set_rng_state(state["rng_states"][distributed.rank()])
    else:
        torch.set_rng_state(state["rng_state"])
    return state["iteration"]
