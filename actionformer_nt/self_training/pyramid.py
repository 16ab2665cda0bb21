"""Self-training adapter of ActionFormer's pyramid: pseudo segments, and targets of the student's points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actionformer_nt.config import semi_section
from actionformer_nt.methods import ClassTargets, Evidence, Lesson, Matched, Student
from actionformer_nt.methods.evidence import State
from actionformer_nt.protocol.hidden_labels import HiddenLabels
from libs.core.types import Config
from libs.datasets.dataset import TALDataset
from libs.datasets.video import VideoItem
from libs.modeling.class_form import ClassForm

from .criterion import UnlabeledCriterion, normalizer_of
from .interface import SelfTraining, View
from .matching import compare_pyramids, finest_class_features, pyramid_features, said_at, said_of
from .point_targets import VideoTargets, about_points, assign_pseudo_labels, at_points, background_targets, spare_likely
from .pseudo_segments import (
    Candidates,
    PointPseudo,
    PseudoSegments,
    PyramidPseudo,
    candidates,
    mapped_back,
    propose,
)
from .pyramid_checks import check_pyramid
from .selection import Selector, labeled_overlap, labeled_rates, minutes_of
from .views import Geometry


class PyramidSelfTraining(SelfTraining[PyramidPseudo]):
    """Pseudo segments, each with a class distribution over the actions. With `pseudo.partition: dense`, instead every
    point has a distribution over the actions and the background."""

    pseudo_types = (PyramidPseudo, PseudoSegments)

    def __init__(self, config: Config, labeled: TALDataset) -> None:
        semi = semi_section(config)
        self.form = ClassForm(config["model"]["class_form"])
        self.options, self.train_cfg = semi.pseudo, config["train_cfg"]
        self.lam, self.num_classes = semi.lam, config["dataset"]["num_classes"]
        self.sample_length, self.quality_score = config["dataset"]["max_seq_len"], config["test_cfg"]["quality_score"]
        self.feature_stride = config["model"]["scale_factor"] ** config["model"]["fpn_start_level"]
        self.dense = self.options.partition == "dense"
        method = semi.make_method()
        spares = method is not None and method.spares
        self.spares = self.options.background == "partition" and spares
        self.background = background_targets(self.num_classes, self.options, form=self.form, partitioning=spares)
        self.criterion = UnlabeledCriterion(form=self.form, reg_weight=semi.reg_weight)
        rates = torch.zeros(self.num_classes)
        self.selector = Selector(
            self.options, labeled_rates(labeled, self.num_classes) if self.options.select == "rate" else rates
        )
        self.most_overlap = labeled_overlap(labeled) if self.options.overlap == "labels" else 1.0

    @staticmethod
    def check(config: Config) -> None:
        check_pyramid(config)

    @torch.no_grad()
    def pseudo_labels(
        self, teacher: Any, videos: list[VideoItem], further: Sequence[list[View]] = (), *, observe: bool = True
    ) -> list[PyramidPseudo]:
        """See `SelfTraining.pseudo_labels`. Distributions at points come from the weak view alone."""
        proposals, points = self._propose(teacher, videos, further)
        minutes = [minutes_of(video) for video in videos]
        if observe:
            self.selector.observe(proposals, minutes)
        known = observe or self.selector.informed
        thresholds = self.selector.thresholds() if known else self.selector.joint_thresholds(proposals, minutes)
        return [self._chosen(*pair, thresholds) for pair in zip(proposals, points, strict=True)]

    @torch.no_grad()
    def find_in_whole_videos(
        self, teacher: Any, videos: list[VideoItem], further: Sequence[list[View]] = ()
    ) -> list[tuple[PseudoSegments, float]]:
        """Proposals, and the length in minutes, of each video."""
        proposals, _ = self._propose(teacher, videos, further)
        return [(found.cpu(), minutes_of(video)) for found, video in zip(proposals, videos, strict=True)]

    def select_jointly(self, found: list[tuple[PseudoSegments, float]]) -> list[PyramidPseudo]:
        proposals, minutes = [proposals for proposals, _ in found], [minutes for _, minutes in found]
        thresholds = self.selector.joint_thresholds(proposals, minutes)
        return [self._chosen(video, None, thresholds) for video in proposals]

    def _propose(
        self, teacher: Any, videos: list[VideoItem], further: Sequence[list[View]]
    ) -> tuple[list[PseudoSegments], list[PointPseudo | None]]:
        """Per video, proposals from all views and, if they are used, what the teacher says at the points. A video
        longer than a training sample may have more proposals in proportion."""
        scales = [max(video["feats"].shape[1] / self.sample_length, 1.0) for video in videos]
        found, points = self._find(teacher, videos, scales)
        views = [[own] for own in found]
        for seen in further:
            found, _ = self._find(teacher, [view for view, _ in seen], scales)
            for pool, own, (view, geometry) in zip(views, found, seen, strict=True):
                pool.append(mapped_back(own, geometry, view["feats"].shape[1]))
        proposals = [
            propose(pool, self.options, most_overlap=self.most_overlap, scale=scale)
            for pool, scale in zip(views, scales, strict=True)
        ]
        return proposals, points

    def _find(
        self, teacher: Any, videos: list[VideoItem], scales: list[float]
    ) -> tuple[list[Candidates], list[PointPseudo | None]]:
        """Per video, candidates and, if they are used, what the teacher says at the points."""
        found: dict[int, Candidates] = {}
        points: dict[int, PointPseudo] = {}
        for batch in teacher.batches(videos):
            output = teacher.infer(batch)
            for row, i in enumerate(batch.index):
                found[i] = candidates(
                    output, row, class_form=self.form, scale=scales[i], quality_score=self.quality_score
                )
                if self.dense or self.spares:
                    points[i] = at_points(output, row, self.options, form=self.form)
        return [found[i] for i in range(len(videos))], [points.get(i) for i in range(len(videos))]

    def _chosen(self, proposals: PseudoSegments, points: PointPseudo | None, thresholds: Tensor) -> PyramidPseudo:
        """Pseudo labels of a video, given the thresholds (C,) of the score."""
        selected = self.selector.select(proposals, thresholds)
        band = torch.zeros_like(selected)
        if self.options.ignore_from is not None:
            band = ~selected & (proposals.scores >= self.options.ignore_from)
        own = self.form.scores(proposals.logits * self.options.temperature)
        if proposals.quality is not None and self.quality_score:
            own = own * proposals.quality[:, None]
        likely = (own >= thresholds.to(own)) & (thresholds > 0).to(own.device)  # 0: of a class not seen so far
        return PyramidPseudo(proposals, selected, band, likely, points)

    def cut(self, pseudo: PyramidPseudo, video: VideoItem) -> PyramidPseudo:
        """Keeps proposals as `Geometry.project` does, but does not clip them."""
        moved = pseudo.proposals._replace(segments=pseudo.proposals.segments - video.get("feat_start", 0))
        _, kept = Geometry().project(moved.segments.cpu(), video["feats"].shape[1])
        kept = kept.to(moved.scores.device)
        return PyramidPseudo(moved.select(kept), pseudo.selected[kept], pseudo.ignored[kept], pseudo.likely[kept], None)

    def evidence(self, pseudo: PyramidPseudo) -> Evidence:
        if not self.dense:
            proposals = pseudo.proposals
            return Evidence(
                probs=proposals.probs, scores=proposals.scores, selected=pseudo.selected,
                class_scores=self.form.scores(proposals.logits * self.options.temperature),
                segments=proposals.segments, spread=proposals.spread, stability=proposals.stability,
                quality=proposals.quality,
            )  # fmt: skip
        assert pseudo.points is not None
        probs, class_scores, segments, quality = pseudo.points
        scores = probs[:, :-1].amax(dim=-1)
        return Evidence(
            probs=probs, scores=scores, selected=torch.ones_like(scores, dtype=torch.bool), unit="point",
            class_scores=class_scores, segments=segments, quality=quality,
        )  # fmt: skip

    @torch.no_grad()
    def student_says(
        self, student: Any, views: list[VideoItem], geometries: list[Geometry], pseudo: list[PyramidPseudo]
    ) -> list[Student]:
        """At points, those of the same place: strong views do not move then."""
        found, points = self._find(student, views, [1.0] * len(views))
        if self.dense:
            return [said_at(at) for at in points if at is not None]
        columns = zip(views, geometries, found, pseudo, strict=True)
        return [said_of(labels.proposals, own, view, g, self.options) for view, g, own, labels in columns]

    def compare(
        self, student: Any, teacher: Any, videos: list[VideoItem], views: list[VideoItem], geometries: list[Geometry]
    ) -> list[Matched]:
        return compare_pyramids(student, teacher, videos, views, geometries, form=self.form)

    @staticmethod
    def feature_width(config: Config) -> int:
        return int(config["model"]["fpn_dim"])

    def features(self, model: Any, videos: list[VideoItem]) -> list[list[Tensor]]:
        return pyramid_features(model, videos)

    def taught(self, pseudo: PyramidPseudo, lesson: Lesson) -> tuple[PyramidPseudo, Lesson]:
        if self.dense:
            return about_points(pseudo, lesson)
        if self.options.second_class == "ignore":
            lesson = replace(lesson, w=torch.where(pseudo.likely & (lesson.y == 0), 0.0, lesson.w))
        if lesson.segments is not None:
            pseudo = pseudo._replace(proposals=pseudo.proposals._replace(segments=lesson.segments))
        selected = pseudo.selected if lesson.keep is None else lesson.keep
        if lesson.ignore is None:
            return pseudo._replace(selected=selected), lesson
        return pseudo._replace(selected=selected & ~lesson.ignore, ignored=pseudo.ignored | lesson.ignore), lesson

    def probs(self, pseudo: PyramidPseudo) -> Tensor:
        """(N, C) at the segments or, with `pseudo.partition: dense`, (P, C + 1) at the points."""
        if not self.dense:
            return pseudo.segments.probs
        assert pseudo.points is not None
        return pseudo.points.probs

    def segments(self, pseudo: PyramidPseudo) -> PseudoSegments:
        return pseudo.segments

    def rows_of_segments(self, pseudo: PyramidPseudo) -> list[int]:
        """Index of the segment or, with `pseudo.partition: dense`, of the point in its middle on the finest level."""
        segments = pseudo.segments.segments
        if pseudo.points is None or not self.dense:
            return list(range(len(segments)))
        middle = (segments.mean(dim=1) / self.feature_stride).round().long()
        return middle.clamp(0, len(pseudo.points.probs) - 1).tolist()  # the points of the finest level come first

    def true_class(self, hidden: HiddenLabels, video: VideoItem, pseudo: PyramidPseudo) -> Tensor:
        return hidden.true_class(video, pseudo.segments.segments).to(pseudo.segments.logits.device)

    def true_units(self, hidden: HiddenLabels, video: VideoItem, pseudo: PyramidPseudo) -> Tensor:
        return hidden.true_class(video, pseudo.proposals.segments).to(pseudo.proposals.logits.device)

    def losses(
        self,
        student: Any,
        videos: list[VideoItem],
        views: list[VideoItem],
        geometries: list[Geometry],
        pseudo: list[PyramidPseudo],
        lessons: list[Lesson],
    ) -> tuple[dict[str, Tensor], int]:
        targets = [self._video_targets(*columns) for columns in zip(views, geometries, pseudo, lessons, strict=True)]
        output = student.outputs(views)
        point_targets = assign_pseudo_labels(
            output, targets,
            center_sample=self.train_cfg["center_sample"],
            center_sample_radius=self.train_cfg["center_sample_radius"],
        )  # fmt: skip
        losses = self.criterion(
            torch.cat(output.logits, dim=1), torch.cat(output.offsets, dim=1), point_targets,
            labeled_normalizer=student.loss_normalizer, normalizer=self._normalizer(student, lessons),
        )  # fmt: skip
        return losses, sum(len(t.segments) for t in targets)

    def _normalizer(self, student: Any, lessons: list[Lesson]) -> float | None:
        """What the unlabeled loss is divided by; None: the criterion's own running mean."""
        normalizer = normalizer_of(lessons)
        if normalizer is None and self.options.normalizer == "labeled":
            return student.loss_normalizer
        return normalizer

    def _video_targets(
        self, view: VideoItem, geometry: Geometry, pseudo: PyramidPseudo, lesson: Lesson
    ) -> VideoTargets:
        """Targets of one video in the student's view, before they are assigned to its points."""
        steps, chosen, own = view["feats"].shape[1], pseudo.selected, pseudo.segments
        segments, kept = geometry.project(own.segments.cpu(), steps)
        ignored, _ = geometry.project(pseudo.proposals.segments[pseudo.ignored].cpu(), steps)
        kept = kept.to(lesson.y.device)
        v = segments.new_ones(len(segments))
        if self.options.boundary_weight == "spread":
            v = own.boundary_weight[kept].to(segments)
        if lesson.v is not None and not self.dense:
            v = v * lesson.v[chosen][kept].to(segments)
        at_segments, elsewhere, own_boundaries = None, self._background(pseudo), None
        if self.dense:
            columns = self.num_classes + self.form.background_columns
            elsewhere = ClassTargets(lesson.y[:, :columns], lesson.w[:, :columns])
            if lesson.v is not None:
                assert pseudo.points is not None
                own_boundaries = pseudo.points.segments, lesson.v
        else:
            y, w = lesson.y[chosen][kept], lesson.w[chosen][kept]
            # on a segment the background has weight 0
            at_segments = ClassTargets(self.form.pad_targets(y), self.form.pad_targets(w))
        if self.options.without_segments == "skip" and not chosen.any() and own_boundaries is None:
            elsewhere = elsewhere._replace(weight=torch.zeros_like(elsewhere.weight))
        return VideoTargets(segments, at_segments, elsewhere, v, ignored, own_boundaries)

    def _background(self, pseudo: PyramidPseudo) -> ClassTargets:
        """Background targets (K,) or, with `pseudo.background: partition`, (P, K)."""
        if not self.spares or pseudo.points is None:
            return self.background
        return spare_likely(self.background, pseudo.points.probs, lam=self.lam)

    @staticmethod
    def class_features(model: Any, video: VideoItem) -> tuple[np.ndarray, np.ndarray]:
        """Features at the points of the finest level, see `SelfTraining.class_features`."""
        return finest_class_features(model, video)

    def state(self) -> State:
        return {"normalizer": self.criterion.normalizer, **self.selector.state()}

    def load_state(self, state: State) -> None:
        normalizer = state["normalizer"]
        assert not isinstance(normalizer, Tensor)
        self.criterion.normalizer = normalizer
        self.selector.load_state(state)
