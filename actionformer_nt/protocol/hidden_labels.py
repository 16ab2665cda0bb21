"""What the hidden labels of unlabeled videos say about pseudo labels: for curves only, never for training.

Nothing here is called unless `semi_cfg.log_hidden` or the diagnostic method asks for it, and nothing draws random
numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from actionformer_nt.methods.label_space import partition
from actionformer_nt.self_training.pseudo_segments import PseudoSegments, iou_matrix
from libs.datasets import make_dataset
from libs.datasets.annotations import read_annotations

from .splits import Split

MATCH_IOU = 0.5


class HiddenLabels:
    """The events of unlabeled videos, on the grids of their features. Of videos marked `"labeled": false` nobody knows
    any: they are left out."""

    def __init__(self, config: dict[str, Any], split: Split) -> None:
        annotations = read_annotations(
            config["dataset"]["json_file"], label_ids=split.label_ids, source=f"the classes of split {split.source}"
        )
        dataset = make_dataset(
            config["dataset_name"], True, config["train_split"], **config["dataset"],
            annotations=annotations, video_ids=frozenset(split.unlabeled),
        )  # fmt: skip
        self.videos = [video for video in dataset.videos if video.labeled]
        self.events = {video.id: dataset.events(i) for i, video in enumerate(dataset.videos) if video.labeled}

    def of(self, video: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Segments (N, 2) in steps of a sample's features, and labels (N,)."""
        if video["video_id"] not in self.events:
            return torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)
        segments, labels = self.events[video["video_id"]]
        length = video["feats"].shape[1]
        moved = segments - np.float32(video["feat_start"])
        inside = (moved[:, 1] > 0) & (moved[:, 0] < length)
        return torch.from_numpy(moved[inside]), torch.from_numpy(labels[inside])

    def true_class(self, video: dict[str, Any], found: PseudoSegments) -> Tensor:
        """(N,) class of the event that each pseudo segment overlaps most, -1 where it overlaps none by half."""
        segments, labels = self.of(video)
        if not len(segments) or not len(found.segments):
            return torch.full((len(found.segments),), -1)
        overlap, event = iou_matrix(found.segments.cpu(), segments).max(dim=1)
        return torch.where(overlap >= MATCH_IOU, labels[event], -1)

    def measure(self, videos: list[dict[str, Any]], pseudo: list[PseudoSegments], lam: float) -> dict[str, float]:
        """Quality of pseudo labels, and the paper's two observations (section III-B).

        Returns:
            Counts, to be summed over iterations: pseudo segments, those on an event, those with its class, events,
            events found; of segments on an event whose target class is wrong: how many, and how many have the true
            class among the positives; of all segments on an event, how many have it among the negatives.
        """
        counts = dict.fromkeys(
            ("segments", "located", "correct", "events", "found", "wrong", "in_positive", "in_negative"), 0.0
        )
        for video, found in zip(videos, pseudo, strict=True):
            if video["video_id"] not in self.events:
                continue
            segments, labels = self.of(video)
            truth = self.true_class(video, found)
            on_event = truth >= 0
            counts["segments"] += len(truth)
            counts["located"] += int(on_event.sum())
            counts["events"] += len(labels)
            if not on_event.any():
                continue
            parts = partition(found.probs.cpu()[on_event], lam)
            index = truth[on_event][:, None]
            correct = parts.target.gather(1, index)[:, 0]
            counts["correct"] += int(correct.sum())
            counts["wrong"] += int((~correct).sum())
            counts["in_positive"] += int((parts.positive.gather(1, index)[:, 0] & ~correct).sum())
            counts["in_negative"] += int(parts.negative.gather(1, index).sum())
            predicted = found.probs.cpu().argmax(-1)
            same = predicted[:, None] == labels[None, :]
            hit = (iou_matrix(found.segments.cpu(), segments) >= MATCH_IOU) & same
            counts["found"] += int(hit.any(dim=0).sum())
        return counts


def rates(counts: dict[str, float]) -> dict[str, float]:
    """The curves `hidden/*` of summed counts; what has no denominator is left out."""
    pairs = {
        "precision": ("correct", "segments"),
        "located": ("located", "segments"),
        "recall": ("found", "events"),
        "target_accuracy": ("correct", "located"),
        "truth_among_positives_when_wrong": ("in_positive", "wrong"),
        "truth_among_negatives": ("in_negative", "located"),
    }
    return {f"hidden/{name}": counts[a] / counts[b] for name, (a, b) in pairs.items() if counts.get(b)}
