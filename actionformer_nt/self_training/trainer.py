"""The loop of semi-supervised training: burn-in on labeled videos, then self-training with an averaged teacher.

Every iteration has a supervised loss on a batch of labeled videos. After the burn-in, a loss on a batch of unlabeled
videos is added: the teacher makes pseudo labels on weak views, the method turns their class distributions into class
targets, and the student learns these on strong views.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from libs.core import distributed
from libs.core.interrupts import StopRequest
from libs.training.checkpoint import save_checkpoint
from libs.training.run_folder import BURN_IN, LAST
from libs.training.run_log import RunLog

from .curves import PseudoLabelCurves, Records
from .interface import Observer, Snapshot
from .iteration import Iteration
from .resume import checkpoint_of, restore
from .setup import SemiRun
from .stage_start import begin
from .stages import IterationVideos, Stage
from .views import labeled_view
from .watch import make_watch

logger = logging.getLogger(__name__)


class SemiTrainer:
    """Trains a semi-supervised run.

    Args:
        observer: called with a `Snapshot` at the start and after every iteration.
    """

    def __init__(self, run: SemiRun, *, observer: Observer) -> None:
        self.run, self.observer = run, observer
        self.iteration = 0
        self.stage: Stage | None = None  # None before the first iteration
        watch = (
            make_watch(run.config, run.stages.labeled, run.annotations.label_ids) if run.teacher is not None else None
        )
        self.records = Records(total=run.stages.total, watch=watch)
        self.curves: PseudoLabelCurves | None = None
        if run.teacher is not None:
            self.curves = PseudoLabelCurves(run.teacher.self_training, lam=run.semi.lam, hidden=run.shown, watch=watch)

    def train(self, folder: Path, *, stop: StopRequest, progress: bool = True) -> None:
        """Trains from the present iteration to the end of the run.

        Raises:
            KeyboardInterrupt: a stop was requested; a checkpoint has been written.
            CollapseError: the watch stops the run (`semi_cfg.on_collapse`), or had stopped it before the checkpoint
                that was restored; a checkpoint has been written.
        """
        run, start = self.run, self.iteration
        self._raise_collapse()
        with RunLog(folder, key="iteration", start=start, purge_step=start) as log:
            logger.info(
                "method %s: %d labeled and %d unlabeled videos; %d iterations of burn-in, %d of self-training, on %s; "
                "run folder %s", run.semi.method, len(run.stages.labeled), len(run.split.unlabeled),
                run.stages.burn_in, run.stages.total - run.stages.burn_in, run.model.device, folder,
            )  # fmt: skip
            if run.teacher is not None and (notice := run.teacher.notice):
                logger.info("%s", notice)
            self.records.begin(log, start)
            if start:
                self._enter(run.stages.at(start - 1), folder)
            self.observer(self.snapshot())
            videos = run.stages.videos(start, stop)
            for _ in tqdm(
                range(start, run.stages.total), initial=start, total=run.stages.total, desc=run.semi.method, unit="it",
                leave=False, disable=None if progress and distributed.is_main() else True,
            ):  # fmt: skip
                if distributed.in_any(bool(stop)) or (batch := next(videos, None)) is None:
                    self._stop(stop, folder)
                self._enter(run.stages.at(self.iteration), folder)
                self._keep(self.step(batch), folder)

    def _enter(self, stage: Stage, folder: Path) -> None:
        """Begins a stage or, after a resume, goes on with it; nothing if the run is in it already."""
        if stage is not self.stage:
            begin(self.run, stage, self.iteration, folder)
            self.stage = stage
            if self.records.watch is not None and self.iteration == stage.start:
                self.records.watch.clear()
            if self.iteration < stage.end:
                logger.info("iteration %d: %s", self.iteration, described(stage, len(self.run.stages.stages)))

    def step(self, videos: IterationVideos) -> dict[str, float]:
        """Makes one update. Returns the values that `Records.add` takes."""
        run = self.run
        run.model.train()
        labeled = videos.labeled
        if run.semi.labeled_view == "strong":
            labeled = [
                labeled_view(video, "strong", run.semi.strong, run.seed, self.iteration, backwards=run.backwards)
                for video in labeled
            ]
        learner = Iteration(run, self.iteration, labeled, videos)
        parts = run.config["train_cfg"]["accumulate"]
        losses = run.updater.update(
            learner.losses_of, range(parts), videos=videos.pretext + labeled + videos.unlabeled,
            epoch=0, iteration=self.iteration,
        )  # fmt: skip
        values = {name: value / distributed.world_size() for name, value in losses.items() if name != "final_loss"}
        if learner.lesson is not None and self.curves is not None:
            values |= self.curves.describe(learner.lesson, learner.projected, self.iteration)
        self.iteration += 1
        return values | {"count": 1.0 / distributed.world_size(), "videos": float(sum(map(len, videos)))}

    def snapshot(self) -> Snapshot:
        """State of the run for observers."""
        run, teacher = self.run, self.run.teacher
        return Snapshot(
            config=run.config, semi=run.semi, annotations=run.annotations, iteration=self.iteration,
            burn_in=run.stages.burn_in, total=run.stages.total, student=run.model,
            teacher=None if teacher is None else teacher.network,
            self_training=None if teacher is None else teacher.self_training,
            pseudo_labels=None if teacher is None else partial(teacher.pseudo_labels_of, iteration=self.iteration),
            unlabeled=run.stages.unlabeled, hidden=run.shown,
        )  # fmt: skip

    def _keep(self, values: dict[str, float], folder: Path) -> None:
        """Writes records and checkpoints after an iteration, and calls the observer."""
        run, semi, done = self.run, self.run.semi, self.iteration == self.run.stages.total
        self.records.add(values)
        if self.iteration % semi.log_every == 0 or done:
            self_trained = run.teacher is not None and self.iteration > run.stages.burn_in
            state = run.teacher.self_training.state() if run.teacher is not None and self_trained else {}
            state = {f"unlabeled/{name}": value for name, value in state.items() if isinstance(value, float)}
            self.records.write(self.iteration, {"lr": run.updater.scheduler.get_last_lr()[0]} | state)
        self.observer(self.snapshot())
        collapsed = self.records.watch is not None and self.records.watch.error is not None
        if done or self.iteration % semi.ckpt_every == 0 or collapsed:
            save_checkpoint(checkpoint_of(self.run, self.iteration, self.records), False, str(folder), LAST)
        if self.iteration == run.stages.burn_in < run.stages.total:
            save_checkpoint(checkpoint_of(self.run, self.iteration, self.records), False, str(folder), BURN_IN)
        self._raise_collapse()

    def _raise_collapse(self) -> None:
        """Raises CollapseError if the watch says that the run should end."""
        if self.records.watch is not None and (error := self.records.watch.error):
            raise error

    def _stop(self, stop: StopRequest, folder: Path) -> NoReturn:
        save_checkpoint(checkpoint_of(self.run, self.iteration, self.records), False, str(folder), LAST)
        logger.warning("stopped after iteration %d; go on with --resume %s", self.iteration, folder)
        raise stop.exception()

    def restore(self, path: Path, *, burn_in: bool = False) -> None:
        """Goes back to a checkpoint, see `resume.restore`."""
        self.iteration = restore(path, self.run, self.records, burn_in=burn_in)


def described(stage: Stage, stages: int) -> str:
    """A stage in one line, such as "stage 2 of 4: pseudo, 450 iterations, frozen teacher, stored labels, warm
    student"."""
    options = stage.options
    parts = [options.learn, f"{options.iterations} iterations"]
    if options.learn == "pseudo":
        parts += [f"{options.teacher} teacher", "stored labels" if options.labels == "stored" else "labels on views"]
    parts.append(f"{options.student} student")
    if options.schedule == "continued":
        parts.append("continued schedule")
    return f"stage {stage.number} of {stages}: {', '.join(parts)}"
