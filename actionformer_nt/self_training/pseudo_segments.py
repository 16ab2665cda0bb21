"""Pseudo segments: the teacher's outputs on the views of a video -> segments with class distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from actionformer_nt.pseudo_sections import PseudoSection
from libs.modeling.class_form import ClassForm
from libs.modeling.location_quality import predicted_factor
from libs.modeling.losses import iou_matrix
from libs.modeling.meta_archs import PyramidOutput
from libs.nms.suppress import nms_videos

from .views import Geometry


class PseudoSegments(NamedTuple):
    """Pseudo segments of one video, by falling score."""

    segments: Tensor  # (N, 2) grid steps of the teacher's view
    scores: Tensor  # (N,)
    logits: Tensor  # (N, C) score-weighted mean logits of the supporting candidates, divided by the temperature
    spread: Tensor | None = None  # (N, 2) standard deviations of start and end over the supporting candidates, in steps
    quality: Tensor | None = None  # (N,) mean factor of the quality head over the supporting candidates

    def select(self, keep: Tensor) -> PseudoSegments:
        """Segments selected by a boolean mask (N,) or by indices (K,)."""
        return PseudoSegments(*(None if column is None else column[keep] for column in self))  # type: ignore[arg-type]

    def cpu(self) -> PseudoSegments:
        """The same on the CPU."""
        return PseudoSegments(*(None if column is None else column.cpu() for column in self))  # type: ignore[arg-type]

    @property
    def probs(self) -> Tensor:
        """Distributions over the actions (N, C): softmax of the logits. For a sigmoid head, this is the distribution of
        independent Bernoulli variables, given that exactly one of them is 1."""
        return self.logits.softmax(dim=-1)

    @property
    def boundary_weight(self) -> Tensor:
        """(N,) exp(-(spread of the start + spread of the end) / length), 1 where the supporting candidates agree."""
        if self.spread is None:
            return torch.ones_like(self.scores)
        return (-self.spread.sum(dim=1) / (self.segments[:, 1] - self.segments[:, 0]).clamp(min=1e-6)).exp()

    @property
    def stability(self) -> Tensor:
        """(N,) 1 - (spread of the start + spread of the end) / (2 length), at least 0."""
        if self.spread is None:
            return torch.ones_like(self.scores)
        length = (self.segments[:, 1] - self.segments[:, 0]).clamp(min=1e-6)
        return (1 - self.spread.sum(dim=1) / (2 * length)).clamp(min=0)


class PointPseudo(NamedTuple):
    """What the teacher says at its P valid points, level by level."""

    probs: Tensor  # (P, C + 1) class distributions, background last
    scores: Tensor  # (P, C) scores of the actions
    segments: Tensor  # (P, 2) in grid steps of the teacher's view
    quality: Tensor | None = None  # (P,) factors of the quality head


class PyramidPseudo(NamedTuple):
    """Pseudo labels of one video."""

    proposals: PseudoSegments
    selected: Tensor  # (N,) bool: the proposals that the student learns from
    ignored: Tensor  # (N,) bool: proposals whose points teach nothing, unless a selected proposal owns them
    likely: Tensor  # (N, C) bool: classes whose own score is at least the threshold
    points: PointPseudo | None  # if points are used

    @property
    def segments(self) -> PseudoSegments:
        """The selected proposals."""
        return self.proposals.select(self.selected)


class Candidates(NamedTuple):
    """Candidates of the teacher on one view, best first, in grid steps of the weak view."""

    segments: Tensor  # (M, 2)
    scores: Tensor  # (M,) of the best class
    logits: Tensor  # (M, C)
    quality: Tensor | None = None  # (M,) factors of the quality head
    geometry: Geometry | None = None  # from the weak view to this view; None: the weak view itself
    steps: int = 0  # length of this view, if it is not the weak view

    def seen(self, segments: Tensor) -> Tensor:
        """(N,) bool: whether at least half of each segment (N, 2) lies in this view."""
        if self.geometry is None:
            return torch.ones(len(segments), dtype=torch.bool, device=segments.device)
        return self.geometry.project(segments.cpu(), self.steps)[1].to(segments.device)


@torch.no_grad()
def candidates(
    output: PyramidOutput,
    row: int,
    *,
    class_form: str = "sigmoid",
    pre_nms_topk: int = 2000,
    scale: float = 1.0,
    quality_score: bool = True,
) -> Candidates:
    """The candidates of a teacher's output: at most `pre_nms_topk * scale`, one per point, with the best class of the
    point.

    Args:
        row: row of the video in the batch.
        quality_score: scores are multiplied by the factors of the quality head, if there is one.
    """
    logits, segments, quality = output.of_video(row)
    factor = None if quality is None else predicted_factor(quality)
    scores = ClassForm(class_form).scores(logits).max(dim=-1).values
    if factor is not None and quality_score:
        scores = scores * factor
    order = scores.argsort(descending=True, stable=True)
    order = order[(segments[order, 1] - segments[order, 0] > 0.05) & (scores[order] > 0.01)]
    order = order[: math.ceil(pre_nms_topk * scale)]
    return Candidates(segments[order], scores[order], logits[order], None if factor is None else factor[order])


def mapped_back(found: Candidates, geometry: Geometry, steps: int) -> Candidates:
    """Candidates on another view, moved to the weak view.

    Args:
        geometry: from the weak view to the other view; steps: length of the other view.
    """
    moved = geometry.inverse(found.segments.flatten().cpu()).view(-1, 2).to(found.segments)
    moved = torch.stack([moved.amin(dim=1), moved.amax(dim=1)], dim=1)  # `flip` reverses time
    return found._replace(segments=moved, geometry=geometry, steps=steps)


@torch.no_grad()
def propose(
    views: Sequence[Candidates], options: PseudoSection, *, most_overlap: float = 1.0, scale: float = 1.0
) -> PseudoSegments:
    """Proposes pseudo segments from the candidates of all views of a video, before any selection.

    Class-agnostic hard NMS over the candidates. Ends and logits of a segment are then replaced by the score-weighted
    means over its supporting candidates, those with a tIoU of at least `support_iou`. Of several views, the score is
    the mean over the views that see the segment of the best supporting candidate's score, 0 where a view has none.
    Last, segments that overlap a better one too much are dropped (`disjoint`).

    Args:
        views: the weak view first.
        options: `semi_cfg.pseudo`.
        most_overlap: see `disjoint`.
        scale: at most `options.max_segments * scale` segments remain after NMS.
    """
    segments, scores, logits = (torch.cat(columns) for columns in list(zip(*views, strict=True))[:3])
    factors = [v.quality for v in views if v.quality is not None]
    quality = torch.cat(factors) if factors else None
    if not len(scores):
        return PseudoSegments(segments, scores, logits, torch.zeros_like(segments), quality)
    view = torch.cat([torch.full_like(v.scores, k, dtype=torch.long) for k, v in enumerate(views)])
    ((kept, kept_scores, index),) = nms_videos(
        [(segments, scores, torch.arange(len(scores), device=scores.device))],
        iou_threshold=options.nms_iou,
        min_score=0.0,
        max_seg_num=math.ceil(options.max_segments * scale),
        method="hard",
        multiclass=False,
    )
    support = torch.where(iou_matrix(kept, segments) >= options.support_iou, scores[None, :], 0.0)  # (N, candidates)
    support.scatter_(1, index[:, None], scores[index][:, None])  # a segment supports itself
    weight = support / support.sum(dim=1, keepdim=True)
    shift, spread = _mean_shift(kept, segments, weight)
    if len(views) > 1:
        kept_scores = _mean_over_views(views, kept, view, support)
    found = PseudoSegments(
        kept + shift, kept_scores, weight @ logits / options.temperature, spread,
        None if quality is None else weight @ quality,
    )  # fmt: skip
    if len(views) > 1:
        found = found.select(found.scores.argsort(descending=True, stable=True))
    return found.select(disjoint(found.segments, most_overlap)) if most_overlap < 1 else found


def _mean_shift(kept: Tensor, segments: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation, each (N, 2), of the differences of segments (M, 2) to segments (N, 2).

    Averaging differences makes the mean of equal ends exact; otherwise, where an end is the time of a point, rounding
    would decide whether that point lies inside the segment.

    Args:
        weight: (N, M), rows with the sum 1.
    """
    difference = segments[None] - kept[:, None]  # (N, M, 2)
    shift = (weight[:, :, None] * difference).sum(dim=1)
    return shift, (weight[:, :, None] * (difference - shift[:, None]).square()).sum(dim=1).sqrt()


