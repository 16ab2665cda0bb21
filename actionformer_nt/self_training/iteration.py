"""One iteration of semi-supervised training: the losses of its videos."""

from __future__ import annotations

import torch
from torch import Tensor

from libs.core.registry import SELF_TRAINING
from libs.core.seeding import derive_seed, seed_model
from libs.datasets.video import VideoItem

from .criterion import ramp
from .curves import with_prefix
from .setup import SemiRun
from .stages import IterationVideos
from .teacher import Lesson


class Iteration:
    """The losses of one iteration, part by part where `train_cfg.accumulate` cuts the batch.

    Args:
        number: of the iteration, from 0.
        labeled: the view of the labeled videos that the student sees.

    Attributes:
        lesson: what the teacher said; None before self-training.
        projected: pseudo segments that are left in the student's views.
    """

    def __init__(self, run: SemiRun, number: int, labeled: list[VideoItem], videos: IterationVideos) -> None:
        self.run, self.number, self.labeled, self.videos = run, number, labeled, videos
        self.lesson: Lesson | None = None
        self.projected = 0

    def losses_of(self, k: int) -> dict[str, Tensor]:
        """Of part k, with `final_loss`."""
        run, parts = self.run, self.run.config["train_cfg"]["accumulate"]
        if self.videos.pretext:
            return self._pretext(self.videos.pretext[k::parts], k)
        losses = run.model(self.labeled[k::parts])
        total, named = losses["final_loss"], with_prefix("labeled", losses)
        if self.videos.unlabeled and run.teacher is not None:
            if self.lesson is None:  # after the labeled videos of the first part, whose normaliser it starts from
                self.lesson = run.teacher.teach(self.videos.unlabeled, self.number)
            part = self.lesson.part(k, parts)
            losses, projected = run.teacher.self_training.losses(
                run.model, part.weak, part.strong, part.geometries, part.pseudo, part.targets
            )
            self.projected += projected
            weight = run.semi.alpha * ramp(self.number - run.stages.burn_in, run.semi.ramp_up)
            total = total + weight * losses["loss"]
            named |= with_prefix("unlabeled", losses)
        return named | {"final_loss": total}

    def _pretext(self, videos: list[VideoItem], k: int) -> dict[str, Tensor]:
        """Pretraining learns from labeled and unlabeled videos alike, without any label."""
        run = self.run
        seed = derive_seed(run.seed, self.number, "pretext", *([k] if k else []))
        seed_model(seed)
        self_training = SELF_TRAINING.get(run.config["model_name"])
        losses = self_training.pretext_losses(run.model, videos, torch.Generator().manual_seed(seed))
        return with_prefix("pretext", losses) | {"final_loss": losses["final_loss"]}
