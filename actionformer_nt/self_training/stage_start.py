"""The start of a stage: weights of teacher and student, optimizer and schedule, stored pseudo labels."""

from __future__ import annotations

from pathlib import Path

import torch

from libs.core.seeding import derive_seed
from libs.modeling import make_meta_arch
from libs.training.checkpoint import load_state
from libs.training.optim import make_optimizer

from .schedules import opt_of, schedule_of
from .setup import SemiRun, make_modules
from .stages import Stage
from .stored_labels import stored_labels


def begin(run: SemiRun, stage: Stage, iteration: int, folder: Path) -> None:
    """Begins a stage at its first iteration, or goes on with it after a resume.

    At the first iteration the teacher takes its weights from the stage before. Then, as the stage says, the student
    gets new weights, and optimizer and schedule begin anew. Without a teacher (`labeled_only`) a round has nothing to
    train new weights with but what the student knows already, so it keeps them.

    Args:
        folder: run folder, for stored pseudo labels.
    """
    teacher = run.teacher if stage.options.learn == "pseudo" else None
    if teacher is not None:
        teacher.begin(stage, iteration)
    if iteration == stage.start > 0:
        if stage.options.student == "fresh" and (teacher is not None or stage.options.learn != "pseudo"):
            _renew_student(run, stage)
        if stage.options.schedule == "own":
            restart_schedule(run, stage)
    if teacher is not None:
        stores = stage.options.labels == "stored" and teacher.method.has_lessons
        teacher.stored = stored_labels(run, stage, folder) if stores else None


def restart_schedule(run: SemiRun, stage: Stage) -> None:
    """Gives the run a new optimizer, at the beginning of the schedule of a stage."""
    run.updater.optimizer = make_optimizer(run.model, opt_of(run.config, stage))
    run.updater.scheduler = schedule_of(run.config, run.updater.optimizer, stage)


def _renew_student(run: SemiRun, stage: Stage) -> None:
    """Gives the student and the method's modules new weights, and with them their average, and the initial loss
    normaliser."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(run.seed, stage.number, "student"))
        new = make_meta_arch(run.config["model_name"], **run.config["model"])
    load_state(run.model, new.state_dict())
    method = None if run.teacher is None else run.teacher.method
    if method is not None and (modules := make_modules(run.config, method, "modules", stage.number)) is not None:
        run.model.method_modules.load_state_dict(modules.state_dict())
        method.renew()
    run.model.loss_normalizer = new.loss_normalizer
    run.ema.set(run.model)
