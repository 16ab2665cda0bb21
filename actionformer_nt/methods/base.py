"""The interface of methods: from what the teacher says about unlabeled videos to what the student is taught.

A method is a `Method`. Most methods only choose class targets, one distribution at a time; each of these is a function
`class_targets(probs, options) -> ClassTargets`, which `FromClassTargets` makes a method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from libs.modeling.class_form import ClassForm

State: TypeAlias = "dict[str, float | Tensor | None]"  # values for exact resuming, by name


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
class Evidence:
    """What the teacher says about one unlabeled video, per unit. The head decides what a unit is: a proposed segment
    (ActionFormer), a point (`pseudo.partition: dense`) or a snippet (SPOT).

    Attributes:
        probs: (N, K) class distributions. At points and snippets the background is the last class.
        scores: (N,) confidence of the head in a segment; at points and snippets, probability of the best action.
        selected: (N,) bool: units that teach unless the method says otherwise (`Lesson.keep`): the segments that
            `pseudo.select` selects; all points and snippets.
        segments: (N, 2) in grid steps of the teacher's view; None at points and snippets.
        spread: (N, 2) standard deviation of start and end over the candidates that support a segment, in grid steps;
            None at points and snippets.
        generator: random numbers of this video; None in `Method.observe`.
        truth: (N,) hidden classes, -1 for a segment that matches no event; None unless `Method.needs_truth`.
    """

    probs: Tensor
    scores: Tensor
    selected: Tensor
    segments: Tensor | None = None
    spread: Tensor | None = None
    generator: torch.Generator | None = None
    truth: Tensor | None = None

    def shared(self) -> Evidence:
        """On the CPU and without the generator, for other processes."""
        moved = {name: value.cpu() for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, generator=None, **moved)


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What the student is taught about the units of one `Evidence`.

    Attributes:
        y, w: (N, K) class targets in [0, 1] and weights >= 0; a class with weight 0 teaches nothing.
        keep: (N,) bool: units that teach, instead of `Evidence.selected`. Points of other segments are outside all
            pseudo segments.
        ignore: (N,) bool: the points of these segments, or these snippets, teach nothing, if no kept segment owns them.
        v: (N,) weights >= 0 of the regression loss of segments.
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


class Method:
    """A method of self-training. Every run builds its own, without arguments.

    Attributes:
        spares: the method learns from non-target classes. It matters at points outside all pseudo segments: in the
            softmax form the actions are negatives there, and `pseudo.background: partition` spares likely actions.
        needs_truth: the method reads hidden labels (`Evidence.truth`) and is a diagnostic.
        teacher_views: further weak views for the teacher, as keys of the section `semi_cfg.weak`, in addition to those
            of `semi_cfg.teacher_views`, without flip.
        sigmoid_notice: logged at the start of a run with a sigmoid head.
    """

    spares: bool = False
    needs_truth: bool = False
    teacher_views: Sequence[Mapping[str, float]] = ()
    sigmoid_notice: str | None = None

    def observe(self, evidence: list[Evidence]) -> None:
        """Updates running statistics, before `teach`.

        Args:
            evidence: of the whole batch, of all processes and in the same order in each of them, on the CPU.
        """

    def teach(self, evidence: list[Evidence], options: Options) -> list[Lesson]:
        """One lesson per video.

        Args:
            evidence: of this process's videos. Random numbers come from `Evidence.generator` only.
            options: without `generator` and `true_class`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `teach`")

    def state(self) -> State:
        """Numbers and tensors for exact resuming."""
        return {}

    def load_state(self, state: State) -> None:
        """Restores a result of `state`."""


class FromClassTargets(Method):
    """The method that a function `class_targets(probs, options) -> ClassTargets` makes.

    Args:
        class_targets: called once per video, with the distributions of the selected units, (n, K).
    """

    def __init__(
        self,
        class_targets: Callable[[Tensor, Options], ClassTargets],
        *,
        spares: bool = False,
        needs_truth: bool = False,
        sigmoid_notice: str | None = None,
    ) -> None:
        self.class_targets = class_targets
        self.spares, self.needs_truth, self.sigmoid_notice = spares, needs_truth, sigmoid_notice

    def teach(self, evidence: list[Evidence], options: Options) -> list[Lesson]:
        return [self._lesson(e, options) for e in evidence]

    def _lesson(self, e: Evidence, options: Options) -> Lesson:
        truth = None if e.truth is None else e.truth[e.selected]
        chosen = self.class_targets(e.probs[e.selected], replace(options, generator=e.generator, true_class=truth))
        y, w = (column.new_zeros(e.probs.shape) for column in chosen)
        y[e.selected], w[e.selected] = chosen.target, chosen.weight
        return Lesson(y=y, w=w)


def one_hot_targets(target: Tensor, options: Options) -> ClassTargets:
    """Targets of self-training on the classes of the boolean mask `target` (..., K) alone."""
    y = target.float()
    return ClassTargets(y, options.form.self_training_weight(y))
