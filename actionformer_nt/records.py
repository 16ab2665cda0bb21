"""What a semi-supervised run writes down: sums per iteration, and the curves they become."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .hidden import rates
from .label_space import partition
from .pseudo_labels import PseudoSegments


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


def curves(sums: dict[str, float]) -> dict[str, float]:
    """Sums over iterations (`count` of them) -> means per iteration, pseudo labels per video, classes per
    distribution, and the rates of the hidden counts."""
    values = {}
    for name, total in sums.items():
        if name.startswith("space/"):
            values[name] = total / sums["space_count"]
        elif name.startswith("pseudo/"):
            values[name] = total / sums["unlabeled/videos"]
        elif not name.startswith("hidden_count/") and name not in ("count", "unlabeled/videos", "space_count"):
            values[name] = total / sums["count"]
    return values | rates({name.split("/")[1]: v for name, v in sums.items() if name.startswith("hidden_count/")})
