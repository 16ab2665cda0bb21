"""Stages of a run, and the videos of every iteration (`semi_cfg.stages`).

A stage learns pretext tasks on all videos, without labels; the labels of the labeled videos (burn-in); or these and the
pseudo labels of the unlabeled videos (self-training).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from actionformer_nt.config import SemiSection, semi_section
from actionformer_nt.stage_sections import StageOptSection, StageSection
from libs.core.interrupts import StopRequest
from libs.core.seeding import seed_model
from libs.core.types import Config
from libs.datasets.dataset import TALDataset
from libs.datasets.video import VideoItem
from libs.training.epoch import until_stopped

from .batches import IterationBatches, iteration_loader


@dataclass(frozen=True)
class Stage:
    """A stage with its place in the run."""

    number: int  # from 1, in the order of the run
    options: StageSection
    start: int  # iteration before which it begins
    end: int  # iteration at which it ends
    schedule_start: int  # iteration at which its learning-rate schedule begins
    schedule_end: int
    opt: StageOptSection  # optimizer of its schedule
    warmup: int  # iterations of the warm-up of its schedule

    def refreshes(self, iteration: int) -> bool:
        """Whether the teacher gets new weights before an iteration of the stage, except its first."""
        passed = iteration - self.start
        return self.options.teacher == "refreshed" and passed > 0 and passed % self.options.refresh_every == 0


def place(semi: SemiSection) -> list[Stage]:
    """The stages of `SemiSection.plan` with their places."""
    plan = semi.plan()
    ends = [sum(options.iterations for options in plan[: k + 1]) for k in range(len(plan))]
    stages = []
    for k, options in enumerate(plan):
        first, last = k, k
        while plan[first].schedule == "continued":
            first -= 1
        while last + 1 < len(plan) and plan[last + 1].schedule == "continued":
            last += 1
        begin = ends[first] - plan[first].iterations
        start = ends[k] - options.iterations
        opt = plan[first].opt
        warmup = semi.warmup_iterations if opt.warmup_iterations is None else opt.warmup_iterations
        stages.append(Stage(k + 1, options, start, ends[k], begin, ends[last], opt, warmup))
    return stages


class IterationVideos(NamedTuple):
    """Videos of one iteration for this process. Lists that a stage does not use are empty."""

    pretext: list[VideoItem] = []
    labeled: list[VideoItem] = []
    unlabeled: list[VideoItem] = []


class Stages:
    """
    Args:
        config: resolved, with `semi_cfg`.
        labeled: labeled videos.
        unlabeled: unlabeled videos; None for the method `labeled_only`.
        every: labeled and unlabeled videos; None without pretext tasks.

    Attributes:
        stages: all stages in order.
        pretrained, burn_in, total: iterations at which pretext tasks, burn-in and self-training end.
    """

    def __init__(
        self, config: Config, *, labeled: TALDataset, unlabeled: TALDataset | None, every: TALDataset | None
    ) -> None:
        self.semi, self.loader, self.seed = semi_section(config), config["loader"], config["init_rand_seed"]
        self.labeled, self.unlabeled, self.every = labeled, unlabeled, every
        self.stages = place(self.semi)
        for stage in self.stages if self.semi.stages is not None else []:
            if stage.warmup > stage.schedule_end - stage.schedule_start:
                raise ValueError(
                    f"semi_cfg.stages: stage {stage.number}: {stage.warmup} iterations of warm-up, but its schedule "
                    f"has {stage.schedule_end - stage.schedule_start}; set its opt.warmup_iterations"
                )
        length = {"pretext": 0, "labeled": 0, "pseudo": 0}
        for stage in self.stages:
            length[stage.options.learn] += stage.options.iterations
        self.pretrained = length["pretext"]
        self.burn_in = self.pretrained + length["labeled"]
        self.total = self.burn_in + length["pseudo"]

    def at(self, iteration: int) -> Stage:
        """The stage of an iteration, 0 .. `total` - 1. Raises ValueError outside."""
        if not 0 <= iteration < self.total:
            raise ValueError(f"iteration {iteration}: in no stage of this run, which has {self.total} iterations")
        return next(stage for stage in self.stages if stage.start <= iteration < stage.end)

    def videos(self, start: int, stop: StopRequest) -> Iterator[IterationVideos]:
        """Yields the videos of iterations `start` .. `total` - 1, or of fewer if a stop is requested (`until_stopped`).

        Seeds dropout and drop path at the beginning of every epoch of the labeled videos.
        """
        if self.every is not None and start < self.pretrained:
            size = self.loader["batch_size"] + self.semi.unlabeled_batch_size
            for videos in self._stream(self.every, size, start, self.pretrained, stop, name="pretext"):
                yield IterationVideos(pretext=videos)
            if stop:
                return
        start = max(start, self.pretrained)
        labeled = self._stream(
            self.labeled, self.loader["batch_size"], start - self.pretrained, self.total - self.pretrained, stop
        )
        unlabeled: Iterator[list[VideoItem]] | None = None
        for iteration in range(start, self.total):
            epoch, position = divmod(iteration - self.pretrained, self.per_epoch)
            if position == 0:
                seed_model(self.seed, epoch)
            if self.unlabeled is not None and iteration >= self.burn_in and unlabeled is None:
                unlabeled = self._stream(
                    self.unlabeled, self.semi.unlabeled_batch_size, iteration - self.burn_in,
                    self.total - self.burn_in, stop, name="unlabeled",
                )  # fmt: skip
            try:
                yield IterationVideos(labeled=next(labeled), unlabeled=[] if unlabeled is None else next(unlabeled))
            except StopIteration:
                return

    @property
    def per_epoch(self) -> int:
        return max(len(self.labeled) // self.loader["batch_size"], 1)

    def _stream(
        self, dataset: TALDataset, batch_size: int, start: int, end: int, stop: StopRequest, *, name: str = ""
    ) -> Iterator[list[VideoItem]]:
        batches = IterationBatches(len(dataset), batch_size, self.seed, start=start, end=end, name=name)
        return until_stopped(iteration_loader(dataset, batches, self.loader["num_workers"]), stop)
