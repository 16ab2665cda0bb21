"""The unlabeled half of an iteration, for one architecture each: pseudo labels from a teacher, losses of a student.

`SemiTrainer` makes the views and lets the method choose class targets; what a pseudo label is, and how it reaches the
student's points, is decided here for ActionFormer's pyramid and in `spot/unlabeled.py` for SPOT.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from actionformer_nt.config import PseudoSection
from actionformer_nt.methods import ClassTargets
from actionformer_nt.names import PARTITIONING
from actionformer_nt.protocol.hidden_labels import HiddenLabels
from libs.core import distributed
from libs.datasets.dataset import TALDataset
from libs.modeling.class_form import ClassForm

from .criterion import UnlabeledCriterion
from .pseudo_segments import PseudoSegments, background_targets, point_probs, propose, select, spare_likely, spread
from .views import Geometry

CLASS_SCORE_MOMENTUM = 0.99


class Unlabeled(Protocol):
    """`Pseudo` stands for an architecture's own pseudo labels of one video."""

    form: ClassForm  # of the class loss

    def pseudo_labels(self, teacher: Any, videos: list[dict[str, Any]]) -> list[Any]:
        """Of the teacher on weak views of these videos, one per video, in their order."""

    def probs(self, pseudo: Any) -> Tensor:
        """(..., K) class distributions, which a method turns into Y and W."""

    def used_probs(self, pseudo: Any) -> Tensor:
        """(N, K): those of them that the student learns from, for records."""

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


class PyramidPseudo(NamedTuple):
    """Of one video."""

    segments: PseudoSegments
    points: Tensor | None  # (P, C + 1) distributions at the teacher's valid points, where they are asked for


class PyramidUnlabeled:
    """ActionFormer: pseudo segments, spread over the student's points. Each has one class distribution over the
    actions, or, with `pseudo.partition: dense`, every point has one over the actions and the background.

    Args:
        config: resolved.
        normalizer: of the labeled loss at the end of the burn-in.
    """

    def __init__(self, config: dict[str, Any], normalizer: float) -> None:
        semi = config["semi_cfg"]
        self.form = ClassForm(config["model"]["class_form"])
        self.options, self.train_cfg = semi["pseudo"], config["train_cfg"]
        self.lam, self.num_classes = semi["lam"], config["dataset"]["num_classes"]
        self.dense = self.options["partition"] == "dense"
        partitioning = semi["method"] in PARTITIONING
        self.spares = self.options["background"] == "partition" and partitioning
        self.background = background_targets(self.num_classes, self.options, form=self.form, partitioning=partitioning)
        self.criterion = UnlabeledCriterion(form=self.form, reg_weight=semi["reg_weight"], normalizer=normalizer)
        self.class_scores = torch.zeros(self.num_classes)

    @torch.no_grad()
    def pseudo_labels(self, teacher: Any, videos: list[dict[str, Any]]) -> list[PyramidPseudo]:
        found: dict[int, PseudoSegments] = {}
        points: dict[int, Tensor] = {}
        for batch in teacher.batches(videos):
            output = teacher.network(batch.feats, batch.mask, batch.lengths)
            for row, i in enumerate(batch.index):
                found[i] = propose(output, row, self.options, class_form=self.form)
                if self.dense or self.spares:
                    points[i] = point_probs(output, row, self.options)
        proposals = [found[i] for i in range(len(videos))]
        if self.options["select"] == "per_class":
            self._update_class_scores(proposals)
        return [
            PyramidPseudo(select(proposal, self.options, self.class_scores), points.get(i))
            for i, proposal in enumerate(proposals)
        ]

    def _update_class_scores(self, proposals: list[PseudoSegments]) -> None:
        """Running mean per class of the best score that a video gives it."""
        own = []
        for found in proposals:
            best = torch.zeros_like(self.class_scores)
            if len(found.scores):
                best.scatter_reduce_(0, found.logits.argmax(dim=-1).cpu(), found.scores.cpu(), reduce="amax")
            own.append(best)
        for best in distributed.gather_shares(own):
            updated = CLASS_SCORE_MOMENTUM * self.class_scores + (1 - CLASS_SCORE_MOMENTUM) * best
            updated = torch.where(self.class_scores > 0, updated, best)
            self.class_scores = torch.where(best > 0, updated, self.class_scores)

    def probs(self, pseudo: PyramidPseudo) -> Tensor:
        """(N, C) of the segments or, dense, (P, C + 1) of the points."""
        return pseudo.points if self.dense else pseudo.segments.probs

    used_probs = probs

    def segments(self, pseudo: PyramidPseudo) -> PseudoSegments:
        return pseudo.segments

    def true_class(self, hidden: HiddenLabels, video: dict[str, Any], pseudo: PyramidPseudo) -> Tensor:
        return hidden.true_class(video, pseudo.segments).to(pseudo.segments.logits.device)

    def losses(
        self,
        student: Any,
        videos: list[dict[str, Any]],
        views: list[dict[str, Any]],
        geometries: list[Geometry],
        pseudo: list[PyramidPseudo],
        targets: list[ClassTargets],
    ) -> tuple[dict[str, Tensor], int]:
        segments, at_segments, at_points = [], [], []
        for view, geometry, found, (y, w) in zip(views, geometries, pseudo, targets, strict=True):
            moved, kept = geometry.project(found.segments.segments.cpu(), view["feats"].shape[1])
            segments.append(moved.to(student.device))
            if self.dense:
                columns = self.num_classes + self.form.background_columns
                at_points.append(ClassTargets(y[:, :columns], w[:, :columns]))
                continue
            kept = kept.to(y.device)
            # nothing is said about the background on a segment
            at_segments.append(ClassTargets(self.form.pad_targets(y[kept]), self.form.pad_targets(w[kept])))
            at_points.append(self._background(found))
        output = student.outputs(views)
        point_targets = spread(
            output, segments, None if self.dense else at_segments, at_points,
            center_sample=self.train_cfg["center_sample"],
            center_sample_radius=self.train_cfg["center_sample_radius"],
        )  # fmt: skip
        losses = self.criterion(
            torch.cat(output.logits, dim=1), torch.cat(output.offsets, dim=1), point_targets,
            labeled_normalizer=student.loss_normalizer,
        )  # fmt: skip
        return losses, sum(len(s) for s in segments)

    def _background(self, pseudo: PyramidPseudo) -> ClassTargets:
        """(K,) or, where the teacher is asked, (P, K)."""
        if not self.spares:
            return self.background
        return spare_likely(self.background, pseudo.points, lam=self.lam)

    def state(self) -> dict[str, Any]:
        return {"normalizer": self.criterion.normalizer, "class_scores": self.class_scores}

    def load_state(self, state: dict[str, Any]) -> None:
        self.criterion.normalizer, self.class_scores = state["normalizer"], state["class_scores"]


