"""Targets of the student's points, in and outside pseudo segments."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from actionformer_nt.methods import ClassTargets, Lesson
from actionformer_nt.methods.label_space import partition
from actionformer_nt.pseudo_sections import PseudoSection
from libs.modeling.assignment import Targets, match_points
from libs.modeling.class_form import ClassForm
from libs.modeling.decode import segments_to_offsets
from libs.modeling.location_quality import predicted_factor
from libs.modeling.losses import with_background
from libs.modeling.meta_archs import PyramidOutput

from .pseudo_segments import PointPseudo, PyramidPseudo


def at_points(output: PyramidOutput, row: int, options: PseudoSection, *, form: ClassForm) -> PointPseudo:
    """What the output says at the valid points of the video in `row` of the batch, level by level."""
    logits, segments, quality = output.of_video(row)
    probs = (with_background(logits, options.background_logit or 0.0) / options.temperature).softmax(dim=-1)
    return PointPseudo(probs, form.scores(logits), segments, None if quality is None else predicted_factor(quality))


def background_targets(num_classes: int, options: PseudoSection, *, form: str, partitioning: bool) -> ClassTargets:
    """Class targets Y and weights W, each (K,), of a point outside all pseudo segments.

    The target is the background. The actions are negatives; in the softmax form only for partitioning methods.

    Args:
        options: `semi_cfg.pseudo`.
        partitioning: whether the method learns from non-target classes.
    """
    weight = {"ignore": 0.0, "weighted": options.background_weight}.get(options.background, 1.0)
    return ClassTargets(*ClassForm(form).background_targets(num_classes, weight=weight, negatives=partitioning))


def spare_likely(background: ClassTargets, probs: Tensor, *, lam: float) -> ClassTargets:
    """Background targets at every point, without loss for the actions that the teacher does not rule out there.

    W is 0 for an action that is at least lambda times as probable as the background, or an ambiguous class of the
    partition.

    Args:
        background: Y and W, each (K,), of `background_targets`.
        probs: (P, C + 1) class distributions of the teacher.

    Returns:
        Y and W, each (P, K).
    """
    spared = ((probs >= lam * probs[:, -1:]) | partition(probs, lam).ambiguous)[:, :-1]
    y, w = (column.to(probs).expand(len(probs), -1).clone() for column in background)
    w[:, : spared.shape[-1]].masked_fill_(spared, 0.0)
    return ClassTargets(y, w)


class VideoTargets(NamedTuple):
    """Targets of one video, for `assign_pseudo_labels`."""

    segments: Tensor  # (N, 2) pseudo segments, grid steps of the student's view
    at_segments: ClassTargets | None  # Y and W, each (N, K); None: all points take `elsewhere`
    elsewhere: ClassTargets  # Y and W at the other points, each (K,), or (P, K) over the valid points
    v: Tensor  # (N,) weights of the regression loss
    ignored: Tensor  # (M, 2) segments whose points teach nothing, unless a pseudo segment owns them
    at_points: tuple[Tensor, Tensor] | None = None  # boundaries (P, 2) and weights (P,) of the valid points, instead


class PointTargets(NamedTuple):
    """Targets of the points of B videos."""

    targets: Targets
    owned: Tensor  # (B, P) bool: points of pseudo segments


def assign_pseudo_labels(
    output: PyramidOutput, videos: list[VideoTargets], *, center_sample: str, center_sample_radius: float
) -> PointTargets:
    """Targets of the student's points.

    A point that `match_points` assigns to a pseudo segment gets the offsets of that segment, its weight of the
    regression loss and its class targets. Of the other points, those that `match_points` assigns to an ignored segment
    get nothing, and the rest the class targets `elsewhere`. With `at_points` every point has boundaries of its own.
    """
    points, mask = torch.cat(output.points), torch.cat(output.masks, dim=1)
    match_to = partial(match_points, center_sample=center_sample, center_sample_radius=center_sample_radius)
    rows = []
    for valid, video in zip(mask, videos, strict=True):
        default, segments, ignored = video.elsewhere, video.segments.to(points), video.ignored.to(points)
        y, w = (points.new_zeros(len(points), default.target.shape[-1]) for _ in range(2))
        y[valid], w[valid] = default.target.to(y), default.weight.to(w)
        offsets, owned, v = (
            points.new_zeros(len(points), 2),
            valid.new_zeros(len(points)),
            points.new_zeros(len(points)),
        )
        if len(ignored):
            w[match_to(points, ignored).shared.any(dim=1)] = 0.0
        if len(segments):
            match = match_to(points, segments)
            owned = match.shared.any(dim=1) & valid
            offsets = match.offsets
            v[owned] = video.v.to(v)[match.chosen[owned]]
            if video.at_segments is not None:
                y[owned] = video.at_segments.target.to(y)[match.chosen[owned]]
                w[owned] = video.at_segments.weight.to(w)[match.chosen[owned]]
        if video.at_points is not None:
            segments, weights = (column.to(points) for column in video.at_points)
            offsets[valid], v[valid] = segments_to_offsets(points[valid], segments), weights
            owned = v > 0
        rows.append((y, w, offsets, v, owned))
    *columns, owned = (torch.stack(column) for column in zip(*rows, strict=True))
    return PointTargets(Targets(*columns), owned)


def about_points(pseudo: PyramidPseudo, lesson: Lesson) -> tuple[PyramidPseudo, Lesson]:
    """Pseudo labels with the boundaries of a lesson about points, and the lesson with weights only where points
    teach."""
    if lesson.segments is not None and lesson.v is None:
        raise ValueError("pseudo.partition: dense: a lesson about points with segments has to give their weights v too")
    teach = torch.ones(len(lesson.w), dtype=torch.bool, device=lesson.w.device)
    if lesson.keep is not None:
        teach = teach & lesson.keep
    if lesson.ignore is not None:
        teach = teach & ~lesson.ignore
    if lesson.segments is not None:
        assert pseudo.points is not None
        pseudo = pseudo._replace(points=pseudo.points._replace(segments=lesson.segments))
    v = None if lesson.v is None else lesson.v * teach
    return pseudo, replace(lesson, w=lesson.w * teach[:, None], v=v, keep=None, ignore=None)
