"""Losses of one iteration of semi-supervised training."""

from __future__ import annotations

import torch
from torch import Tensor

from actionformer_nt.methods.evidence import ramp
from libs.core.seeding import derive_seed, seed_model
from libs.datasets.video import VideoItem

from .consistency import consistency_losses, pretext_losses
from .curves import with_prefix
from .interface import self_training_of
from .setup import SemiRun
from .stages import IterationVideos
from .teacher import UnlabeledBatch


class Iteration:
    """Losses of one iteration, for each of the `train_cfg.accumulate` parts of its batch.

    Args:
        number: number of the iteration, from 0.
        labeled: views of the labeled videos for the student.
        videos: all videos of the iteration.

    Attributes:
        lesson: pseudo labels and views of the unlabeled videos; None before self-training.
        projected: number of pseudo segments that are visible in the student's views so far.
    """

    def __init__(self, run: SemiRun, number: int, labeled: list[VideoItem], videos: IterationVideos) -> None:
        self.run, self.number, self.labeled, self.videos = run, number, labeled, videos
        self.lesson: UnlabeledBatch | None = None
        self.projected = 0

    def losses_of(self, k: int) -> dict[str, Tensor]:
        """Scalar losses of part k by name, with their weighted sum `final_loss`."""
        run, parts = self.run, self.run.config["train_cfg"]["accumulate"]
        if self.videos.pretext:
            return self._pretext(self.videos.pretext[k::parts], k)
        if k == 0 and self.videos.unlabeled and run.teacher is not None:
            run.teacher.advance(self.number)
        losses = run.model(self.labeled[k::parts])
        total, named = losses["final_loss"], with_prefix("labeled", losses)
        if self.videos.unlabeled and run.teacher is not None and run.teacher.method.has_lessons:
            if self.lesson is None:  # needs the loss normaliser after the first labeled part
                self.lesson = run.teacher.teach(self.videos.unlabeled, self.number, run.model)
            part = self.lesson.part(k, parts)
            losses, projected = run.teacher.self_training.losses(
                run.model, part.weak, part.strong, part.geometries, part.pseudo, part.lessons
            )
            self.projected += projected
            weight = run.semi.alpha * ramp(self.number - run.stages.burn_in, run.semi.ramp_up)
            total = total + weight * losses["loss"]
            named |= with_prefix("unlabeled", losses)
        if self.videos.unlabeled and run.teacher is not None and run.teacher.method.compares:
            agree = consistency_losses(run, self.number, self.videos.labeled[k::parts], self.videos.unlabeled[k::parts])
            total = total + sum(agree.values())
            named |= with_prefix("consistency", agree)
        return named | {"final_loss": total}

    def _pretext(self, videos: list[VideoItem], k: int) -> dict[str, Tensor]:
        """Losses of the pretext tasks, of the architecture and of the method, on all videos without labels."""
        run = self.run
        seed = derive_seed(run.seed, self.number, "pretext", *([k] if k else []))
        seed_model(seed)
        self_training = self_training_of(run.config["model_name"])
        losses: dict[str, Tensor] = {}
        if self_training.has_pretext:
            losses = self_training.pretext_losses(run.model, videos, torch.Generator().manual_seed(seed))
        total = losses.get("final_loss", 0.0)
        if run.teacher is not None and run.teacher.method.has_pretext:
            own = pretext_losses(run, run.teacher.method, self.number, videos)
            if both := losses.keys() & own.keys():
                raise ValueError(f"method {run.semi.method}: {sorted(both)} are names of pretext losses of the network")
            losses, total = losses | own, total + sum(own.values())
        assert isinstance(total, Tensor)
        return with_prefix("pretext", losses) | {"final_loss": total}
