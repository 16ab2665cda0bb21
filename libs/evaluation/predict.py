"""One pass of a model over a split: its detections, and their mAP."""

from __future__ import annotations

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

from .detections import Detections, concatenate, make_detections, write_results
from .score_fusion import fuse_scores, read_video_scores

logger = logging.getLogger(__name__)


def predict(
    val_loader: Iterable[list[dict[str, Any]]], model: nn.Module, *, progress: bool = False, desc: str = "evaluating"
) -> Detections:
    """Detections of all videos of a loader, in its order; of several processes, each with its share of the videos
    (`make_data_loader`), those of all. The model's mode is restored."""
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
    """Runs a model over a split, writes its detections or evaluates them, or both.

    Args:
        ext_score_file: class scores of whole videos to fuse with before evaluating (see `score_fusion`).
        evaluator: something like `ANETdetection`.
        output_file: where the detections go, as ActivityNet's result JSON (another suffix becomes `.json`); as in
            ActionFormer these are the model's own, before any fusion.
        num_pred, topk: of the fusion.

    Returns:
        Average mAP, 0 without an evaluator.
    """
    if evaluator is None and output_file is None:
        raise ValueError("valid_one_epoch: give an evaluator or an output_file, or both")
    detections = predict(val_loader, model, progress=progress)
    if output_file is not None:
        path = Path(output_file).with_suffix(".json")
        if path.name != os.path.basename(output_file):
            logger.warning("detections are written as JSON, to %s, instead of %s", path, output_file)
        dataset = val_loader.dataset
        agnostic = getattr(dataset, "class_agnostic", False)  # the one class has no name
        names = {} if agnostic else {i: name for name, i in getattr(dataset, "label_dict", {}).items()}
        write_results(path, detections, names)
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
