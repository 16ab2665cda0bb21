"""What the hidden labels of unlabeled videos say about pseudo labels: for curves only, never for training.

Nothing here is called unless `semi_cfg.log_hidden` or the diagnostic method asks for it, and nothing draws random
numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from libs.core.types import Config
from libs.datasets import make_dataset
from libs.datasets.annotations import read_annotations
from libs.datasets.video import VideoItem
from libs.modeling.losses import iou_matrix

from .splits import Split

MATCH_IOU = 0.5


class HiddenLabels:
    """The events of unlabeled videos, on the grids of their features. Of videos marked `"labeled": false` nobody knows
    any: they are left out."""

    def __init__(self, config: Config, split: Split) -> None:
        annotations = read_annotations(
            config["dataset"]["json_file"], label_ids=split.label_ids, source=f"the classes of split {split.source}"
        )
        dataset = make_dataset(
            config["dataset_name"], True, config["train_split"], **config["dataset"],
            annotations=annotations, video_ids=frozenset(split.unlabeled),
        )  # fmt: skip
        self.videos = [video for video in dataset.videos if video.labeled]
        self.events = {video.id: dataset.events(i) for i, video in enumerate(dataset.videos) if video.labeled}

    def of(self, video: VideoItem) -> tuple[Tensor, Tensor]:
        """Segments (N, 2) in steps of a sample's features, and labels (N,)."""
        if video["video_id"] not in self.events:
            return torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)
        segments, labels = self.events[video["video_id"]]
        length = video["feats"].shape[1]
        moved = segments - np.float32(video["feat_start"])
        inside = (moved[:, 1] > 0) & (moved[:, 0] < length)
        return torch.from_numpy(moved[inside]), torch.from_numpy(labels[inside])

    def true_class(self, video: VideoItem, found: Tensor) -> Tensor:
        """(N,) class of the event that each segment (N, 2), in steps of the sample, overlaps most; -1 where it overlaps
        none by half."""
        segments, labels = self.of(video)
        if not len(segments) or not len(found):
            return torch.full((len(found),), -1)
        overlap, event = iou_matrix(found.cpu(), segments).max(dim=1)
        return torch.where(overlap >= MATCH_IOU, labels[event], -1)
