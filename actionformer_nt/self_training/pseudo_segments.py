"""Pseudo labels: teacher's output -> segments with class distributions -> targets of the student's points."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from actionformer_nt.config import PseudoSection
from actionformer_nt.methods import ClassTargets
from actionformer_nt.methods.label_space import partition
from libs.modeling.assignment import Targets, match_points
from libs.modeling.class_form import ClassForm
from libs.modeling.decode import offsets_to_segments
from libs.modeling.losses import iou_matrix, with_background
from libs.modeling.meta_archs import PyramidOutput
from libs.nms.suppress import nms_videos


class PseudoSegments(NamedTuple):
    """Pseudo segments of one video, by falling score."""

    segments: Tensor  # (N, 2) grid steps of the teacher's view
    scores: Tensor  # (N,)
    logits: Tensor  # (N, C) score-weighted mean logits of the supporting candidates, divided by the temperature

    def select(self, keep: Tensor) -> PseudoSegments:
        """Segments selected by a boolean mask (N,) or by indices (K,)."""
        return PseudoSegments(*(column[keep] for column in self))

    @property
    def probs(self) -> Tensor:
        """Distributions over the actions (N, C): softmax of the logits. For a sigmoid head, this is the distribution of
        independent Bernoulli variables, given that exactly one of them is 1."""
        return self.logits.softmax(dim=-1)


@torch.no_grad()
def propose(
    output: PyramidOutput, row: int, options: PseudoSection, *, class_form: str = "sigmoid", pre_nms_topk: int = 2000
) -> PseudoSegments:
    """Proposes pseudo segments from a teacher's output, before any selection.

    Class-agnostic hard NMS over the best class of every point. Ends and logits of a segment are then replaced by the
    score-weighted means over its supporting candidates, those with a tIoU of at least `support_iou`.

    Args:
        row: row of the video in the batch.
        options: `semi_cfg.pseudo`.
        pre_nms_topk: number of candidates, best first, that enter NMS.
    """
    parts: list[tuple[Tensor, Tensor]] = []  # logits and segments of each level
    for z, distance, mask, point in zip(output.logits, output.offsets, output.masks, output.points, strict=True):
        valid = int(mask[row].sum())
        parts.append((z[row, :valid].float(), offsets_to_segments(point[:valid], distance[row, :valid].float())))
    logits, segments = (torch.cat(column) for column in zip(*parts, strict=True))
    scores = ClassForm(class_form).scores(logits).max(dim=-1).values
    order = scores.argsort(descending=True, stable=True)
    order = order[(segments[order, 1] - segments[order, 0] > 0.05) & (scores[order] > 0.01)][:pre_nms_topk]
    logits, segments, scores = logits[order], segments[order], scores[order]
    if not len(scores):
        return PseudoSegments(segments, scores, logits)
    ((kept, kept_scores, index),) = nms_videos(
        [(segments, scores, torch.arange(len(scores), device=scores.device))],
        iou_threshold=options.nms_iou,
        min_score=0.0,
        max_seg_num=options.max_segments,
        method="hard",
        multiclass=False,
    )
    weight = torch.where(iou_matrix(kept, segments) >= options.support_iou, scores[None, :], 0.0)  # (N, candidates)
    weight.scatter_(1, index[:, None], scores[index][:, None])  # a segment supports itself
    weight = weight / weight.sum(dim=1, keepdim=True)
    # averaging differences makes the mean of equal ends exact; otherwise, where an end is the time of a point, rounding
    # would decide whether that point lies inside the segment
    shift = (weight[:, :, None] * (segments[None] - kept[:, None])).sum(dim=1)  # (N, candidates, 2) -> (N, 2)
    return PseudoSegments(kept + shift, kept_scores, weight @ logits / options.temperature)


def select(proposals: PseudoSegments, options: PseudoSection, class_scores: Tensor | None = None) -> Tensor:
    """(N,) bool: the proposals that the student learns from.

    Args:
        options: `semi_cfg.pseudo`; `options.select` is the rule.
        class_scores: (C,) running mean score of every class, for the rule `per_class`.
    """
    if options.select == "topk":
        return torch.arange(len(proposals.scores), device=proposals.scores.device) < options.topk
    threshold = torch.full_like(proposals.scores, options.threshold)
    if options.select == "per_class" and class_scores is not None and len(proposals.scores):
        relative = class_scores / class_scores.max().clamp(min=1e-6)
        threshold = threshold * relative.to(threshold.device)[proposals.logits.argmax(dim=-1)]
    return proposals.scores >= threshold


def point_probs(output: PyramidOutput, row: int, options: PseudoSection) -> Tensor:
    """Class distributions (P, C + 1), background last, at the valid points of the video in `row` of the batch, level by
    level."""
    logits = torch.cat([z[row, mask[row]].float() for z, mask in zip(output.logits, output.masks, strict=True)])
    return (with_background(logits, options.background_logit or 0.0) / options.temperature).softmax(dim=-1)


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
    get nothing, and the rest the class targets `elsewhere`.
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
        rows.append((y, w, offsets, v, owned))
    *columns, owned = (torch.stack(column) for column in zip(*rows, strict=True))
    return PointTargets(Targets(*columns), owned)
