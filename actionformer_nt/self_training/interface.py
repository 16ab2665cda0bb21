"""What an architecture has to say about learning from unlabeled videos, and what a run tells its observers.

The trainer makes views and lets the method choose class targets. What a pseudo label is, and how it reaches the
student's points, is up to the architecture: `pyramid.py` for ActionFormer's, `actionformer_nt/spot/self_training.py`
for SPOT. A plug-in registers its own with `libs.core.register_architecture(..., self_training=...)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from actionformer_nt.config import SemiSection
from actionformer_nt.methods import ClassTargets
from actionformer_nt.protocol.hidden_labels import HiddenLabels
from libs.core.types import Config
from libs.datasets.annotations import Annotations
from libs.datasets.dataset import TALDataset
from libs.datasets.video import VideoItem
from libs.modeling.class_form import ClassForm

from .pseudo_segments import PseudoSegments
from .views import Geometry

Pseudo = TypeVar("Pseudo")
State: TypeAlias = "dict[str, float | Tensor | None]"  # running means, by name


class SelfTraining(ABC, Generic[Pseudo]):
    """Self-training of one architecture. `Pseudo` is its kind of pseudo labels of one video.

    Args:
        config: resolved, with `semi_cfg`; it has passed `check`.
        labeled: the labeled training videos.
    """

    form: ClassForm  # of the class loss
    has_pretext = False  # whether there are pretext tasks

    @abstractmethod
    def __init__(self, config: Config, labeled: TALDataset) -> None: ...

    @staticmethod
    @abstractmethod
    def check(config: Config) -> None:
        """Raises ValueError where `semi_cfg.pseudo` does not fit the architecture; names the key."""

    @abstractmethod
    def pseudo_labels(self, teacher: Any, videos: list[VideoItem]) -> list[Pseudo]:
        """The teacher's pseudo labels on weak views, one entry per video, in the order of `videos`."""

    @abstractmethod
    def probs(self, pseudo: Pseudo) -> Tensor:
        """(..., K) class distributions, which a method turns into Y and W."""

    def used_probs(self, pseudo: Pseudo) -> Tensor:
        """(N, K): the distributions that the student learns from, for the curves."""
        return self.probs(pseudo)

    @abstractmethod
    def segments(self, pseudo: Pseudo) -> PseudoSegments:
        """The pseudo labels as segments, for curves and snapshots."""

    @abstractmethod
    def rows_of_segments(self, pseudo: Pseudo) -> list[int]:
        """For each of `segments`, the row of the distributions `probs`, flattened to (P, K), that stands for it."""

    @abstractmethod
    def true_class(self, hidden: HiddenLabels, video: VideoItem, pseudo: Pseudo) -> Tensor:
        """Hidden classes: (N,) of each of `segments`, -1 where it overlaps no event, or (1, T) of each snippet, where
        the background is the last class. For the diagnostic method and for snapshots."""

    @abstractmethod
    def losses(
        self,
        student: Any,
        videos: list[VideoItem],
        views: list[VideoItem],
        geometries: list[Geometry],
        pseudo: list[Pseudo],
        targets: list[ClassTargets],
    ) -> tuple[dict[str, Tensor], int]:
        """Losses of the student.

        Args:
            videos: the weak views that the teacher saw; views: the strong views that the student sees.
            geometries: where a moment of the weak view lies in the strong one.

        Returns:
            Named terms with their weighted sum `loss`, and the number of pseudo segments that are left in the views.
        """

    @staticmethod
    def pretext_losses(model: Any, videos: list[VideoItem], generator: torch.Generator) -> dict[str, Tensor]:
        """Losses of the pretext tasks, `final_loss` among them, where `has_pretext` is true."""
        raise NotImplementedError

    @staticmethod
    @abstractmethod
    def class_features(model: Any, video: VideoItem) -> tuple[np.ndarray, np.ndarray]:
        """Input of the last layer of the class head, (P, D), and the time of each row, (P,) grid steps."""

    @abstractmethod
    def state(self) -> State:
        """Numbers and tensors for exact resuming."""

    @abstractmethod
    def load_state(self, state: State) -> None:
        """Goes back to a `state`."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A run after an iteration, for observers: they may look at everything and must change nothing.

    Attributes:
        unlabeled: unlabeled videos; None for `labeled_only`.
        self_training, teacher: None for `labeled_only`.
        hidden: the hidden labels where `semi_cfg.log_hidden` allows them to be shown, else None.
    """

    config: Config
    semi: SemiSection
    annotations: Annotations
    iteration: int
    burn_in: int  # iteration at which self-training begins
    total: int  # iteration at which the run ends
    student: Any
    teacher: Any
    self_training: SelfTraining | None
    unlabeled: TALDataset | None
    hidden: HiddenLabels | None


Observer = Callable[[Snapshot], None]
