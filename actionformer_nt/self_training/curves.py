"""Records of a semi-supervised run: sums over iterations, and the curves computed from them."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from actionformer_nt.methods.label_space import partition
from actionformer_nt.protocol.hidden_labels import HiddenLabels
from libs.core import distributed
from libs.training.run_log import RunLog, format_time_left

from .interface import SelfTraining
from .pseudo_segments import PseudoSegments
from .quality import measure, rates
from .teacher import UnlabeledBatch
from .watch import Watch

logger = logging.getLogger(__name__)

SHOWN = ("pretext/final_loss", "labeled/final_loss", "unlabeled/loss", "pseudo/segments", "hidden/precision")


class Records:
    """Adds up the values of iterations, and writes curves to TensorBoard, `metrics.jsonl` and the log.

    Args:
        total: number of iterations of the run.
        watch: gives the curves `watch/*`; None: no such curves.
    """

    def __init__(self, *, total: int, watch: Watch | None = None) -> None:
        self.total, self.watch = total, watch
        self.sums: dict[str, float] = defaultdict(float)  # over the iterations since the last record, in this process

    def restore(self, sums: list[dict[str, float]]) -> None:
        """Restores the sums of a checkpoint, one entry per process; drops them if the number of processes changed."""
        if len(sums) == distributed.world_size():
            self.sums.update(sums[distributed.rank()])

    def begin(self, log: RunLog, start: int) -> None:
        """Starts recording for a run that has completed `start` iterations."""
        self.log, self.start = log, start
        self.began = self.last = time.perf_counter()

    def add(self, values: Mapping[str, float]) -> None:
        """Adds the values of one iteration, which `curves` describes."""
        for name, value in values.items():
            self.sums[name] += value

    def write(self, iteration: int, state: Mapping[str, float]) -> None:
        """Writes the curves since the last record, over all processes, and the values of `state`, which has `lr`."""
        sums = add_up(distributed.gather(dict(self.sums)))
        self.sums.clear()
        values = curves(sums) | dict(state)
        if self.watch is not None:
            values |= self.watch.look(iteration, self.log.metrics_path.parent)
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
    """Losses with `prefix/` before every name."""
    return {f"{prefix}/{name}": loss for name, loss in losses.items()}


class PseudoLabelCurves:
    """Counts that describe the pseudo labels of an iteration. Warns if the teacher finds no pseudo label for long.

    Args:
        lam: lambda of the partition.
        hidden: hidden labels for the curves `hidden/*`; None: no such curves.
        watch: is told the pseudo segments of every iteration, if given.
    """

    PATIENCE = 200  # iterations without a pseudo label before a warning

    def __init__(
        self, self_training: SelfTraining, *, lam: float, hidden: HiddenLabels | None, watch: Watch | None = None
    ) -> None:
        self.self_training, self.lam, self.hidden, self.watch = self_training, lam, hidden, watch
        self.without = 0  # consecutive iterations without a pseudo segment

    def describe(self, lesson: UnlabeledBatch, projected: int, iteration: int) -> dict[str, float]:
        """Counts of one iteration, which `Records` adds up.

        Args:
            projected: number of pseudo segments that are visible in the student's views.
        """
        segments = [self.self_training.segments(pseudo) for pseudo in lesson.pseudo]
        self.without = 0 if any(len(video.scores) for video in segments) else self.without + 1
        if self.without and self.without % self.PATIENCE == 0:
            logger.warning(
                "iteration %d: the teacher has found no segment for %d iterations; lower the threshold of its scores",
                iteration, self.without,
            )  # fmt: skip
        if self.watch is not None:
            self.watch.add(iteration, lesson.weak, segments)
        probs = [self.self_training.used_probs(pseudo) for pseudo in lesson.pseudo]
        values = count_pseudo_labels(segments, probs, projected, self.lam)
        if self.hidden is not None:
            counts = measure(self.hidden, lesson.weak, segments, self.lam)
            values |= {f"hidden_count/{name}": value for name, value in counts.items()}
        return values


def count_pseudo_labels(
    pseudo: list[PseudoSegments], probs: list[Tensor], projected: int, lam: float
) -> dict[str, float]:
    """Counts of one iteration: videos, pseudo segments, those visible in the student's views, and the sizes of the four
    parts of the label space, summed over all class distributions.

    Args:
        pseudo, probs: per video, pseudo segments and class distributions (..., K).
        projected: see `PseudoLabelCurves.describe`.
    """
    values = {
        "unlabeled/videos": float(len(pseudo)),
        "pseudo/segments": float(sum(len(video.scores) for video in pseudo)),
        "pseudo/projected": float(projected),
    }
    flat = torch.cat([p.reshape(-1, p.shape[-1]) for p in probs])
    if len(flat):
        values["space_count"] = float(len(flat))
        parts = partition(flat, lam)
        values |= {f"space/{name}": float(mask.sum()) for name, mask in zip(parts._fields, parts, strict=True)}
    return values


def add_up(parts: list[dict[str, float]]) -> dict[str, float]:
    """Adds up the sums of several processes. A name may be missing in some of them."""
    sums: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


NOT_CURVES = ("count", "videos", "unlabeled/videos", "space_count")


def curves(sums: dict[str, float]) -> dict[str, float]:
    """Sums over iterations -> values of the curves.

    `space/*` become classes per distribution, `pseudo/*` pseudo segments per video, `hidden_count/*` the `rates`, all
    others means per iteration.

    Args:
        sums: with the number of iterations, `count`, and of all videos, `videos`.
    """
    values = {}
    for name, total in sums.items():
        if name.startswith("space/"):
            values[name] = total / sums["space_count"]
        elif name.startswith("pseudo/"):
            values[name] = total / sums["unlabeled/videos"]
        elif not name.startswith("hidden_count/") and name not in NOT_CURVES:
            values[name] = total / sums["count"]
    return values | rates({name.split("/")[1]: v for name, v in sums.items() if name.startswith("hidden_count/")})
