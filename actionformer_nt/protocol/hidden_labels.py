"""The hidden labels of unlabeled videos, which measure the quality of pseudo labels and feed the diagnostic oracle.

This module is used only if `semi_cfg.log_hidden` or the diagnostic method asks for it. It draws no random numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from libs.core.types import Config
from libs.datasets import make_dataset
from libs.datasets.video import VideoItem
from libs.modeling.losses import iou_matrix

from .splits import Split, read_shown

MATCH_IOU = 0.5


class HiddenLabels:
    """The events of unlabeled videos, in steps of their features. Videos marked `"labeled": false` are left out, since
    their events are unknown."""

    def __init__(self, config: Config, split: Split) -> None:
        annotations = read_shown(config["dataset"]["json_file"], split)
        dataset = make_dataset(
            config["dataset_name"], True, config["train_split"], **config["dataset"],
            annotations=annotations, video_ids=frozenset(split.unlabeled),
        )  # fmt: skip
        self.videos = [video for video in dataset.videos if video.labeled]
        self.events = {video.id: dataset.events(i) for i, video in enumerate(dataset.videos) if video.labeled}

    def of(self, video: VideoItem) -> tuple[Tensor, Tensor]:
        """Segments (N, 2) in steps of a sample's features, and labels (N,), of the events that overlap the sample."""
        if video["video_id"] not in self.events:
            return torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)
        segments, labels = self.events[video["video_id"]]
        length = video["feats"].shape[1]
        moved = segments - np.float32(video["feat_start"])
        inside = (moved[:, 1] > 0) & (moved[:, 0] < length)
        return torch.from_numpy(moved[inside]), torch.from_numpy(labels[inside])

    def true_class(self, video: VideoItem, segments: Tensor) -> Tensor:
        """(N,) class of the event with the largest IoU with each segment (N, 2), in steps of the sample; -1 if the IoU
        is below `MATCH_IOU`."""
        events, labels = self.of(video)
        if not len(events) or not len(segments):
            return torch.full((len(segments),), -1)
        iou, best = iou_matrix(segments.cpu(), events).max(dim=1)
        return torch.where(iou >= MATCH_IOU, labels[best], -1)
