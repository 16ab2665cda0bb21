"""What a semi-supervised run writes down: sums per iteration, and the curves they become."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from actionformer_nt.methods.label_space import partition
from actionformer_nt.protocol.hidden_labels import MATCH_IOU, HiddenLabels
from libs.core import distributed
from libs.datasets.video import VideoItem
from libs.modeling.losses import iou_matrix
from libs.training.run_log import RunLog, format_time_left

from .interface import SelfTraining
from .pseudo_segments import PseudoSegments
from .teacher import Lesson

logger = logging.getLogger(__name__)

SHOWN = ("pretext/final_loss", "labeled/final_loss", "unlabeled/loss", "pseudo/segments", "hidden/precision")


class Records:
    """Adds up what iterations say, and writes it to TensorBoard, `metrics.jsonl` and the log.

    Args:
        total: the iteration at which the run ends.
    """

    def __init__(self, *, total: int) -> None:
        self.total = total
        self.sums: dict[str, float] = defaultdict(float)  # of iterations since the last record, in this process

    def restore(self, sums: list[dict[str, float]]) -> None:
        """Goes back to the sums of a checkpoint, an entry per process; of another number of processes they are lost."""
        if len(sums) == distributed.world_size():
            self.sums.update(sums[distributed.rank()])

    def begin(self, log: RunLog, start: int) -> None:
        """Training begins, or goes on, after iteration `start`."""
        self.log, self.start = log, start
        self.began = self.last = time.perf_counter()

    def add(self, values: Mapping[str, float]) -> None:
        """Adds one iteration's terms; `write` records their means."""
        for name, value in values.items():
            self.sums[name] += value

    def write(self, iteration: int, state: Mapping[str, float]) -> None:
        """Writes the curves since the last writing, of all processes, and `state` (`lr` among it)."""
        sums = add_up(distributed.gather(dict(self.sums)))
        self.sums.clear()
        values = curves(sums) | dict(state)
        for name, value in values.items():
            self.log.writer.add_scalar("train/learning_rate" if name == "lr" else name, value, iteration)
        self.log.record({"iteration": iteration, **values})
        now = time.perf_counter()
        logger.info(
            "iteration %d/%d %s lr %.2e %.1f videos/s ETA %s", iteration, self.total,
            " ".join(f"{name} {values[name]:.4f}" for name in SHOWN if name in values), values["lr"],
            sums["videos"] / max(now - self.last, 1e-9),
            format_time_left(self.began, iteration - self.start, self.total - self.start),
        )  # fmt: skip
        self.last = now


def with_prefix(prefix: str, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Losses under names with a prefix."""
    return {f"{prefix}/{name}": loss for name, loss in losses.items()}


class PseudoLabelCurves:
    """What is recorded of the pseudo labels of an iteration. Warns of a teacher that finds none.

    Args:
        lam: lambda of the partition.
        hidden: the hidden labels, for the curves `hidden/*`; None: these curves are left out.
    """

    PATIENCE = 200  # iterations without a pseudo label before a warning

    def __init__(self, self_training: SelfTraining, *, lam: float, hidden: HiddenLabels | None) -> None:
        self.self_training, self.lam, self.hidden = self_training, lam, hidden
        self.without = 0  # iterations in a row

    def describe(self, lesson: Lesson, projected: int, iteration: int) -> dict[str, float]:
        """Counts of one iteration, to be summed.

        Args:
            projected: pseudo segments that are left in the student's views.
        """
        segments = [self.self_training.segments(found) for found in lesson.pseudo]
        self.without = 0 if any(len(found.scores) for found in segments) else self.without + 1
        if self.without and self.without % self.PATIENCE == 0:
            logger.warning(
                "iteration %d: the teacher has found no segment for %d iterations; lower the threshold of its scores",
                iteration, self.without,
            )  # fmt: skip
        probs = [self.self_training.used_probs(found) for found in lesson.pseudo]
        values = count_pseudo_labels(segments, probs, projected, self.lam)
        if self.hidden is not None:
            counts = measure(self.hidden, lesson.weak, segments, self.lam)
            values |= {f"hidden_count/{name}": value for name, value in counts.items()}
        return values


def count_pseudo_labels(
    pseudo: list[PseudoSegments], probs: list[Tensor], projected: int, lam: float
) -> dict[str, float]:
    """Counts of one iteration: videos, pseudo segments, those left in the student's views, and, over all class
    distributions (..., K), the sizes of the four parts of the label space."""
    values = {
        "unlabeled/videos": float(len(pseudo)),
        "pseudo/segments": float(sum(len(found.scores) for found in pseudo)),
        "pseudo/projected": float(projected),
    }
    flat = torch.cat([p.reshape(-1, p.shape[-1]) for p in probs])
    if len(flat):
        values["space_count"] = float(len(flat))
        parts = partition(flat, lam)
        values |= {f"space/{name}": float(mask.sum()) for name, mask in zip(parts._fields, parts, strict=True)}
    return values


def add_up(parts: list[dict[str, float]]) -> dict[str, float]:
    """Sums of several processes -> theirs together; not all have all names."""
    sums: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


NOT_CURVES = ("count", "videos", "unlabeled/videos", "space_count")


def curves(sums: dict[str, float]) -> dict[str, float]:
    """Sums over iterations (`count` of them, with `videos`) -> means per iteration, pseudo labels per video, classes
    per distribution, and the rates of the hidden counts."""
    values = {}
    for name, total in sums.items():
        if name.startswith("space/"):
            values[name] = total / sums["space_count"]
        elif name.startswith("pseudo/"):
            values[name] = total / sums["unlabeled/videos"]
        elif not name.startswith("hidden_count/") and name not in NOT_CURVES:
            values[name] = total / sums["count"]
    return values | rates({name.split("/")[1]: v for name, v in sums.items() if name.startswith("hidden_count/")})


def measure(
    hidden: HiddenLabels, videos: list[VideoItem], pseudo: list[PseudoSegments], lam: float
) -> dict[str, float]:
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
        if video["video_id"] not in hidden.events:
            continue
        segments, labels = hidden.of(video)
        truth = hidden.true_class(video, found.segments)
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