def check_pseudo(config: dict[str, Any]) -> None:
    """Raises ValueError where `semi_cfg.pseudo` does not fit the architecture."""
    pseudo = config["semi_cfg"]["pseudo"]
    if config["model_name"] == "SPOT":
        unused = PseudoSection.model_validate({k: v for k, v in pseudo.items() if k in ("source", "refresh_every")})
        if other := [name for name, value in unused.model_dump().items() if pseudo[name] != value]:
            raise ValueError(
                f"semi_cfg.pseudo.{', semi_cfg.pseudo.'.join(other)}: without effect for model_name: SPOT, whose "
                "pseudo labels are set in model.pseudo"
            )
        return
    asked = pseudo["partition"] == "dense" or pseudo["background"] == "partition"
    sigmoid = ClassForm(config["model"]["class_form"]) is ClassForm.SIGMOID
    if asked and sigmoid and pseudo["background_logit"] is None:
        raise ValueError(
            "semi_cfg.pseudo.background_logit: the distribution at points needs one, since a sigmoid head has no logit "
            "of the background; at -0.85, say, an action with a score of .3 is as probable as the background"
        )
    if pseudo["background_logit"] is not None and not (asked and sigmoid):
        raise ValueError(
            f"semi_cfg.pseudo.background_logit: {pseudo['background_logit']}: without effect unless model.class_form "
            "is sigmoid and pseudo.partition: dense or pseudo.background: partition asks for it; leave it out"
        )


def make_unlabeled(config: dict[str, Any], normalizer: float, labeled: TALDataset) -> Unlabeled:
    """Of the architecture `model_name`.

    Args:
        normalizer: of the labeled loss at the end of the burn-in.
        labeled: the labeled training videos.
    """
    if config["model_name"] == "SPOT":
        from actionformer_nt.spot.self_training import SpotUnlabeled

        return SpotUnlabeled(config, labeled)
    return PyramidUnlabeled(config, normalizer)
