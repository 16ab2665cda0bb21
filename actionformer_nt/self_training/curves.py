"""What a semi-supervised run writes down: sums per iteration, and the curves they become."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from actionformer_nt.methods.label_space import partition
from actionformer_nt.protocol.hidden_labels import rates
from libs.core import distributed
from libs.training.run_folder import RunLog, format_time_left

from .pseudo_segments import PseudoSegments

logger = logging.getLogger(__name__)

SHOWN = ("pretext/final_loss", "labeled/final_loss", "unlabeled/loss", "pseudo/segments", "hidden/precision")


class Records:
    """Adds up what iterations say, and writes it to TensorBoard, `metrics.jsonl` and the log.

    Args:
        start, total: the iterations at which this process begins and the run ends.
    """

    def __init__(self, log: RunLog, *, start: int, total: int) -> None:
        self.log, self.start, self.total = log, start, total
        self.sums: dict[str, float] = defaultdict(float)
        self.began = self.last = time.perf_counter()

    def add(self, values: Mapping[str, float]) -> None:
        """Adds one iteration's terms; `write` records their means."""
        for name, value in values.items():
            self.sums[name] += value

    def write(self, iteration: int, state: Mapping[str, float]) -> None:
        """Writes the curves since the last writing, of all processes, and `state` (`lr` among it)."""
        sums = add_up(distributed.gather(dict(self.sums)))
        self.sums.clear()
        values = curves(sums) | state
        for name, value in values.items():
            self.log.writer.add_scalar("train/learning_rate" if name == "lr" else name, value, iteration)
        self.log.record({"iteration": iteration} | values)
        now = time.perf_counter()
        logger.info(
            "iteration %d/%d %s lr %.2e %.1f videos/s ETA %s", iteration, self.total,
            " ".join(f"{name} {values[name]:.4f}" for name in SHOWN if name in values), values["lr"],
            sums["videos"] / max(now - self.last, 1e-9),
            format_time_left(self.began, iteration - self.start, self.total - self.start),
        )  # fmt: skip
        self.last = now


def numbers(prefix: str, losses: Mapping[str, Tensor]) -> dict[str, float]:
    """Losses as numbers, under names with a prefix."""
    return {f"{prefix}/{name}": float(loss.detach()) for name, loss in losses.items()}


def count_pseudo_labels(
    pseudo: list[PseudoSegments], probs: list[Tensor], projected: int, lam: float
) -> dict[str, Any]:
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
