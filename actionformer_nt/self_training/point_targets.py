"""Targets of the student's points, in and outside pseudo segments."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from actionformer_nt.methods import ClassTargets
from actionformer_nt.methods.label_space import partition
from actionformer_nt.pseudo_sections import PseudoSection
from libs.modeling.assignment import Targets, match_points
from libs.modeling.class_form import ClassForm
from libs.modeling.losses import with_background
from libs.modeling.meta_archs import PyramidOutput


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
