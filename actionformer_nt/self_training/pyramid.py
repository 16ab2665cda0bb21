"""Self-training adapter of ActionFormer's pyramid: pseudo segments, and targets of the student's points."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from actionformer_nt.config import semi_section
from actionformer_nt.methods import PARTITIONING, ClassTargets
from actionformer_nt.protocol.hidden_labels import HiddenLabels
from libs.core import distributed
from libs.core.types import Config
from libs.datasets.dataset import TALDataset
from libs.datasets.video import VideoItem
from libs.modeling.class_form import ClassForm

from .criterion import UnlabeledCriterion
from .interface import SelfTraining, State, inputs_of
from .pseudo_segments import (
    PseudoSegments,
    assign_pseudo_labels,
    background_targets,
    point_probs,
    propose,
    select,
    spare_likely,
)
from .views import Geometry

CLASS_SCORE_MOMENTUM = 0.99


class PyramidPseudo(NamedTuple):
    """Pseudo labels of one video."""

    segments: PseudoSegments
    points: Tensor | None  # (P, C + 1) class distributions at the teacher's valid points, if they are used


class PyramidSelfTraining(SelfTraining[PyramidPseudo]):
    """Pseudo segments, each with a class distribution over the actions. With `pseudo.partition: dense`, instead every
    point has a distribution over the actions and the background."""

    pseudo_types = (PyramidPseudo, PseudoSegments)

    def __init__(self, config: Config, labeled: TALDataset) -> None:
        semi = semi_section(config)
        self.form = ClassForm(config["model"]["class_form"])
        self.options, self.train_cfg = semi.pseudo, config["train_cfg"]
        self.lam, self.num_classes = semi.lam, config["dataset"]["num_classes"]
        self.finest_stride = config["model"]["scale_factor"] ** config["model"]["fpn_start_level"]
        self.dense = self.options.partition == "dense"
        partitioning = semi.method in PARTITIONING
        self.spares = self.options.background == "partition" and partitioning
        self.background = background_targets(self.num_classes, self.options, form=self.form, partitioning=partitioning)
        self.criterion = UnlabeledCriterion(form=self.form, reg_weight=semi.reg_weight)
        self.class_scores = torch.zeros(self.num_classes)

    @staticmethod
    def check(config: Config) -> None:
        pseudo = semi_section(config).pseudo
        at_points = pseudo.at_points
        if at_points and any(stage.labels == "stored" for stage in semi_section(config).plan()):
            raise ValueError(
                "semi_cfg.stages: labels: stored: pseudo labels at points (pseudo.partition: dense, pseudo.background: "
                "partition) cannot be cut from whole videos; use labels: views"
            )
        sigmoid = ClassForm(config["model"]["class_form"]) is ClassForm.SIGMOID
        if at_points and sigmoid and pseudo.background_logit is None:
            raise ValueError(
                "semi_cfg.pseudo.background_logit: the distribution at points needs one, since a sigmoid head has no "
                "logit of the background; at -0.85, say, an action with a score of .3 is as probable as the background"
            )
        if pseudo.background_logit is not None and not (at_points and sigmoid):
            raise ValueError(
                f"semi_cfg.pseudo.background_logit: {pseudo.background_logit}: without effect unless model.class_form "
                "is sigmoid and pseudo.partition: dense or pseudo.background: partition asks for it; leave it out"
            )

    @torch.no_grad()
    def pseudo_labels(self, teacher: Any, videos: list[VideoItem]) -> list[PyramidPseudo]:
        segments_of: dict[int, PseudoSegments] = {}
        points: dict[int, Tensor] = {}
        for batch in teacher.batches(videos):
            output = teacher.network(batch.feats, batch.mask, batch.lengths)
            for row, i in enumerate(batch.index):
                segments_of[i] = propose(output, row, self.options, class_form=self.form)
                if self.dense or self.spares:
                    points[i] = point_probs(output, row, self.options)
        proposals = [segments_of[i] for i in range(len(videos))]
        if self.options.select == "per_class":
            self._update_class_scores(proposals)
        return [
            PyramidPseudo(select(proposal, self.options, self.class_scores), points.get(i))
            for i, proposal in enumerate(proposals)
        ]

    def cut(self, pseudo: PyramidPseudo, video: VideoItem) -> PyramidPseudo:
        """Keeps segments as `Geometry.project` does, but does not clip them."""
        shift, length = video.get("feat_start", 0), video["feats"].shape[1]
        moved = pseudo.segments._replace(segments=pseudo.segments.segments - shift)
        _, kept = Geometry().project(moved.segments.cpu(), length)
        return PyramidPseudo(moved.select(kept.to(moved.scores.device)), None)

    def _update_class_scores(self, proposals: list[PseudoSegments]) -> None:
        """Updates the running mean, per class, of the best score in a video. Videos without the class do not count."""
        best_scores = []
        for proposal in proposals:
            best = torch.zeros_like(self.class_scores)
            if len(proposal.scores):
                best.scatter_reduce_(0, proposal.logits.argmax(dim=-1).cpu(), proposal.scores.cpu(), reduce="amax")
            best_scores.append(best)
        for best in distributed.gather_shares(best_scores):
            updated = CLASS_SCORE_MOMENTUM * self.class_scores + (1 - CLASS_SCORE_MOMENTUM) * best
            updated = torch.where(self.class_scores > 0, updated, best)
            self.class_scores = torch.where(best > 0, updated, self.class_scores)

    def probs(self, pseudo: PyramidPseudo) -> Tensor:
        """(N, C) at the segments or, with `pseudo.partition: dense`, (P, C + 1) at the points."""
        if not self.dense:
            return pseudo.segments.probs
        assert pseudo.points is not None
        return pseudo.points

    def segments(self, pseudo: PyramidPseudo) -> PseudoSegments:
        return pseudo.segments

    def rows_of_segments(self, pseudo: PyramidPseudo) -> list[int]:
        """Index of the segment or, with `pseudo.partition: dense`, of the point in its middle on the finest level."""
        segments = pseudo.segments.segments
        if pseudo.points is None or not self.dense:
            return list(range(len(segments)))
        middle = (segments.mean(dim=1) / self.finest_stride).round().long()
        return middle.clamp(0, len(pseudo.points) - 1).tolist()  # the points of the finest level come first

    def true_class(self, hidden: HiddenLabels, video: VideoItem, pseudo: PyramidPseudo) -> Tensor:
        return hidden.true_class(video, pseudo.segments.segments).to(pseudo.segments.logits.device)

    def losses(
        self,
        student: Any,
        videos: list[VideoItem],
        views: list[VideoItem],
        geometries: list[Geometry],
        pseudo: list[PyramidPseudo],
        targets: list[ClassTargets],
    ) -> tuple[dict[str, Tensor], int]:
        segments, at_segments, at_points = [], [], []
        for view, geometry, labels, (y, w) in zip(views, geometries, pseudo, targets, strict=True):
            moved, kept = geometry.project(labels.segments.segments.cpu(), view["feats"].shape[1])
            segments.append(moved.to(student.device))
            if self.dense:
                columns = self.num_classes + self.form.background_columns
                at_points.append(ClassTargets(y[:, :columns], w[:, :columns]))
                continue
            kept = kept.to(y.device)
            # on a segment the background has weight 0
            at_segments.append(ClassTargets(self.form.pad_targets(y[kept]), self.form.pad_targets(w[kept])))
            at_points.append(self._background(labels))
        output = student.outputs(views)
        point_targets = assign_pseudo_labels(
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
        """Background targets (K,) or, with `pseudo.background: partition`, (P, K)."""
        if not self.spares or pseudo.points is None:
            return self.background
        return spare_likely(self.background, pseudo.points, lam=self.lam)

    @staticmethod
    @torch.no_grad()
    def class_features(model: Any, video: VideoItem) -> tuple[np.ndarray, np.ndarray]:
        """Features at the points of the finest level, see `SelfTraining.class_features`."""
        (batch,) = model.batches([video])
        with inputs_of(model.cls_head.cls_head) as head_inputs:
            output = model.network(batch.feats, batch.mask, batch.lengths)
        valid = output.masks[0][0].cpu()
        finest = head_inputs[0][0, :, : len(valid)].T  # the packed sequence begins with the finest level
        return finest[valid].numpy(), output.points[0][:, 0].cpu()[valid].numpy()

    def state(self) -> State:
        return {"normalizer": self.criterion.normalizer, "class_scores": self.class_scores}

    def load_state(self, state: State) -> None:
        normalizer, class_scores = state["normalizer"], state["class_scores"]
        assert not isinstance(normalizer, Tensor) and isinstance(class_scores, Tensor)
        self.criterion.normalizer, self.class_scores = normalizer, class_scores
