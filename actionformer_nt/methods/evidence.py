"""What methods are given and what they give: evidence about unlabeled videos, lessons for the student."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from libs.datasets.video import VideoItem
from libs.modeling.class_form import ClassForm

State: TypeAlias = "dict[str, float | Tensor | None]"  # values for exact resuming, by name


def tensor_of(state: State, name: str) -> Tensor:
    """An entry of a state that is a tensor."""
    value = state[name]
    assert isinstance(value, Tensor)
    return value


class ClassTargets(NamedTuple):
    """Targets Y in [0, 1] and weights W >= 0 (0: the class is ignored), both (..., K) like the distribution."""

    target: Tensor
    weight: Tensor


@dataclass(frozen=True, kw_only=True)
class Options:
    """Parameters of methods.

    Attributes:
        form: loss form of the classification head, "sigmoid" or "softmax".
        lam: lambda of the partition.
        positive: with the sigmoid form, "split" (Y = 1/|S| on target and positive classes) or "hard" (Y = 1).
        positive_reduction: "sum" over the positive classes as in the paper, or "mean".
        generator: random numbers of functions that draw.
        true_class: (...,) class indices, only for functions of methods with `needs_truth`.
    """

    form: ClassForm = ClassForm.SIGMOID
    lam: float = 0.85
    positive: str = "split"
    positive_reduction: str = "sum"
    generator: torch.Generator | None = None
    true_class: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "form", ClassForm(self.form))


@dataclass(frozen=True, kw_only=True)
class Student:
    """What the student says about the units of an `Evidence` on the strong view, in evaluation mode, without gradient.

    Attributes:
        probs: (N, K) class distributions, with the classes of the teacher's view.
        seen: (N,) bool: units about which the student says something: points and snippets that its view has, segments
            that one of its candidates supports. The rows of the others mean nothing.
        segments: (N, 2) mean boundaries of the supporting candidates, or those at the point, in grid steps of the
            teacher's view; None at snippets.
    """

    probs: Tensor
    seen: Tensor
    segments: Tensor | None = None


class Averaged(NamedTuple):
    """The averaged network up to its heads on the teacher's weak view of a video, in evaluation mode, without gradient,
    and the method's modules. These are not averaged: as long as they are new, their average lags far behind."""

    features: Tensor  # (S, W) at points of the finest level, or snippets
    stride: int  # snippets from one point to the next; point k is at snippet k * stride
    modules: nn.Module | None  # of the method, as they are trained


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the teacher says about one unlabeled video, per unit. The head decides what a unit is: a proposed segment
    (ActionFormer), a point (`pseudo.partition: dense`) or a snippet (SPOT).

    Attributes:
        probs: (N, K) class distributions. At points and snippets the background is the last class.
        scores: (N,) confidence of the head in a segment; at points and snippets, probability of the best action.
        selected: (N,) bool: units that teach unless the method says otherwise (`Lesson.keep`): the segments that
            `pseudo.select` selects; all points; the confident snippets of `model.pseudo`.
        valid: (N,) bool, False at padded snippets; None: all units are.
        unit: what a unit is.
        class_scores: (N, C) scores of the head for the actions, the sigmoid of each logit in the sigmoid form.
        segments: (N, 2) in grid steps of the teacher's view, at points those that the head predicts there; None at
            snippets.
        spread: (N, 2) standard deviation of start and end over the candidates that support a segment, in grid steps;
            None at points and snippets.
        stability: (N,) how sure the teacher is of the place, 0 .. 1: at segments 1 - mean spread / length; at snippets
            the mean of |2 m - 1| over the probabilities m of its mask; None at points.
        quality: (N,) clip(tIoU - centre distance, 0, 1), as the quality head predicts it for the place: at segments the
            mean over the supporting candidates; None without `model.quality`.
        student: what the student says about the same units; None unless `Method.needs_student`.
        averaged: features of the same view; None unless `Method.needs_features`, and in `Method.observe`.
        generator: random numbers of this video; None in `Method.observe`.
        truth: (N,) hidden classes, -1 for a segment that matches no event; None unless `Method.needs_truth`.
    """

    probs: Tensor
    scores: Tensor
    selected: Tensor
    valid: Tensor | None = None
    unit: Literal["segment", "point", "snippet"] = "segment"
    class_scores: Tensor | None = None
    segments: Tensor | None = None
    spread: Tensor | None = None
    stability: Tensor | None = None
    quality: Tensor | None = None
    student: Student | None = None
    averaged: Averaged | None = None
    generator: torch.Generator | None = None
    truth: Tensor | None = None

    @property
    def existing(self) -> Tensor:
        """(N,) bool: all units but padded snippets."""
        return torch.ones_like(self.selected) if self.valid is None else self.valid

    def shared(self) -> Evidence:
        """On the CPU, without generator and features, for other processes."""
        student = None if self.student is None else replace(self.student, **_on_cpu(self.student))
        return replace(self, generator=None, averaged=None, **_on_cpu(self) | {"student": student})


def _on_cpu(item: Evidence | Student) -> dict[str, Any]:
    """The tensors of an object by name, on the CPU."""
    return {name: value.cpu() for name, value in vars(item).items() if isinstance(value, Tensor)}


class Matched(NamedTuple):
    """Outputs of teacher and student for the same n points or snippets of a video."""

    scores: Tensor  # (n, C) probabilities of the actions for the student, with gradient
    teacher_scores: Tensor  # (n, C)
    places: Tensor  # (n, M) of the student: distances of both ends to the point in strides, or mask probabilities
    teacher_places: Tensor  # (n, M)


def ramp(done: float, length: float) -> float:
    """Ramp-up exp(-5 (1 - t)^2) with t = done / length (Laine and Aila, 2017); 1 from `length` on."""
    return 1.0 if done >= length else math.exp(-5.0 * (1 - done / length) ** 2)


class Sizes(NamedTuple):
    """Sizes for the modules of a method."""

    input_dim: int  # D, channels of the features
    width: int  # W, channels of the network's features (`Trunk.features`)
    num_classes: int


class Trunk(NamedTuple):
    """The network up to its heads, for losses of a method's own modules."""

    levels: Callable[[list[VideoItem]], list[list[Tensor]]]  # per video and level (S, W), with gradient, finest first
    stride: int  # snippets from one point of the finest level to the next; point k is at snippet k * stride
    modules: nn.Module | None  # of the method, as they are trained
    generators: list[torch.Generator]  # random numbers of each video

    def features(self, videos: list[VideoItem]) -> list[Tensor]:
        """Per video (S, W), with gradient: points of the finest level, or snippets."""
        return [levels[0] for levels in self.levels(videos)]


