"""Snapshots of a semi-supervised run for its report, in `samples/` of the run folder.

At a few iterations, `iteration_NNNNNNNN.json` records the teacher's pseudo segments in the same few unlabeled videos
and, for some of the segments, the class distribution with its partition. At the end, `predictions.json` records the
student's detections in these videos. Snapshots neither use the random generators of training nor change its state.
Hidden labels are read only if `semi_cfg.log_hidden` is true, and are written to these files only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from actionformer_nt.methods.label_space import partition
from actionformer_nt.self_training.interface import SelfTraining, Snapshot
from libs.datasets import make_dataset
from libs.datasets.dataset import TALDataset
from libs.datasets.labels import names_of
from libs.datasets.video import SampleKey, VideoItem
from libs.evaluation.detections import concatenate, make_detections, write_ground_truth, write_results
from libs.evaluation.predict import predict
from libs.modeling.decode import to_seconds

CODES = "tpna"  # target, positive, negative, ambiguous: the fields of `Partition`, in order
PER_VIDEO = 3  # class distributions recorded per video


def moments(burn_in: int, iterations: int, count: int) -> set[int]:
    """Iterations of the snapshots: the end of the burn-in, and `count` evenly spaced ones in self-training."""
    return {burn_in + round(k * iterations / count) for k in range(count + 1)} if iterations else set()


def spread_out(size: int, count: int) -> list[int]:
    """At most `count` evenly spaced indices in 0 .. size - 1."""
    return list(range(size)) if size <= count else [k * size // count for k in range(count)]


class Distribution(TypedDict):
    """The class distribution of a pseudo segment."""

    video_id: str
    segment: list[float]  # start and end, seconds
    score: float
    probs: list[float]  # (K,)
    parts: str  # a letter of `CODES` per class
    truth: int | None  # hidden class, -1 without an event; None unless `semi_cfg.log_hidden`


class SnapshotWriter:
    """Observer that writes the snapshots of a run into a folder, at the iterations of `moments`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, snapshot: Snapshot) -> None:
        options = snapshot.semi.samples
        if snapshot.unlabeled is None or not options.videos:
            return
        if snapshot.iteration not in moments(snapshot.burn_in, snapshot.total - snapshot.burn_in, options.moments):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        index = spread_out(len(snapshot.unlabeled), options.videos)
        was_training = snapshot.student.training
        with torch.no_grad(), torch.random.fork_rng():
            _write_moment(snapshot, snapshot.unlabeled, self.folder, index)
            if snapshot.iteration == snapshot.total:
                _write_end(snapshot, self.folder, [snapshot.unlabeled.videos[i].id for i in index])
        snapshot.student.train(was_training)


def _write_moment(snapshot: Snapshot, unlabeled: TALDataset, folder: Path, index: list[int]) -> None:
    self_training = snapshot.self_training
    assert self_training is not None and snapshot.pseudo_labels is not None
    names = names_of(snapshot.annotations.label_ids)
    parts, videos, distributions = [], {}, []
    shown = [unlabeled[SampleKey(i, 0)] for i in index]  # epoch 0: the same crop in every snapshot
    for video, pseudo in zip(shown, snapshot.pseudo_labels(shown), strict=True):
        segments = self_training.segments(pseudo)
        seconds = in_seconds(segments.segments, video)
        labels, scores = segments.logits.argmax(dim=-1).cpu(), segments.scores.cpu()
        ids = [video["video_id"]] * len(scores)
        parts.append(make_detections(ids, seconds[:, 0], seconds[:, 1], labels, scores))
        ends = in_seconds(torch.tensor([[-0.5, video["feats"].shape[1] - 0.5]]), video)
        videos[video["video_id"]] = {"duration": video["duration"], "part": _round(ends[0])}
        distributions += _distributions(snapshot, self_training, video, pseudo)
    size = len(distributions[0]["probs"]) if distributions else 0
    classes = [names.get(c, str(c)) for c in range(snapshot.config["dataset"]["num_classes"])]
    write_results(
        folder / f"iteration_{snapshot.iteration:08d}.json", concatenate(parts), names,
        iteration=snapshot.iteration, lam=snapshot.semi.lam, videos=list(videos), seen=videos,
        distributions=distributions, classes=classes + ["background"] * (size == len(classes) + 1),
    )  # fmt: skip


def _distributions(
    snapshot: Snapshot, self_training: SelfTraining, video: VideoItem, pseudo: Any
) -> list[Distribution]:
    """Class distributions, with their partition, of at most `PER_VIDEO` pseudo segments of a video."""
    segments, hidden = self_training.segments(pseudo), snapshot.hidden
    seconds, scores = in_seconds(segments.segments, video), segments.scores.cpu()
    truth = None if hidden is None else self_training.true_class(hidden, video, pseudo)
    distributions, rows = self_training.probs(pseudo).flatten(0, -2), self_training.rows_of_segments(pseudo)
    return [
        {
            "video_id": video["video_id"],
            "segment": _round(seconds[k]),
            "score": round(float(scores[k]), 4),
            "probs": _round(distributions[rows[k]]),
            "parts": part_codes(distributions[rows[k]], snapshot.semi.lam),
            "truth": None if truth is None else int(truth[k] if truth.ndim == 1 else truth[0, rows[k]]),
        }
        for k in spread_out(len(scores), PER_VIDEO)
    ]


def _write_end(snapshot: Snapshot, folder: Path, ids: list[str]) -> None:
    """Writes the student's detections in the videos `ids` and, if `semi_cfg.log_hidden` is true, the hidden labels."""
    config, names = snapshot.config, names_of(snapshot.annotations.label_ids)
    dataset = make_dataset(
        config["dataset_name"], False, config["train_split"], **config["dataset"],
        annotations=snapshot.annotations, video_ids=frozenset(ids),
    )  # fmt: skip
    batches = [[dataset[i]] for i in range(len(dataset))]
    write_results(folder / "predictions.json", predict(batches, snapshot.student), names)
    if snapshot.hidden is not None:
        known = [video for video in snapshot.hidden.videos if video.id in ids]
        write_ground_truth(folder / "hidden_labels.json", known, names)


def part_codes(probs: Tensor, lam: float) -> str:
    """Class distribution (K,) -> a letter of `CODES` per class."""
    masks = torch.stack(list(partition(probs, lam)))  # (4, K)
    return "".join(CODES[k] for k in masks.int().argmax(dim=0).tolist())


def in_seconds(steps: Tensor, video: VideoItem) -> Tensor:
    """Grid steps of a (cropped) sample -> seconds of its video, on the CPU."""
    return to_seconds(steps.cpu().float() + video["feat_start"], video)


def _round(values: Tensor) -> list[float]:
    return [round(v, 5) for v in values.tolist()]