class Supported(NamedTuple):
    """What candidates say about given segments."""

    segments: Tensor  # (N, 2) mean of the supporting candidates, in grid steps of the weak view
    probs: Tensor  # (N, C)
    seen: Tensor  # (N,) bool: segments with a supporting candidate


def supported(segments: Tensor, found: Candidates, options: PseudoSection) -> Supported:
    """Ends and distributions of given segments (N, 2) as `propose` would average them over other candidates."""
    support = torch.where(iou_matrix(segments, found.segments) >= options.support_iou, found.scores[None, :], 0.0)
    total = support.sum(dim=1, keepdim=True)
    weight = support / total.clamp(min=1e-12)
    shift, _ = _mean_shift(segments, found.segments, weight)
    logits = weight @ found.logits / options.temperature
    return Supported(segments + shift, logits.softmax(dim=-1), total[:, 0] > 0)


def _mean_over_views(views: Sequence[Candidates], kept: Tensor, view: Tensor, support: Tensor) -> Tensor:
    """(N,) mean over the views that see a segment of its best supporter's score there.

    Args:
        kept: (N, 2) segments; view: (M,) view of each candidate; support: (N, M) scores of supporters, else 0.
    """
    total, number = torch.zeros_like(kept[:, 0]), torch.zeros_like(kept[:, 0])
    for k, candidates_of_view in enumerate(views):
        seen = candidates_of_view.seen(kept)
        own = support[:, view == k]
        best = own.amax(dim=1) if own.shape[1] else torch.zeros_like(total)
        total, number = total + torch.where(seen, best, 0.0), number + seen
    return total / number.clamp(min=1)


def overlap_matrix(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over the shorter of every pair of segments, (N, 2) and (M, 2) -> (N, M)."""
    inter = (torch.minimum(a[:, None, 1], b[None, :, 1]) - torch.maximum(a[:, None, 0], b[None, :, 0])).clamp(min=0)
    shorter = torch.minimum((a[:, 1] - a[:, 0])[:, None], (b[:, 1] - b[:, 0])[None, :])
    return inter / shorter.clamp(min=1e-8)


def disjoint(segments: Tensor, most_overlap: float) -> Tensor:
    """(N,) bool: segments (N, 2), best first, that overlap no better kept segment by more than `most_overlap`, a share
    of the shorter of the two."""
    too_much = (overlap_matrix(segments, segments) > most_overlap).cpu()
    keep = torch.ones(len(segments), dtype=torch.bool)
    for i in range(1, len(segments)):
        keep[i] = not (too_much[i, :i] & keep[:i]).any()
    return keep.to(segments.device)
