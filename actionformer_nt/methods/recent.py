"""Figures of the pseudo labels of the last unlabeled videos, for thresholds that follow the teacher."""

from __future__ import annotations

import torch
from torch import Tensor

from .evidence import Evidence, State, tensor_of


class Recent:
    """For each of the last `window` videos, class and a figure of its selected pseudo labels of actions."""

    def __init__(self) -> None:
        self.videos: list[Tensor] = []  # (n, 2) each

    def add(self, evidence: list[Evidence], figures: list[Tensor], *, window: int) -> None:
        """Adds videos with a figure (N,) per unit, and forgets those before the last `window`."""
        for e, figure in zip(evidence, figures, strict=True):
            column = torch.stack([e.probs.argmax(dim=-1).to(figure), figure], dim=1)
            self.videos.append(column[e.selected & is_action(e)])
        self.videos = self.videos[-window:]

    def by_class(self, num_classes: int) -> list[Tensor]:
        """The figures of each class."""
        classes, figures = torch.cat([torch.zeros(0, 2), *self.videos]).unbind(dim=1)
        return [figures[classes == c] for c in range(num_classes)]

    def state(self) -> State:
        """For exact resuming."""
        return {
            "recent": torch.cat([torch.zeros(0, 2), *self.videos]),
            "recent_sizes": torch.tensor([len(video) for video in self.videos], dtype=torch.long),
        }

    def load_state(self, state: State) -> None:
        """Restores a result of `state`."""
        sizes = tensor_of(state, "recent_sizes").tolist()
        self.videos = list(tensor_of(state, "recent").split(sizes)) if sizes else []


def is_action(e: Evidence) -> Tensor:
    """(N,) bool: units whose most probable class is not the background."""
    if e.unit == "segment":
        return torch.ones_like(e.selected)
    return e.probs.argmax(dim=-1) < e.probs.shape[-1] - 1
