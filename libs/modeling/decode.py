"""Logits and offsets -> candidate segments on the feature grid -> detections in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from libs.core.types import TestConfig
from libs.datasets.video import VideoItem
from libs.nms.suppress import nms_videos

from .class_form import ClassForm


class VideoDetections(TypedDict):
    """Detections of one video, on the CPU, by falling score."""

    video_id: str
    segments: Tensor  # (N, 2) seconds
    scores: Tensor  # (N,)
    labels: Tensor  # (N,)


class Candidates(NamedTuple):
    """Candidate segments of one video before NMS."""

    segments: Tensor  # (N, 2) grid steps, not clipped to the video
    scores: Tensor  # (N,)
    labels: Tensor  # (N,)


def decode(
    logits: list[Tensor],
    offsets: list[Tensor],
    masks: list[Tensor],
    points: list[Tensor],
    *,
    pre_nms_thresh: float,
    pre_nms_topk: int,
    duration_thresh: float,
    factors: list[Tensor] | None = None,
    class_form: ClassForm = ClassForm.SIGMOID,
    name: str = "video",
) -> Candidates:
    """Candidates of one video: the best `pre_nms_topk` of every level, concatenated.

    Args:
        logits: (T_l, C) per level; offsets: (T_l, 2); masks: (T_l,); points: (T_l, 4).
        pre_nms_thresh: candidates have a higher score.
        duration_thresh: candidates are longer, in grid steps.
        factors: (T_l,) per level; the scores of a point are multiplied by its factor.
        class_form: interpretation of the logits.
        name: names the video in error messages.

    Raises:
        ValueError: logits, offsets or factors are not finite.
    """
    parts = []
    for level, (z, distance, mask, point) in enumerate(zip(logits, offsets, masks, points, strict=True)):
        num_valid = int(mask.sum())  # valid steps come first: padding is at the end
        num_classes = z.shape[1]
        factor = z.new_ones(num_valid) if factors is None else factors[level][:num_valid]
        if not all(torch.isfinite(x).all() for x in (z[:num_valid], distance[:num_valid], factor)):
            raise ValueError(
                f"{name}: the network's output is not finite: the weights have diverged, or the features are bad"
            )
        scores = (class_form.scores(z[:num_valid]) * factor[:, None]).flatten()
        index = (scores > pre_nms_thresh).nonzero()[:, 0]
        order = scores[index].argsort(descending=True, stable=True)[:pre_nms_topk]
        index = index[order]
        row, label = index // num_classes, index % num_classes
        segments = offsets_to_segments(point[row], distance[row])
        keep = segments[:, 1] - segments[:, 0] > duration_thresh
        parts.append(Candidates(segments[keep], scores[index][keep], label[keep]))
    return Candidates(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def offsets_to_segments(points: Tensor, offsets: Tensor) -> Tensor:
    """Offsets (N, 2), in units of the stride, at pyramid points (N, 4) -> segments (N, 2) in grid steps."""
    time, stride = points[:, 0], points[:, 3]
    return torch.stack([time - offsets[:, 0] * stride, time + offsets[:, 1] * stride], dim=1)


def segments_to_offsets(points: Tensor, segments: Tensor) -> Tensor:
    """Segments (N, 2) in grid steps -> offsets (N, 2), in units of the stride, at pyramid points (N, 4)."""
    time, stride = points[:, 0], points[:, 3]
    return torch.stack([time - segments[:, 0], segments[:, 1] - time], dim=1) / stride[:, None]


def postprocess(candidates: list[Candidates], videos: list[VideoItem], test_cfg: TestConfig) -> list[VideoDetections]:
    """Applies NMS to all videos in one call and converts the segments to seconds.

    Args:
        candidates: one entry per video, in the order of `videos`.
        videos: `video_id`, `fps`, `duration`, `feat_stride` and `feat_num_frames` are used.
    """
    kept: Sequence[tuple[Tensor, Tensor, Tensor]] = candidates
    if test_cfg["nms_method"] != "none":
        kept = nms_videos(
            [*candidates],
            iou_threshold=test_cfg["iou_threshold"],
            min_score=test_cfg["min_score"],
            max_seg_num=test_cfg["max_seg_num"],
            method="gaussian" if test_cfg["nms_method"] == "soft" else "hard",
            multiclass=test_cfg["multiclass_nms"],
            sigma=test_cfg["nms_sigma"],
            voting_thresh=test_cfg["voting_thresh"],
        )
    results = []
    for (segments, scores, labels), video in zip(kept, videos, strict=True):
        seconds = to_seconds(segments, video).cpu()
        results.append(
            VideoDetections(video_id=video["video_id"], segments=seconds, scores=scores.cpu(), labels=labels.cpu())
        )
    return results


def to_seconds(steps: Tensor, video: VideoItem) -> Tensor:
    """Grid steps x -> seconds, (x * feat_stride + feat_num_frames / 2) / fps, clipped to [0, duration]."""
    seconds = (steps * video["feat_stride"] + 0.5 * video["feat_num_frames"]) / video["fps"]
    return seconds.clamp(min=0.0, max=video["duration"])
