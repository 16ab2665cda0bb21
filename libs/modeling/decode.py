"""Logits and offsets -> candidate segments on the feature grid -> detections in seconds."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from libs.utils.nms import batched_nms


class Candidates(NamedTuple):
    segments: Tensor  # (N, 2) in feature-grid steps, not clipped
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
) -> Candidates:
    """Candidates of one video, level after level, the best `pre_nms_topk` of each.

    Args:
        logits: (T_l, C) per level; offsets: (T_l, 2); masks: (T_l,); points: (T_l, 4).
        pre_nms_thresh: candidates score higher than this.
        duration_thresh: candidates last longer than this, in grid steps.
    """
    parts = []
    for z, distance, mask, point in zip(logits, offsets, masks, points, strict=True):
        num_valid = int(mask.sum())  # valid steps come first: padding is at the end
        num_classes = z.shape[1]
        scores = z[:num_valid].sigmoid().flatten()
        index = (scores > pre_nms_thresh).nonzero()[:, 0]
        order = scores[index].argsort(descending=True, stable=True)[:pre_nms_topk]
        index = index[order]
        row, label = index // num_classes, index % num_classes
        time, stride = point[row, 0], point[row, 3]
        segments = torch.stack([time - distance[row, 0] * stride, time + distance[row, 1] * stride], dim=1)
        keep = segments[:, 1] - segments[:, 0] > duration_thresh
        parts.append(Candidates(segments[keep], scores[index][keep], label[keep]))
    return Candidates(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def postprocess(candidates: Candidates, video: dict[str, Any], test_cfg: dict[str, Any]) -> dict[str, Any]:
    """NMS, then seconds: (x * feat_stride + feat_num_frames / 2) / fps, clamped to [0, duration].

    Args:
        video: with `video_id`, `fps`, `duration`, `feat_stride`, `feat_num_frames`.

    Returns:
        `video_id`, `segments` (N, 2) seconds, `scores` (N,), `labels` (N,), on the CPU, best first.
    """
    segments, scores, labels = (column.detach().cpu() for column in candidates)
    if test_cfg["nms_method"] != "none":
        segments, scores, labels = batched_nms(
            segments.float(),
            scores.float(),
            labels,
            test_cfg["iou_threshold"],
            test_cfg["min_score"],
            test_cfg["max_seg_num"],
            use_soft_nms=test_cfg["nms_method"] == "soft",
            multiclass=test_cfg["multiclass_nms"],
            sigma=test_cfg["nms_sigma"],
            voting_thresh=test_cfg["voting_thresh"],
        )
    seconds = (segments * video["feat_stride"] + 0.5 * video["feat_num_frames"]) / video["fps"]
    seconds = seconds.clamp(min=0.0, max=video["duration"])
    return {"video_id": video["video_id"], "segments": seconds, "scores": scores, "labels": labels}