class Progress(NamedTuple):
    """How far self-training is."""

    iteration: int  # updates since its start
    epoch: float  # the same in passes over the labeled videos


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What the student is taught about the units of one `Evidence`.

    Attributes:
        y, w: (N, K) class targets in [0, 1] and weights >= 0; a class with weight 0 teaches nothing.
        keep: (N,) bool: units that teach, instead of `Evidence.selected`. Points of other segments are outside all
            pseudo segments.
        ignore: (N,) bool: these units teach nothing, nor do the points of these segments that no kept segment owns.
        v: (N,) weights >= 0 of the regression loss of segments or points. At points None means the boundaries of the
            pseudo segments instead.
        segments: (N, 2) boundaries to teach, instead of `Evidence.segments`.
        normalizer: part of this video in the number that the unlabeled loss is divided by; of all videos of a batch,
            or of none.
    """

    y: Tensor
    w: Tensor
    keep: Tensor | None = None
    ignore: Tensor | None = None
    v: Tensor | None = None
    segments: Tensor | None = None
    normalizer: float | None = None

    def kept(self, e: Evidence) -> Tensor:
        """(N,) bool: the units that teach so far."""
        kept = e.selected if self.keep is None else self.keep
        return kept if self.ignore is None else kept & ~self.ignore

    def ignoring(self, units: Tensor) -> Lesson:
        """This lesson without the units (N,) bool, which teach nothing."""
        return replace(self, ignore=units if self.ignore is None else units | self.ignore)

    def weighing(self, v: Tensor) -> Lesson:
        """This lesson with boundary weights multiplied by v (N,)."""
        return replace(self, v=v if self.v is None else v * self.v)
