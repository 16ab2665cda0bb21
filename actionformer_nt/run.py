"""`train` and `evaluate` of the public interface: whole runs, supervised or semi-supervised."""

from __future__ import annotations

import os
from pathlib import Path

from actionformer_nt.protocol.split_record import read_tested
from actionformer_nt.protocol.splits import Split, split_of, tested_note
from actionformer_nt.self_training.schedules import opt_of
from actionformer_nt.self_training.setup import SemiRun, set_up
from actionformer_nt.self_training.trainer import SemiTrainer
from actionformer_nt.snapshots.embeddings import write_embeddings
from actionformer_nt.snapshots.write import SnapshotWriter
from libs.core import distributed, load_config
from libs.core.interrupts import stop_requests
from libs.core.lock import locked
from libs.core.types import Config
from libs.datasets.labels import label_ids
from libs.evaluation.run import Evaluation
from libs.evaluation.run import evaluate as evaluate_checkpoint
from libs.training import run as supervised
from libs.training.run_folder import (
    BURN_IN,
    LAST,
    LOCK,
    SAMPLES,
    check_folder,
    clear_folder,
    resume_point,
    write_run_info,
)
from libs.training.run_identity import check_classes, describe_data, read_label_ids

__all__ = ["BURN_IN", "evaluate", "train"]


def train(
    config: Config | str | os.PathLike,
    folder: str | os.PathLike,
    *,
    resume: str | Path | None = None,
    overwrite: bool = False,
    diagnostic: bool = False,
    print_freq: int = 10,
    ckpt_freq: int = 5,
    progress: bool = True,
) -> Path:
    """Trains a detector: semi-supervised if the configuration has a section `semi_cfg`, else supervised.

    Args:
        config: path of a configuration file, or a resolved configuration (see `load_config`), which is not changed.
        folder: run folder; must not hold a run already unless `resume` or `overwrite` is given.
        resume: checkpoint or run folder to resume from; the result is the same as without the interruption.
        overwrite: delete the run that the folder holds.
        diagnostic: allow the method that uses hidden labels.
        print_freq, ckpt_freq: supervised training only: iterations from one log line to the next, and epochs from one
            numbered checkpoint to the next.
        progress: show a progress bar (on a terminal only).

    Returns:
        The run folder, with `config.yaml`, `run.json`, `metrics.jsonl`, TensorBoard's `logs/` and `last.pth.tar`
        (weights: `state_dict`; averaged weights, the teacher: `state_dict_ema`).

    Raises:
        ValueError, FileNotFoundError: an error in the configuration or the data; names file, key or video.
        CollapseError: pseudo labels left the labeled range, and `semi_cfg.on_collapse` is `stop`.
    """
    config = _resolved(config)
    if "semi_cfg" in config:
        return _train_semi(config, Path(folder), resume, overwrite, diagnostic=diagnostic, progress=progress)
    return supervised.train(
        config, Path(folder), resume=resume, overwrite=overwrite,
        print_freq=print_freq, ckpt_freq=ckpt_freq, progress=progress,
    )  # fmt: skip


def _resolved(config: Config | str | os.PathLike) -> Config:
    if not isinstance(config, dict):
        return load_config(config)
    if "init_rand_seed" not in config or "train_cfg" not in config.get("model", {}):
        raise ValueError("config: a dict without its defaults; pass the file, or the result of load_config")
    return config


def _train_semi(
    config: Config, path: Path, resume: str | Path | None, overwrite: bool, *, diagnostic: bool, progress: bool
) -> Path:
    if distributed.is_main():
        check_folder(path, resume=resume, overwrite=overwrite)
    run = set_up(config, diagnostic=diagnostic)
    own_folder = distributed.own_folder(path)
    trainer = SemiTrainer(run, observer=SnapshotWriter(own_folder / SAMPLES))
    resumed = _restore(trainer, run, resume)
    with locked(own_folder, LOCK), stop_requests() as stop:
        if resume is None and overwrite and distributed.is_main():
            clear_folder(own_folder)
        labeled = run.stages.labeled
        write_run_info(
            run.config, own_folder, label_ids=label_ids(labeled), data=describe_data(run.config, labeled),
            resumed=resumed,
        )  # fmt: skip
        trainer.train(own_folder, stop=stop, progress=progress)
        distributed.from_main(None)  # the main process has written everything
    return path


def _restore(trainer: SemiTrainer, run: SemiRun, resume: str | Path | None) -> Path | None:
    """Restores the checkpoint to resume from, or `semi_cfg.burn_in_checkpoint`.

    Returns:
        Folder of the run to resume; None for a new run.
    """
    if resume is not None:
        start_from = resume_point(resume)
        _check_classes(run.split, start_from.parent)
        trainer.restore(start_from)
        return start_from.parent
    if run.semi.burn_in_checkpoint:
        trainer.restore(Path(run.semi.burn_in_checkpoint), burn_in=True)
        if trainer.iteration:
            rate = opt_of(run.config, run.stages.at(trainer.iteration - 1))["learning_rate"]
            run.updater.scheduler.set_rate(rate)  # that of this run, not of the burn-in's
    return None


def _check_classes(split: Split, folder: Path) -> None:
    """Raises ValueError if a split file has other classes than the run in `folder`."""
    if known := read_label_ids(folder):
        check_classes(split.label_ids, known, what=f"split {split.source}", source=f"the run {folder}")


def evaluate(
    config: Config | str | os.PathLike, folder: str | os.PathLike, *, progress: bool = True
) -> dict[str, Evaluation]:
    """Evaluates a finished run on `val_split`, without reading hidden labels.

    Args:
        config: see `train`.
        folder: run folder.
        progress: show a progress bar (on a terminal only).

    Returns:
        Results by name: `student` and `teacher` (averaged weights) of a semi-supervised run, else `model` (averaged
        weights).
    """
    config = _resolved(config)
    if "semi_cfg" not in config:
        return {"model": evaluate_checkpoint(config, Path(folder), progress=progress)}
    split = split_of(config)
    _check_classes(split, Path(folder))
    annotations = read_tested(config, split, folder)
    checkpoint = Path(folder) / LAST
    evaluations = {
        name: evaluate_checkpoint(
            config, checkpoint, weights=weights, annotations=annotations, noted=tested_note(split), progress=progress
        )
        for name, weights in (("student", "raw"), ("teacher", "ema"))
    }
    if distributed.is_main():
        write_embeddings(config, checkpoint, annotations)
    return evaluations
