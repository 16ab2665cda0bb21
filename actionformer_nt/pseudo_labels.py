"""Pseudo labels: from a teacher's output to segments with class distributions, and on to a student's points."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from libs.modeling.assignment import Targets, match_points
from libs.modeling.losses import class_scores
from libs.modeling.meta_archs import PyramidOutput
from libs.utils.nms import nms_videos

from .methods import ClassTargets


class PseudoSegments(NamedTuple):
    """Of one video, best first."""

    segments: Tensor  # (N, 2) in steps of the grid that the teacher saw
    scores: Tensor  # (N,)
    logits: Tensor  # (N, C) mean logits of the supporting points, weighted by their scores, over the temperature

    def select(self, keep: Tensor) -> PseudoSegments:
        return PseudoSegments(*(column[keep] for column in self))

    @property
    def probs(self) -> Tensor:
        """(N, C): the distribution over the actions, given that there is one. For independent Bernoulli variables
        with these logits it is the conditional given exactly one success."""
        return self.logits.softmax(dim=-1)


@torch.no_grad()
def propose(
    output: PyramidOutput, row: int, options: dict[str, Any], *, class_form: str = "sigmoid", pre_nms_topk: int = 2000
) -> PseudoSegments:
    """All segments of the video in `row` of a teacher's output, before any selection: class-agnostic hard NMS over
    each point's best class; boundaries and logits are means over a segment's supporters, weighted by score.

    Args:
        options: `semi_cfg.pseudo`.
    """
    logits, segments = [], []
    for z, distance, mask, point in zip(output.logits, output.offsets, output.masks, output.points, strict=True):
        valid = int(mask[row].sum())
        time, stride = point[:valid, 0], point[:valid, 3]
        distance = distance[row, :valid].float()
        logits.append(z[row, :valid].float())
        segments.append(torch.stack([time - distance[:, 0] * stride, time + distance[:, 1] * stride], dim=1))
    logits, segments = torch.cat(logits), torch.cat(segments)
    scores = class_scores(logits, class_form).max(dim=-1).values
    order = scores.argsort(descending=True, stable=True)
    order = order[(segments[order, 1] - segments[order, 0] > 0.05) & (scores[order] > 0.01)][:pre_nms_topk]
    logits, segments, scores = logits[order], segments[order], scores[order]
    if not len(scores):
        return PseudoSegments(segments, scores, logits)
    ((kept, kept_scores, index),) = nms_videos(
        [(segments, scores, torch.arange(len(scores), device=scores.device))],
        iou_threshold=options["nms_iou"],
        min_score=0.0,
        max_seg_num=options["max_segments"],
        method="hard",
        multiclass=False,
    )
    weight = torch.where(iou_matrix(kept, segments) >= options["support_iou"], scores[None, :], 0.0)  # (N, candidates)
    weight.scatter_(1, index[:, None], scores[index][:, None])  # a segment supports itself
    weight = weight / weight.sum(dim=1, keepdim=True)
    return PseudoSegments(weight @ segments, kept_scores, weight @ logits / options["temperature"])


def select(found: PseudoSegments, options: dict[str, Any], class_scores: Tensor | None = None) -> PseudoSegments:
    """The segments that are used as pseudo labels.

    Args:
        options: `semi_cfg.pseudo`: `fixed`: score at least `threshold`; `per_class`: at least `threshold` times the
            class's running score over that of the best class; `topk`: the best `topk`.
        class_scores: (C,) running mean of the scores per class, for `per_class`.
    """
    if options["select"] == "topk":
        return found.select(torch.arange(min(options["topk"], len(found.scores)), device=found.scores.device))
    threshold = torch.full_like(found.scores, options["threshold"])
    if options["select"] == "per_class" and class_scores is not None and len(found.scores):
        relative = class_scores / class_scores.max().clamp(min=1e-6)
        threshold = threshold * relative.to(threshold.device)[found.logits.argmax(dim=-1)]
    return found.select(found.scores >= threshold)


def spread(
    output: PyramidOutput,
    segments: list[Tensor],
    targets: list[ClassTargets],
    *,
    options: dict[str, Any],
    center_sample: str,
    center_sample_radius: float,
) -> Targets:
    """Targets of a student's points: a point of a pseudo segment has the segment's Y, W and distances, the others
    are background (Y = 0) with the weight that `options["background"]` gives them.

    Args:
        segments: per video (N, 2) in steps of the student's view; targets: per video Y and W, (N, C).
    """
    points, mask = torch.cat(output.points), torch.cat(output.masks, dim=1)
    num_classes = output.logits[0].shape[-1]
    other = {"negative": 1.0, "ignore": 0.0, "weighted": options["background_weight"]}[options["background"]]
    rows = []
    for valid, s, t in zip(mask, segments, targets, strict=True):
        y = points.new_zeros(len(points), num_classes)
        w = points.new_full((len(points), num_classes), other)
        offsets, positive = points.new_zeros(len(points), 2), valid.new_zeros(len(points))
        if len(s):
            match = match_points(points, s, center_sample=center_sample, center_sample_radius=center_sample_radius)
            positive = match.shared.any(dim=1) & valid
            offsets = match.offsets
            y[positive] = t.target[match.chosen[positive]].to(y)
            w[positive] = t.weight[match.chosen[positive]].to(w)
        rows.append((y, w * valid[:, None], offsets, positive.to(y)))
    return Targets(*(torch.stack(columns) for columns in zip(*rows, strict=True)))


def iou_matrix(a: Tensor, b: Tensor) -> Tensor:
    """(N, 2), (M, 2) -> (N, M)."""
    inter = (torch.minimum(a[:, None, 1], b[None, :, 1]) - torch.maximum(a[:, None, 0], b[None, :, 0])).clamp(min=0)
    union = (a[:, 1] - a[:, 0])[:, None] + (b[:, 1] - b[:, 0])[None, :] - inter
    return inter / union.clamp(min=1e-8)
