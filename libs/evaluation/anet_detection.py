"""ActionFormer's evaluator class. `average_precision.py` computes the numbers, `tables.py` prints them."""

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
    """ActionFormer's evaluator: reads an annotation file; `evaluate(predictions)` returns mAP and recall.

    Args:
        ant_file: annotation JSON.
        split: one or more of its subsets, in any case; None: all videos. Videos marked `"labeled": false` are ignored,
            with the detections in them.
        tiou_thresholds: (T,).
        top_k: the k of Recall@kx.
        dataset_name: name for the printout; None: the name of the file.
        absent_labels: see `evaluate_detections`.
        annotations: used instead of reading `ant_file`.
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
        """Like `evaluate`, but returns the whole result and prints nothing."""
        return evaluate_detections(
            self.ground_truth,
            self._in_labeled_videos(as_detections(preds, self.label_ids, self.own_ids)),
            tiou=self.tiou_thresholds,
            topk=self.top_k,
            absent_labels=self.absent_labels,
        )

    def _in_labeled_videos(self, detections: Detections) -> Detections:
        """The detections that are not in videos marked `"labeled": false`."""
        if not self.unlabeled:
            return detections
        kept = np.array([video not in self.unlabeled for video in detections.video_id], dtype=bool)
        return Detections(*(column[kept] for column in detections))

    def evaluate(self, preds: Any, verbose: bool = True) -> tuple[np.ndarray, float, np.ndarray]:
        """Evaluates detections, and keeps the whole result in `self.result`.

        Args:
            preds: dict or data frame of columns, `Detections`, or path of a result file.
            verbose: print the table.

        Returns:
            mAP per tIoU (T,), average mAP, recall (T, len(top_k)).
        """
        self.result = self.evaluate_all(preds)
        if verbose:
            print(format_result(self.result, title=self.dataset_name))
        return self.result.mAP, self.result.average_mAP, self.result.recall
