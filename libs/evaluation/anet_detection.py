"""ActionFormer's evaluator under its name; the computation is in `evaluation.py`, the printing in `report.py`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from libs.datasets.annotations import Annotations, read_annotations

from .average_precision import DEFAULT_TIOU, EvaluationResult, evaluate_detections, ground_truth
from .detections import Detections, as_detections
from .tables import format_result


class ANETdetection:
    """ActionFormer's evaluator under its name: annotation file in, `evaluate(predictions)` -> numbers.

    Args:
        ant_file: annotation JSON.
        split: one or more subsets of it, any case; None: all videos. Videos marked `"labeled": false` are left out,
            with the detections in them.
        tiou_thresholds: (T,).
        dataset_name: a name for the printout; None: the file's name.
        absent_labels: see `evaluate_detections`.
        annotations: instead of reading `ant_file`.
    """

    def __init__(
        self,
        ant_file: str,
        split: str | Sequence[str] | None = None,
        tiou_thresholds: ArrayLike = DEFAULT_TIOU,
        top_k: Sequence[int] = (1, 5),
        label: str = "label_id",
        label_offset: int = 0,
        num_workers: int = 8,
        dataset_name: str | None = None,
        *,
        absent_labels: str = "reference",
        annotations: Annotations | None = None,
    ) -> None:
        if label != "label_id" or label_offset:
            raise ValueError("ANETdetection: only label='label_id' and label_offset=0 are supported")
        annotations = read_annotations(ant_file) if annotations is None else annotations
        subsets = [split] if isinstance(split, str) else split
        videos = annotations.videos if subsets is None else annotations.of_subsets(subsets)
        self.split, self.videos = split, [video for video in videos if video.labeled]
        self.unlabeled = {video.id for video in videos if not video.labeled}
        self.label_ids = annotations.label_ids
        self.own_ids = annotations.own_ids
        self.tiou_thresholds = np.asarray(tiou_thresholds, dtype=np.float64)
        self.top_k = tuple(top_k)
        self.dataset_name = dataset_name or os.path.splitext(os.path.basename(ant_file))[0]
        self.absent_labels = absent_labels
        self.ground_truth = ground_truth(self.videos)
        self.result: EvaluationResult | None = None

    def evaluate_all(self, preds: Any) -> EvaluationResult:
        """The whole result, of what `evaluate` takes."""
        return evaluate_detections(
            self.ground_truth,
            self._judged(as_detections(preds, self.label_ids, self.own_ids)),
            tiou=self.tiou_thresholds,
            topk=self.top_k,
            absent_labels=self.absent_labels,
        )

    def _judged(self, detections: Detections) -> Detections:
        """Those in videos that somebody has annotated."""
        if not self.unlabeled:
            return detections
        kept = np.array([video not in self.unlabeled for video in detections.video_id], dtype=bool)
        return Detections(*(column[kept] for column in detections))

    def evaluate(self, preds: Any, verbose: bool = True) -> tuple[np.ndarray, float, np.ndarray]:
        """Takes a dict or data frame of columns, a `Detections`, or the path of a result file.

        Returns:
            mAP per tIoU (T,), average mAP, recall (T, len(top_k)); the whole result is left in `self.result`.
        """
        self.result = self.evaluate_all(preds)
        if verbose:
            print(format_result(self.result, title=self.dataset_name))
        return self.result.mAP, self.result.average_mAP, self.result.recall
