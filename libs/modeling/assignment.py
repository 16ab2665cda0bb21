"""Points of the feature pyramid, and label assignment: which points learn which event."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from libs.datasets.video import VideoItem

SAME_LENGTH = (
    1e-3  # grid steps; eligible events at most this much longer than the shortest share a point's class target
)


class Targets(NamedTuple):
    """Targets of the P points of all pyramid levels, concatenated."""

    cls: Tensor  # Y (B, P, C) in [0, 1]
    cls_weight: Tensor  # W (B, P, 1 or C); 0: ignored
    offsets: Tensor  # R (B, P, 2) distances to start and end in units of the stride
    offset_weight: Tensor  # V (B, P); 0: no regression


def pyramid_points(
    level_lengths: list[int], strides: list[int], regression_range: list[tuple[float, float]], device: torch.device
) -> list[Tensor]:
    """Points of every level, (T_l, 4) per level: time, regression range (low, high) and stride, in grid steps.

    Point i of a level with stride S lies at time i * S, without an offset of half a cell.
    """
    points = []
    for length, stride, (low, high) in zip(level_lengths, strides, regression_range, strict=True):
        level = torch.empty(length, 4, device=device)
        level[:, 0] = torch.arange(length, device=device) * stride
        level[:, 1], level[:, 2], level[:, 3] = low, high, stride
        points.append(level)
    return points


def events_of(video: VideoItem, num_classes: int) -> tuple[Tensor, Tensor]:
    """Segments (N, 2) and labels (N,) of a sample; N = 0 for a sample without them.

    Raises:
        ValueError: a label outside [0, num_classes); names the video.
    """
    s, y = video.get("segments"), video.get("labels")
    s = torch.zeros(0, 2) if s is None else s
    y = torch.zeros(0, dtype=torch.long) if y is None else y
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < num_classes:
        raise ValueError(
            f"video '{video['video_id']}': label ids {y.unique().tolist()} outside [0, num_classes={num_classes})"
        )
    return s, y


class PointMatch(NamedTuple):
    """Assignment of the N segments of one video to P points."""

    shared: Tensor  # (P, N) bool: eligible, and at most SAME_LENGTH longer than the shortest eligible segment
    chosen: Tensor  # (P,) index of the shortest eligible segment, the first on a tie; 0 without any
    offsets: Tensor  # (P, 2) distances to start and end of the chosen segment, in units of the stride


def match_points(
    points: Tensor, segments: Tensor, *, center_sample: str = "radius", center_sample_radius: float = 1.5
) -> PointMatch:
    """Assigns to every point the shortest eligible segment.

    A segment is eligible for a point inside it (and, with `center_sample: radius`, within `center_sample_radius`
    strides of its centre) whose larger distance to start or end lies in the regression range of the point's level.

    Args:
        points: (P, 4) of `pyramid_points`, concatenated.
        segments: (N, 2) in grid steps, N > 0.
    """
    time, low, high, stride = points[:, :, None].unbind(1)  # each (P, 1)
    start, end = segments[None].unbind(-1)  # each (1, N)
    left, right = time - start, end - time  # (P, N)
    if center_sample == "radius":
        center = 0.5 * (start + end)
        inside = (time - torch.maximum(center - center_sample_radius * stride, start) > 0) & (
            torch.minimum(center + center_sample_radius * stride, end) - time > 0
        )
    else:
        inside = (left > 0) & (right > 0)
    reach = torch.maximum(left, right)
    eligible = inside & (reach >= low) & (reach <= high)

    length = torch.where(eligible, (end - start).expand_as(eligible), torch.inf)
    shortest, chosen = length.min(dim=1)
    shared = eligible & (length <= shortest[:, None] + SAME_LENGTH)
    offsets = torch.stack([left, right], dim=-1)[torch.arange(len(points), device=points.device), chosen]
    return PointMatch(shared, chosen, offsets / points[:, 3:4])


def assign_labels(
    points: Tensor,
    mask: Tensor,
    segments: list[Tensor],
    labels: list[Tensor],
    *,
    num_classes: int,
    center_sample: str = "radius",
    center_sample_radius: float = 1.5,
) -> Targets:
    """Supervised targets as in ActionFormer: every valid point has weight 1 for every class, and is positive for the
    classes of its segments (`PointMatch.shared`).

    Args:
        points: (P, 4) of `pyramid_points`, concatenated.
        mask: (B, P) bool, valid points.
        segments: per video (N, 2) in grid steps; labels: per video (N,).
    """
    cls, offsets = [], []
    for s, y in zip(segments, labels, strict=True):
        if not len(s):
            cls.append(points.new_zeros(len(points), num_classes))
            offsets.append(points.new_zeros(len(points), 2))
            continue
        match = match_points(points, s, center_sample=center_sample, center_sample_radius=center_sample_radius)
        one_hot = F.one_hot(y, num_classes).to(points.dtype)  # (N, C)
        cls.append((match.shared.to(points.dtype) @ one_hot).clamp(max=1.0))
        offsets.append(match.offsets)
    target = torch.stack(cls)
    positive = (target.sum(-1) > 0) & mask
    return Targets(target, mask[..., None].to(target.dtype), torch.stack(offsets), positive.to(target.dtype))
