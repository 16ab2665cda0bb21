"""Outputs of two networks for the same snippets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from actionformer_nt.methods import Matched
from actionformer_nt.self_training.views import Geometry
from libs.datasets.video import VideoItem

from .pseudo_masks import view_index


def compare_windows(
    student: Any, teacher: Any, videos: list[VideoItem], views: list[VideoItem], geometries: list[Geometry]
) -> list[Matched]:
    """Outputs of the teacher on videos and, with gradient, of the student on views of them. Places are the mask
    probabilities of the matched snippets, over the matched snippets."""
    said: dict[int, tuple[Tensor, Tensor]] = {}  # logits (T, C + 1) and mask logits (T, T) of each video
    with torch.no_grad():
        for batch in teacher.batches(videos):  # one window a video
            output = teacher.network(batch.feats, batch.mask)
            said |= {i: (output.logits[row], output.masks[row]) for row, i in enumerate(batch.index)}
    (view_batch,) = student.batches(views)
    own = student.network(view_batch.feats, view_batch.mask)
    pairs = []
    for i, geometry in enumerate(geometries):
        logits, masks = said[i]
        lengths = [videos[i]["feats"].shape[1], views[i]["feats"].shape[1]]
        index = view_index(geometry, lengths[0], view_length=lengths[1], num_steps=student.num_steps)
        at = (index >= 0).nonzero()[:, 0].to(own.logits.device)  # snippets of the view
        source = index.to(at.device)[at]  # those of the video
        pairs.append(
            Matched(
                own.logits[i, at].float().softmax(dim=-1)[:, :-1],
                logits[source].float().softmax(dim=-1)[:, :-1],
                own.masks[i][at][:, at].float().sigmoid(),
                masks[source][:, source].float().sigmoid(),
            )
        )
    return pairs
