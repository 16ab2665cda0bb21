"""Evaluates a checkpoint on the videos of `val_split` and writes the results."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from libs.core import distributed
from libs.core.device import select_device
from libs.core.files import write_text
from libs.core.seeding import fix_random_seed
from libs.core.types import Config, TestConfig
from libs.datasets import TALDataset, make_data_loader, make_dataset
from libs.datasets.annotations import Annotations
from libs.datasets.labels import label_names, names_of
from libs.training.checkpoint import find_checkpoint, load_checkpoint
from libs.training.resume import load_model
from libs.training.run_folder import (
    GROUND_TRUTH,
    results_folder,
    source_commit,
    stem_of_results,
)
from libs.training.run_identity import (
    CLASSES,
    check_classes,
    check_features,
    data_of_run,
    name_of_other_data,
    read_as_run,
    read_label_ids,
)
from libs.training.run_log import write_hyper_parameters

from .anet_detection import ANETdetection
from .average_precision import EvaluationResult
from .detections import Detections, write_ground_truth, write_results
from .predict import predict, with_topk
from .score_fusion import fuse_scores, read_video_scores
from .tables import format_result, result_to_dict, write_table


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate`, and the files that it wrote."""

    detections: Detections
    result: EvaluationResult | None  # None if `save_only`
    files: dict[str, Path]


def evaluate(
    config: Config,
    checkpoint: str | Path,
    *,
    epoch: int = -1,
    topk: int = -1,
    weights: str = "ema",
    save_only: bool = False,
    absent_labels: str = "reference",
    annotations: Annotations | None = None,
    noted: Mapping[str, object] | None = None,
    progress: bool = True,
) -> Evaluation:
    """Evaluates a checkpoint on `val_split` and writes, beside the checkpoint, the detections as ActivityNet's result
    JSON, the metrics as JSON, the per-class table as CSV and the ground truth as an annotation file.

    Args:
        checkpoint: file or folder (see `find_checkpoint`).
        epoch: which checkpoint of a folder; -1: the last.
        topk: detections kept per video; <= 0: test_cfg.max_seg_num.
        weights: "ema" (as in ActionFormer) or "raw".
        save_only: write the detections only, without score fusion.
        absent_labels: see `evaluate_detections`.
        annotations: used instead of reading the annotation file.
        noted: further entries of `provenance` in the files.
    """
    config = with_topk(config, topk)
    path = find_checkpoint(checkpoint, epoch)
    device = select_device(config)
    fix_random_seed(0)
    if annotations is None:
        annotations = read_as_run(config, path.parent)
    given = {} if annotations is None else {"annotations": annotations}
    dataset = make_dataset(config["dataset_name"], False, config["val_split"], **config["dataset"], **given)
    _check_as_trained(dataset, path.parent)
    evaluator = None if save_only else _evaluator(dataset, annotations, absent_labels)
    loader = make_data_loader(dataset, False, None, **config["loader"])
    stored = load_checkpoint(path)
    model = load_model(config, path, weights=weights, checkpoint=stored).to(device)
    video_scores = None if save_only else _external_scores(config["test_cfg"], dataset)
    folder = distributed.own_folder(results_folder(path) if distributed.is_main() else path.parent)
    detections = predict(loader, model, progress=progress)

    provenance = _provenance(path, weights, dataset) | dict(noted or {})
    if video_scores is not None:
        test = config["test_cfg"]
        detections = fuse_scores(
            detections, video_scores, num_pred=test["ext_score_num_pred"], topk=test["ext_score_topk"]
        )
        provenance["external_scores"] = test["ext_score_file"]
    names = label_names(dataset, external_scores=video_scores is not None)
    data = name_of_other_data(config, path.parent)
    stem = stem_of_results(path, weights, data=data, folder=folder)
    files = {"detections": Path(f"{stem}_detections.json")}
    write_results(files["detections"], detections, names, provenance=provenance)
    if evaluator is None:
        return Evaluation(detections, None, files)

    result = evaluator.evaluate_all(detections)
    truth = f"{stem}_{GROUND_TRUTH}" if data else folder / GROUND_TRUTH
    write_ground_truth(truth, evaluator.videos, names_of(evaluator.label_ids))
    files |= _write_metrics(stem, result, names, provenance | {"absent_labels": absent_labels})
    per_tiou = {f"mAP/{t:.2f}": m for t, m in zip(result.tiou, result.mAP.tolist(), strict=True)}
    average = {"mAP/average": result.average_mAP}
    write_hyper_parameters(folder, config, stem.name, average | per_tiou, step=int(stored.get("epoch", 0)))
    fused = "" if video_scores is None else ", external scores"
    title = f"{Path(dataset.json_file).stem} {', '.join(dataset.split)} ({weights} weights{fused})"
    print(format_result(result, title=title))
    return Evaluation(detections, result, files)


def _evaluator(dataset: Any, annotations: Annotations | None, absent_labels: str) -> ANETdetection:
    """The evaluator of a data set's subsets. Raises ValueError if they hold no event."""
    evaluator = ANETdetection(
        dataset.json_file,
        dataset.split,
        tiou_thresholds=dataset.get_attributes()["tiou_thresholds"],
        absent_labels=absent_labels,
        annotations=annotations,
    )
    if not len(evaluator.ground_truth.label):
        raise ValueError(
            f"{dataset.json_file}: nothing to evaluate: val_split {list(dataset.split)} holds no event in "
            f"{len(evaluator.videos)} labeled videos; --saveonly writes detections without evaluating them"
        )
    return evaluator


def _check_as_trained(dataset: Any, folder: Path) -> None:
    """Checks that features were made like those of the run, and that a data set of the user's own class, which reads
    its own labels, has the run's classes."""
    known_features = data_of_run(folder).get("features")
    check_features(getattr(dataset, "sidecars", {}), known_features, what=f"features of {dataset.json_file}")
    known, label_ids = read_label_ids(folder), getattr(dataset, "label_dict", None)
    if not known or not label_ids or isinstance(dataset, TALDataset):
        return
    if any(known.get(name) != i for name, i in label_ids.items()):
        check_classes(label_ids, known, what="the data set", source=str(folder / CLASSES))


def _external_scores(test_cfg: TestConfig, dataset: Any) -> dict[str, np.ndarray] | None:
    """Class scores (C,) per video from another model; None if the configuration names no score file."""
    file = test_cfg["ext_score_file"]
    if file is None:
        return None
    num_classes = None if getattr(dataset, "class_agnostic", False) else getattr(dataset, "num_classes", None)
    return read_video_scores(file, label_ids=getattr(dataset, "label_dict", None), num_classes=num_classes)


def _provenance(checkpoint: Path, weights: str, dataset: Any) -> dict[str, object]:
    """How the results were made; written into their files."""
    return {
        "checkpoint": str(checkpoint),
        "weights": weights,
        "annotations": str(dataset.json_file),
        "split": list(dataset.split),
        "commit": source_commit(),
        "command": shlex.join(sys.argv),
    }


def _write_metrics(
    stem: Path, result: EvaluationResult, names: dict[int, str], provenance: dict[str, object]
) -> dict[str, Path]:
    """Writes the metrics as JSON and the per-class table as CSV; returns both paths."""
    files = {"metrics": Path(f"{stem}_metrics.json"), "per_class": Path(f"{stem}_per_class.csv")}
    metrics = result_to_dict(result, names) | {"provenance": provenance}
    write_text(files["metrics"], json.dumps(metrics, indent=1))
    write_table(files["per_class"], result, names)
    return files
