"""The teacher of self-training: what it says about a batch of unlabeled videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

from actionformer_nt.config import SemiSection
from actionformer_nt.methods import ClassTargets, Method, Options
from actionformer_nt.protocol.hidden_labels import HiddenLabels
from libs.core import distributed
from libs.core.seeding import derive_seed
from libs.datasets.video import VideoItem
from libs.training.ema import ModelEma

from .interface import SelfTraining, State
from .views import Geometry, view_of


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What the student learns from a batch of unlabeled videos; entry i of every list belongs to video i."""

    weak: list[VideoItem]
    strong: list[VideoItem]
    geometries: list[Geometry]
    pseudo: list[Any]
    targets: list[ClassTargets]

    def part(self, k: int, parts: int) -> Lesson:
        """Part k of so many equal ones."""
        return Lesson(**{name: column[k::parts] for name, column in vars(self).items()})


class TeacherState(TypedDict):
    """What exact resuming needs, under the keys of a checkpoint. None: self-training has not begun, or is online."""

    unlabeled: State | None
    frozen_teacher: dict[str, Tensor] | None


class Teacher:
    """Averaged weights that make pseudo labels, online or frozen from time to time (`pseudo.source`).

    Args:
        method: turns class distributions into class targets.
        ema: averaged weights of the student.
        seed: of the run.
        burn_in: iteration at which self-training begins.
        hidden: for the diagnostic method alone; None: no hidden label is at hand.
    """

    def __init__(
        self,
        semi: SemiSection,
        self_training: SelfTraining,
        method: Method,
        *,
        ema: ModelEma,
        seed: int,
        burn_in: int,
        hidden: HiddenLabels | None,
    ) -> None:
        self.semi, self.self_training, self.method, self.ema = semi, self_training, method, ema
        self.seed, self.burn_in, self.hidden = seed, burn_in, hidden
        self.frozen: ModelEma | None = None  # with `pseudo.source: refresh`

    @property
    def network(self) -> Any:
        """The weights that made the last pseudo labels."""
        return (self.ema if self.frozen is None else self.frozen).module

    def teach(self, videos: list[VideoItem], iteration: int) -> Lesson:
        """Pseudo labels and class targets of a batch."""
        self._refresh(iteration)
        weak = [view_of(video, "weak", self.semi.weak, self.seed, iteration)[0] for video in videos]
        pseudo = self.self_training.pseudo_labels(self.network, weak)
        targets = [
            self._class_targets(video, found, row, iteration)
            for row, (video, found) in enumerate(zip(weak, pseudo, strict=True))
        ]
        strong = [view_of(video, "strong", self.semi.strong, self.seed, iteration) for video in weak]
        return Lesson(
            weak=weak, strong=[view for view, _ in strong], geometries=[geometry for _, geometry in strong],
            pseudo=pseudo, targets=targets,
        )  # fmt: skip

    def _refresh(self, iteration: int) -> None:
        if self.semi.pseudo.source == "online":
            return
        if self.frozen is None or (iteration - self.burn_in) % self.semi.pseudo.refresh_every == 0:
            if self.frozen is None:
                self.frozen = ModelEma(self.ema.module)
            self.frozen.set(self.ema.module)

    def _class_targets(self, video: VideoItem, pseudo: Any, row: int, iteration: int) -> ClassTargets:
        place = row * distributed.world_size() + distributed.rank()  # in the batch of all processes
        generator = torch.Generator().manual_seed(derive_seed(self.seed, iteration, place, "method"))
        truth = None if self.hidden is None else self.self_training.true_class(self.hidden, video, pseudo)
        options = Options(
            form=self.self_training.form, lam=self.semi.lam, positive=self.semi.positive,
            positive_reduction=self.semi.positive_reduction, generator=generator, true_class=truth,
        )  # fmt: skip
        return self.method(self.self_training.probs(pseudo), options)

    def state(self) -> TeacherState:
        """For exact resuming."""
        frozen = None if self.frozen is None else self.frozen.module.state_dict()
        return {"unlabeled": self.self_training.state(), "frozen_teacher": frozen}

    def load_state(self, state: TeacherState) -> None:
        """Goes back to a `state`."""
        if state["unlabeled"] is not None:
            self.self_training.load_state(state["unlabeled"])
        if state["frozen_teacher"] is not None:
            self.frozen = ModelEma(self.ema.module)
            self.frozen.module.load_state_dict(state["frozen_teacher"])
