"""Interfaces of self-training: the adapter of an architecture, and the snapshot for observers of a run.

The trainer makes views, and the method chooses class targets. The adapter defines the pseudo labels of its architecture
and assigns them to the student's outputs: `pyramid.py` for ActionFormer, `actionformer_nt/spot/self_training.py` for
SPOT. Plug-ins register their own with `libs.core.register_architecture(..., self_training=...)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from actionformer_nt.config import SemiSection
from actionformer_nt.methods import Evidence, Lesson, Matched, Student
from actionformer_nt.methods.evidence import State
from actionformer_nt.protocol.hidden_labels import HiddenLabels
from libs.core.registry import SELF_TRAINING
from libs.core.types import Config
from libs.datasets.annotations import Annotations
from libs.datasets.dataset import TALDataset
from libs.datasets.video import VideoItem
from libs.modeling.class_form import ClassForm

from .pseudo_segments import PseudoSegments
from .views import Geometry

Pseudo = TypeVar("Pseudo")
View: TypeAlias = tuple[VideoItem, Geometry]  # a view of a video, and the map of times into it


class SelfTraining(ABC, Generic[Pseudo]):
    """Self-training adapter of one architecture. `Pseudo` is its type for the pseudo labels of one video.

    Args:
        config: resolved, with `semi_cfg`; `check` has accepted it.
        labeled: the labeled training videos.
    """

    form: ClassForm  # form of the class loss
    has_pretext = False  # whether `pretext_losses` is implemented
    pseudo_types: tuple[type, ...] = ()  # the types of stored pseudo labels, for reading them from a file

    @abstractmethod
    def __init__(self, config: Config, labeled: TALDataset) -> None: ...

    @staticmethod
    @abstractmethod
    def check(config: Config) -> None:
        """Raises ValueError if `semi_cfg.pseudo` does not fit the architecture; names the key."""

    @abstractmethod
    def pseudo_labels(
        self, teacher: Any, videos: list[VideoItem], further: Sequence[list[View]] = (), *, observe: bool = True
    ) -> list[Pseudo]:
        """Pseudo labels of the teacher on weak views: one entry per video, in the order of `videos`.

        Args:
            further: further views of all videos, each list in the order of `videos`; the geometries map from the weak
                view. What the teacher finds there is moved back to the weak view and averaged.
            observe: update running statistics, together with all other processes.
        """

    @abstractmethod
    def find_in_whole_videos(
        self, teacher: Any, videos: list[VideoItem], further: Sequence[list[View]] = ()
    ) -> list[Any]:
        """What the teacher finds in whole videos, on the CPU and before any selection, for `labels: stored`. Running
        statistics do not change."""

    def select_jointly(self, found: list[Any]) -> list[Any]:
        """Pseudo labels of whole videos from all results of `find_in_whole_videos`."""
        return found

    @abstractmethod
    def cut(self, pseudo: Any, video: VideoItem) -> Pseudo:
        """Pseudo labels of a whole video -> those of a training sample, which may be a crop of it."""

    @abstractmethod
    def evidence(self, pseudo: Pseudo) -> Evidence:
        """What the method sees of the pseudo labels of one video, without hidden labels and random numbers."""

    def student_says(
        self, student: Any, views: list[VideoItem], geometries: list[Geometry], pseudo: list[Pseudo]
    ) -> list[Student]:
        """What the student says about the units of `evidence`, for methods with `needs_student`. Its classes are still
        those of the strong view.

        Args:
            student: in evaluation mode; views: strong views.
            geometries: maps of times in the weak view to times in the strong view.
        """
        raise ValueError(f"{type(self).__name__} cannot say what the student thinks of pseudo labels")

    def compare(
        self, student: Any, teacher: Any, videos: list[VideoItem], views: list[VideoItem], geometries: list[Geometry]
    ) -> list[Matched]:
        """Outputs of the teacher on videos and of the student on views of them, at the same places, for methods with
        `student_views`. The classes of the student are still those of the view.

        Args:
            geometries: maps of times in a video to times in its view.
        """
        raise ValueError(f"{type(self).__name__} cannot compare outputs of student and teacher")

    @staticmethod
    def feature_width(config: Config) -> int:
        """Channels of `features`."""
        raise ValueError(f"model_name: {config['model_name']}: no features for modules of a method")

    feature_stride: int = 1  # snippets from one point of the finest of `features` to the next

    def features(self, model: Any, videos: list[VideoItem]) -> list[list[Tensor]]:
        """The network's features before its heads, (S, W) per video and level, with gradient: at the valid points of
        all levels, finest first, or at the snippets of a window."""
        raise ValueError(f"{type(self).__name__} has no features for modules of a method")

    @abstractmethod
    def taught(self, pseudo: Pseudo, lesson: Lesson) -> tuple[Pseudo, Lesson]:
        """The pseudo labels with the units and the boundaries that a lesson chooses (`keep`, `ignore`, `segments`), and
        the lesson with the weights that the settings of the run leave.

        Raises:
            ValueError: the lesson asks for something that the architecture does not have.
        """

    @abstractmethod
    def probs(self, pseudo: Pseudo) -> Tensor:
        """Class distributions (..., K) of the pseudo labels, for snapshots."""

    def used_probs(self, pseudo: Pseudo) -> Tensor:
        """Class distributions (N, K) that the student learns from, for the curves."""
        return self.probs(pseudo)

    @abstractmethod
    def segments(self, pseudo: Pseudo) -> PseudoSegments:
        """The pseudo labels as segments, for curves and snapshots."""

    @abstractmethod
    def rows_of_segments(self, pseudo: Pseudo) -> list[int]:
        """For each segment of `segments`, the index of its class distribution in `probs`, flattened to (P, K)."""

    @abstractmethod
    def true_class(self, hidden: HiddenLabels, video: VideoItem, pseudo: Pseudo) -> Tensor:
        """Hidden classes, for snapshots.

        Returns:
            (N,) class of each segment of `segments`, -1 for a segment that matches no event; or (1, T) class of each
            snippet, with the background as the last class.
        """

    def true_units(self, hidden: HiddenLabels, video: VideoItem, pseudo: Pseudo) -> Tensor:
        """Hidden classes of the units of `evidence`, (N,), for methods with `needs_truth`."""
        return self.true_class(hidden, video, pseudo).flatten()

    @abstractmethod
    def losses(
        self,
        student: Any,
        videos: list[VideoItem],
        views: list[VideoItem],
        geometries: list[Geometry],
        pseudo: list[Pseudo],
        lessons: list[Lesson],
    ) -> tuple[dict[str, Tensor], int]:
        """Losses of the student on unlabeled videos. Entry i of every list belongs to video i.

        Args:
            videos: weak views, which the teacher saw; views: strong views, which the student sees.
            geometries: maps of times in the weak view to times in the strong view.
            pseudo: results of `taught`.
            lessons: what the method teaches about the units of `evidence`.

        Returns:
            Scalar losses by name, with their weighted sum `loss`; and the number of pseudo labels that are visible in
            the strong views.
        """

    @staticmethod
    def pretext_losses(model: Any, videos: list[VideoItem], generator: torch.Generator) -> dict[str, Tensor]:
        """Scalar losses of the pretext tasks, with their weighted sum `final_loss`; only if `has_pretext` is true."""
        raise ValueError("this architecture has no pretext tasks; set semi_cfg.pretrain: 0")

    @staticmethod
    @abstractmethod
    def class_features(model: Any, video: VideoItem) -> tuple[np.ndarray, np.ndarray]:
        """Inputs of the last layer of the class head, (P, D), and their times, (P,) in grid steps."""

    @abstractmethod
    def state(self) -> State:
        """Numbers and tensors for exact resuming."""

    @abstractmethod
    def load_state(self, state: State) -> None:
        """Restores a result of `state`."""


@contextmanager
def inputs_of(layer: torch.nn.Module) -> Iterator[list[Tensor]]:
    """The inputs of a layer in the calls within the context, on the CPU."""
    inputs: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach().float().cpu()))
    try:
        yield inputs
    finally:
        hook.remove()


def self_training_of(model_name: str) -> type[SelfTraining]:
    """The self-training of an architecture; of one that has registered none, that of ActionFormer's pyramid."""
    name = model_name if model_name in SELF_TRAINING.names() else "LocPointTransformer"
    self_training: type[SelfTraining] = SELF_TRAINING.get(name)
    return self_training


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """State of a run after an iteration. Observers must not change it.

    Attributes:
        unlabeled, self_training, teacher, pseudo_labels: None for the method `labeled_only`.
        hidden: hidden labels; None unless `semi_cfg.log_hidden` is true.
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
    pseudo_labels: Callable[[list[VideoItem]], list[Any]] | None  # of unperturbed videos; changes nothing
    unlabeled: TALDataset | None
    hidden: HiddenLabels | None


Observer = Callable[[Snapshot], None]
