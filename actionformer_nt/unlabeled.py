"""The unlabeled half of an iteration, for one architecture each: pseudo labels from a teacher, losses of a student.

`SemiTrainer` makes the views and lets the method choose class targets; what a pseudo label is, and how it reaches the
student's points, is decided here for ActionFormer's pyramid and in `spot/unlabeled.py` for SPOT.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from .criterion import UnlabeledCriterion
from .hidden import HiddenLabels
from .methods import ClassTargets
from .pseudo_labels import PseudoSegments, propose, select, spread
from .views import Geometry

CLASS_SCORE_MOMENTUM = 0.99


class Unlabeled(Protocol):
    """`Pseudo` stands for an architecture's own pseudo labels of one video."""

    form: str  # of the class loss, "sigmoid" or "softmax"

    def pseudo_labels(self, teacher: Any, videos: list[dict[str, Any]]) -> list[Any]:
        """Of the teacher on weak views of these videos, one per video, in their order."""

    def probs(self, pseudo: Any) -> Tensor:
        """(..., K) class distributions, which a method turns into Y and W."""

    def segments(self, pseudo: Any) -> PseudoSegments:
        """The pseudo labels as segments, for records."""

    def true_class(self, hidden: HiddenLabels, video: dict[str, Any], pseudo: Any) -> Tensor:
        """(...,) hidden class of each distribution, -1: of none. For the diagnostic method."""

    def losses(
        self,
        student: Any,
        videos: list[dict[str, Any]],
        views: list[dict[str, Any]],
        geometries: list[Geometry],
        pseudo: list[Any],
        targets: list[ClassTargets],
    ) -> tuple[dict[str, Tensor], int]:
        """Of the student on strong views (`views`) of weak ones (`videos`): named terms with their weighted sum
        `loss`, and the number of pseudo segments that are left in the views."""

    def state(self) -> dict[str, Any]:
        """For exact resuming."""

    def load_state(self, state: dict[str, Any]) -> None: ...


class PyramidUnlabeled:
    """ActionFormer: pseudo segments with one class distribution each, spread over the student's points.

    Args:
        config: resolved.
        normalizer: of the labeled loss at the end of the burn-in.
    """

    def __init__(self, config: dict[str, Any], normalizer: float) -> None:
        semi = config["semi_cfg"]
        self.form, self.options, self.train_cfg = config["model"]["class_form"], semi["pseudo"], config["train_cfg"]
        self.criterion = UnlabeledCriterion(form=self.form, reg_weight=semi["reg_weight"], normalizer=normalizer)
        self.class_scores = torch.zeros(config["dataset"]["num_classes"])

    @torch.no_grad()
    def pseudo_labels(self, teacher: Any, videos: list[dict[str, Any]]) -> list[PseudoSegments]:
        found: dict[int, PseudoSegments] = {}
        for batch in teacher.batches(videos):
            output = teacher.network(batch.feats, batch.mask, batch.lengths)
            for row, i in enumerate(batch.index):
                found[i] = propose(output, row, self.options, class_form=self.form)
        proposals = [found[i] for i in range(len(videos))]
        for proposal in proposals:
            self._update_class_scores(proposal)
        return [select(proposal, self.options, self.class_scores) for proposal in proposals]

    def _update_class_scores(self, found: PseudoSegments) -> None:
        """Running mean per class of the best score that a video gives it, for `pseudo.select: per_class`."""
        if not len(found.scores):
            return
        best = torch.zeros_like(self.class_scores)
        best.scatter_reduce_(0, found.logits.argmax(dim=-1).cpu(), found.scores.cpu(), reduce="amax")
        seen = best > 0
        updated = CLASS_SCORE_MOMENTUM * self.class_scores + (1 - CLASS_SCORE_MOMENTUM) * best
        self.class_scores = torch.where(seen, torch.where(self.class_scores > 0, updated, best), self.class_scores)

    def probs(self, pseudo: PseudoSegments) -> Tensor:
        return pseudo.probs

    def segments(self, pseudo: PseudoSegments) -> PseudoSegments:
        return pseudo

    def true_class(self, hidden: HiddenLabels, video: dict[str, Any], pseudo: PseudoSegments) -> Tensor:
        return hidden.true_class(video, pseudo).to(pseudo.logits.device)

    def losses(
        self,
        student: Any,
        videos: list[dict[str, Any]],
        views: list[dict[str, Any]],
        geometries: list[Geometry],
        pseudo: list[PseudoSegments],
        targets: list[ClassTargets],
    ) -> tuple[dict[str, Tensor], int]:
        segments, kept_targets = [], []
        for view, geometry, found, (y, w) in zip(views, geometries, pseudo, targets, strict=True):
            moved, kept = geometry.project(found.segments.cpu(), view["feats"].shape[1])
            segments.append(moved.to(student.device))
            kept_targets.append(ClassTargets(y[kept.to(y.device)], w[kept.to(w.device)]))
        (batch,) = student.batches(views)
        output = student.network(batch.feats, batch.mask)
        point_targets = spread(
            output, segments, kept_targets, options=self.options,
            center_sample=self.train_cfg["center_sample"],
            center_sample_radius=self.train_cfg["center_sample_radius"],
        )  # fmt: skip
        losses = self.criterion(
            torch.cat(output.logits, dim=1), torch.cat(output.offsets, dim=1), point_targets,
            labeled_normalizer=student.loss_normalizer,
        )  # fmt: skip
        return losses, sum(len(s) for s in segments)

    def state(self) -> dict[str, Any]:
        return {"normalizer": self.criterion.normalizer, "class_scores": self.class_scores}

    def load_state(self, state: dict[str, Any]) -> None:
        self.criterion.normalizer, self.class_scores = state["normalizer"], state["class_scores"]


def make_unlabeled(config: dict[str, Any], normalizer: float) -> Unlabeled:
    """Of the architecture `model_name`."""
    if config["model_name"] == "SPOT":
        from .spot.unlabeled import SpotUnlabeled

        return SpotUnlabeled(config, normalizer)
    return PyramidUnlabeled(config, normalizer)
