"""Pseudo labels: from a teacher's output to segments with class distributions, and on to a student's points."""

from __future__ import annotations

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
    """Of one video, best first."""

    segments: Tensor  # (N, 2) in steps of the grid that the teacher saw
    scores: Tensor  # (N,)
    logits: Tensor  # (N, C) mean logits of the supporting points, weighted by their scores, over the temperature

    def select(self, keep: Tensor) -> PseudoSegments:
        """Those of a boolean mask or of positions, (N,) or (K,)."""
        return PseudoSegments(*(column[keep] for column in self))

    @property
    def probs(self) -> Tensor:
        """(N, C): the distribution over the actions, given that there is one. For independent Bernoulli variables
        with these logits it is the conditional given exactly one success."""
        return self.logits.softmax(dim=-1)


@torch.no_grad()
def propose(
    output: PyramidOutput, row: int, options: PseudoSection, *, class_form: str = "sigmoid", pre_nms_topk: int = 2000
) -> PseudoSegments:
    """All segments of the video in `row` of a teacher's output, before any selection: class-agnostic hard NMS over
    each point's best class; boundaries and logits are means over a segment's supporters, weighted by score.

    Args:
        options: `semi_cfg.pseudo`.
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
    # as differences to the segment, so that the mean of equal ends, such as a point's own time, is exactly that end and
    # rounding does not decide on which side of it the point lies
    shift = (weight[:, :, None] * (segments[None] - kept[:, None])).sum(dim=1)  # (N, candidates, 2) -> (N, 2)
    return PseudoSegments(kept + shift, kept_scores, weight @ logits / options.temperature)


def select(found: PseudoSegments, options: PseudoSection, class_scores: Tensor | None = None) -> PseudoSegments:
    """The segments that are used as pseudo labels.

    Args:
        options: `semi_cfg.pseudo`: `fixed`: score at least `threshold`; `per_class`: at least `threshold` times the
            class's running score over that of the best class; `topk`: the best `topk`.
        class_scores: (C,) running mean of the scores per class, for `per_class`.
    """
    if options.select == "topk":
        return found.select(torch.arange(min(options.topk, len(found.scores)), device=found.scores.device))
    threshold = torch.full_like(found.scores, options.threshold)
    if options.select == "per_class" and class_scores is not None and len(found.scores):
        relative = class_scores / class_scores.max().clamp(min=1e-6)
        threshold = threshold * relative.to(threshold.device)[found.logits.argmax(dim=-1)]
    return found.select(found.scores >= threshold)


def point_probs(output: PyramidOutput, row: int, options: PseudoSection) -> Tensor:
    """(P, C + 1): the distribution over the actions and the background at the valid points of the video in `row`,
    level by level."""
    logits = torch.cat([z[row, mask[row]].float() for z, mask in zip(output.logits, output.masks, strict=True)])
    return (with_background(logits, options.background_logit or 0.0) / options.temperature).softmax(dim=-1)


def background_targets(num_classes: int, options: PseudoSection, *, form: str, partitioning: bool) -> ClassTargets:
    """Y and W (K,) of a point of no pseudo segment: the target is the background, and the actions are its negatives,
    in the softmax form for the methods alone that learn from non-target classes.

    Args:
        options: `semi_cfg.pseudo`.
        partitioning: whether the method is one of those.
    """
    weight = {"ignore": 0.0, "weighted": options.background_weight}.get(options.background, 1.0)
    return ClassTargets(*ClassForm(form).background_targets(num_classes, weight=weight, negatives=partitioning))


def spare_likely(background: ClassTargets, probs: Tensor, *, lam: float) -> ClassTargets:
    """Background targets (K,) at points where a teacher is unsure: W = 0 for the actions that are at least lambda
    times as probable as the background, or ambiguous among actions and background.

    Args:
        probs: (P, C + 1) of the teacher.

    Returns:
        Y and W (P, K).
    """
    spared = ((probs >= lam * probs[:, -1:]) | partition(probs, lam).ambiguous)[:, :-1]
    y, w = (column.to(probs).expand(len(probs), -1).clone() for column in background)
    w[:, : spared.shape[-1]].masked_fill_(spared, 0.0)
    return ClassTargets(y, w)


def assign_pseudo_labels(
    output: PyramidOutput,
    segments: list[Tensor],
    at_segments: list[ClassTargets] | None,
    at_points: list[ClassTargets],
    *,
    center_sample: str,
    center_sample_radius: float,
) -> Targets:
    """Targets of a student's points: a point of a pseudo segment has the segment's distances and its Y and W, the
    others, or without `at_segments` all, have those of `at_points`.

    Args:
        segments: per video (N, 2) in steps of the student's view.
        at_segments: per video Y and W, (N, K); at_points: per video Y and W, (K,) or (P, K) over its valid points.
    """
    points, mask = torch.cat(output.points), torch.cat(output.masks, dim=1)
    rows = []
    for i, (valid, s, elsewhere) in enumerate(zip(mask, segments, at_points, strict=True)):
        y, w = (points.new_zeros(len(points), elsewhere.target.shape[-1]) for _ in range(2))
        y[valid], w[valid] = elsewhere.target.to(y), elsewhere.weight.to(w)
        offsets, positive = points.new_zeros(len(points), 2), valid.new_zeros(len(points))
        if len(s):
            match = match_points(points, s, center_sample=center_sample, center_sample_radius=center_sample_radius)
            positive = match.shared.any(dim=1) & valid
            offsets = match.offsets
            if at_segments is not None:
                y[positive] = at_segments[i].target[match.chosen[positive]].to(y)
                w[positive] = at_segments[i].weight[match.chosen[positive]].to(w)
        rows.append((y, w, offsets, positive.to(y)))
    return Targets(*(torch.stack(columns) for columns in zip(*rows, strict=True)))
