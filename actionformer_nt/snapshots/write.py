"""What a semi-supervised run keeps for its report, under `samples/` of the run folder.

At a few moments the teacher looks at the same few unlabeled videos: `iteration_NNNNNNNN.json` holds its pseudo labels
and, for some of them, the class distribution with its partition. At the end `predictions.json` holds the student's
detections in these videos. Nothing here draws from training's generators or changes its state. Hidden labels are looked
at only where `semi_cfg.log_hidden` asks for it, and go nowhere but into these files.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from actionformer_nt.methods.label_space import partition
from actionformer_nt.protocol.hidden_labels import HiddenLabels
from actionformer_nt.self_training.pseudo_segments import PseudoSegments
from actionformer_nt.self_training.pyramid import make_unlabeled
from libs.datasets import make_dataset
from libs.datasets.dataset import SampleKey
from libs.evaluation.detections import concatenate, make_detections, write_ground_truth, write_results
from libs.evaluation.predict import predict
from libs.modeling.decode import to_seconds
from libs.training.run_folder import SAMPLES

from .embeddings import write_embeddings

if TYPE_CHECKING:
    from actionformer_nt.self_training.trainer import SemiTrainer

__all__ = ["moments", "write_embeddings", "write_if_due"]

CODES = "tpna"  # of a class: target, positive, negative, ambiguous, the fields of `Partition`
PER_VIDEO = 3  # class distributions


def moments(burn_in: int, iterations: int, count: int) -> set[int]:
    """The end of the burn-in and `count` iterations at equal distances up to the end of self-training."""
    return {burn_in + round(k * iterations / count) for k in range(count + 1)} if iterations else set()


def spread_out(size: int, count: int) -> list[int]:
    """At most `count` of 0 .. size - 1, at equal distances."""
    return list(range(size)) if size <= count else [k * size // count for k in range(count)]


def write_if_due(trainer: SemiTrainer, folder: Path) -> None:
    """Writes the samples of the present iteration if it is one of the moments."""
    options = trainer.semi["samples"]
    if trainer.unlabeled is None or not options["videos"]:
        return
    if trainer.iteration not in moments(trainer.burn_in, trainer.semi["iterations"], options["moments"]):
        return
    (folder / SAMPLES).mkdir(exist_ok=True)
    index = spread_out(len(trainer.unlabeled), options["videos"])
    was_training = trainer.model.training
    with torch.no_grad(), torch.random.fork_rng():
        _write_moment(trainer, folder / SAMPLES, index)
        if trainer.iteration == trainer.total:
            _write_end(trainer, folder / SAMPLES, [trainer.unlabeled.videos[i].id for i in index])
    trainer.model.train(was_training)


def _write_moment(trainer: SemiTrainer, folder: Path, index: list[int]) -> None:
    side = make_unlabeled(trainer.config, trainer.model.loss_normalizer, trainer.labeled)
    if trainer.side is not None:
        side.load_state(copy.deepcopy(trainer.side.state()))  # a teacher's look may move running means
    teacher = (trainer.ema if trainer.frozen is None else trainer.frozen).module
    lam, names = trainer.semi["lam"], label_names(trainer)
    parts, videos, distributions = [], {}, []
    for i in index:
        video = trainer.unlabeled[SampleKey(i, 0)]  # the same part of it at every moment
        (found,) = side.pseudo_labels(teacher, [video])
        segments = side.segments(found)
        seconds = in_seconds(segments.segments, video)
        labels, scores = segments.logits.argmax(dim=-1).cpu(), segments.scores.cpu()
        parts.append(make_detections([video["video_id"]] * len(scores), *seconds.T, labels, scores))
        ends = in_seconds(torch.tensor([[-0.5, video["feats"].shape[1] - 0.5]]), video)
        videos[video["video_id"]] = {"duration": video["duration"], "part": _round(ends[0])}
        truth = side.true_class(hidden, video, found) if (hidden := logged_labels(trainer)) else None
        chosen = spread_out(len(scores), PER_VIDEO)
        every = side.probs(found)
        rows = _distribution_rows(every, segments, teacher)
        for k in chosen:
            probs = every.reshape(-1, every.shape[-1])[rows[k]]
            distributions.append(
                {
                    "video_id": video["video_id"],
                    "segment": _round(seconds[k]),
                    "score": round(float(scores[k]), 4),
                    "probs": _round(probs),
                    "parts": part_codes(probs, lam),
                    "truth": None if truth is None else int(truth[k] if truth.ndim == 1 else truth[0, rows[k]]),
                }
            )
    size = len(distributions[0]["probs"]) if distributions else 0
    classes = [names.get(c, str(c)) for c in range(trainer.config["dataset"]["num_classes"])]
    write_results(
        folder / f"iteration_{trainer.iteration:08d}.json", concatenate(parts), names,
        iteration=trainer.iteration, lam=lam, videos=list(videos), seen=videos, distributions=distributions,
        classes=classes + ["background"] * (size == len(classes) + 1),
    )  # fmt: skip


def _distribution_rows(probs: Tensor, segments: PseudoSegments, teacher: Any) -> list[int]:
    """Which of the distributions (..., K) stands for each segment: its own, where each has one over the actions,
    or that of the point in its middle (a snippet; of a pyramid the finest level, whose points come first)."""
    if probs.shape[-1] == segments.logits.shape[-1]:
        return list(range(len(segments.scores)))
    stride = getattr(teacher, "fpn_strides", [1])[0]
    return (segments.segments.mean(dim=1) / stride).round().long().clamp(0, probs.shape[-2] - 1).tolist()


def _write_end(trainer: SemiTrainer, folder: Path, ids: list[str]) -> None:
    config, names = trainer.config, label_names(trainer)
    dataset = make_dataset(
        config["dataset_name"], False, config["train_split"], **config["dataset"],
        annotations=trainer.annotations, video_ids=frozenset(ids),
    )  # fmt: skip
    batches = [[dataset[i]] for i in range(len(dataset))]
    write_results(folder / "predictions.json", predict(batches, trainer.model), names)
    if hidden := logged_labels(trainer):
        known = [video for video in hidden.videos if video.id in ids]
        write_ground_truth(folder / "hidden_labels.json", known, names)


def logged_labels(trainer: SemiTrainer) -> HiddenLabels | None:
    """The hidden labels where `log_hidden` asks for them; a diagnostic method alone does not."""
    return trainer.hidden if trainer.semi["log_hidden"] else None


def label_names(trainer: SemiTrainer) -> dict[int, str]:
    return {i: name for name, i in trainer.annotations.label_ids.items()}


def part_codes(probs: Tensor, lam: float) -> str:
    """(K,) probabilities -> a letter of `CODES` for each class."""
    masks = torch.stack(list(partition(probs, lam)))  # (4, K)
    return "".join(CODES[k] for k in masks.int().argmax(dim=0).tolist())


def in_seconds(steps: Tensor, video: dict[str, Any]) -> Tensor:
    """Steps of a sample's features -> seconds of the video, on the CPU."""
    return to_seconds(steps.cpu().float() + video["feat_start"], video)


def _round(values: Tensor) -> list[float]:
    return [round(v, 5) for v in values.tolist()]
