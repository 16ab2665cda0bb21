"""Runs a model over a split and returns its detections or their mAP."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from libs.core.distributed import gather_shares, share
from libs.core.types import Config
from libs.datasets.labels import label_names
from libs.datasets.video import VideoItem

from .detections import Detections, concatenate, make_detections, write_results
from .score_fusion import fuse_scores, read_video_scores

logger = logging.getLogger(__name__)


def with_topk(config: Config, topk: int) -> Config:
    """A copy of a configuration that keeps at most `topk` detections per video; `config` itself if `topk` <= 0."""
    if topk <= 0:
        return config
    config = copy.deepcopy(config)  # `model.test_cfg` and `test_cfg` stay one object
    config["test_cfg"]["max_seg_num"] = topk
    return config


def predict(
    val_loader: Iterable[list[VideoItem]], model: nn.Module, *, progress: bool = False, desc: str = "evaluating"
) -> Detections:
    """Detections of all videos of a loader, in its order. With several processes, each runs its share of the videos
    (see `make_data_loader`), and all get the detections of all videos. The model's training mode is restored."""
    was_training = model.training
    model.eval()
    parts = []
    count = len(share(range(len(getattr(val_loader, "dataset", val_loader)))))  # type: ignore[arg-type]
    with tqdm(total=count, desc=desc, unit="video", leave=False, disable=None if progress else True) as bar:
        for video_list in val_loader:
            with torch.no_grad():
                outputs = model(video_list)
            parts += [
                make_detections(
                    [output["video_id"]] * len(output["scores"]),
                    output["segments"][:, 0],
                    output["segments"][:, 1],
                    output["labels"],
                    output["scores"],
                )
                for output in outputs
            ]
            bar.update(len(video_list))
    model.train(was_training)
    return concatenate(gather_shares(parts))


def valid_one_epoch(
    val_loader: DataLoader,
    model: nn.Module,
    curr_epoch: int,
    ext_score_file: str | None = None,
    evaluator: Any = None,
    output_file: str | None = None,
    tb_writer: Any = None,
    print_freq: int = 20,
    *,
    num_pred: int = 200,
    topk: int = 2,
    progress: bool = True,
) -> float:
    """Runs a model over a split and writes its detections, evaluates them, or both.

    Args:
        ext_score_file: class scores of whole videos, fused with the detections before they are evaluated (see
            `score_fusion`).
        evaluator: an object like `ANETdetection`.
        output_file: result file in ActivityNet's JSON (another suffix becomes `.json`). As in ActionFormer, it holds
            the model's detections before fusion.
        num_pred, topk: see `fuse_scores`.

    Returns:
        Average mAP; 0 without an evaluator.

    Raises:
        ValueError: neither an evaluator nor an output file.
    """
    if evaluator is None and output_file is None:
        raise ValueError("valid_one_epoch: give an evaluator or an output_file, or both")
    detections = predict(val_loader, model, progress=progress)
    if output_file is not None:
        path = Path(output_file).with_suffix(".json")
        if path.name != os.path.basename(output_file):
            logger.warning("detections are written as JSON, to %s, instead of %s", path, output_file)
        write_results(path, detections, label_names(val_loader.dataset))
    if evaluator is None:
        return 0.0
    if ext_score_file is not None:
        dataset = val_loader.dataset
        scores = read_video_scores(ext_score_file, label_ids=getattr(dataset, "label_dict", None))
        detections = fuse_scores(detections, scores, num_pred=num_pred, topk=topk)
    _, average_map, _ = evaluator.evaluate(detections, verbose=True)
    if tb_writer is not None:
        tb_writer.add_scalar("validation/mAP", average_map, curr_epoch)
    return average_map
