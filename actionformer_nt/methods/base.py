"""The interface of methods: from what the teacher says about unlabeled videos to what the student is taught.

A method is a `Method`. Most methods only choose class targets, one distribution at a time; each of these is a function
`class_targets(probs, options) -> ClassTargets`, which `FromClassTargets` makes a method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from libs.core.schema import Section
from libs.datasets.video import VideoItem

from .evidence import ClassTargets, Evidence, Lesson, Matched, Options, Progress, Sizes, State, Trunk
from .label_space import partition


class Method:
    """A method of self-training. Every run builds its own, without arguments.

    A method has two sides, and may leave out either: `teach` says what the student learns about the classes, `locate`
    which units teach, how much, and with which boundaries. `method: [nt, mine]` composes the `teach` of one method with
    the `locate` of others.

    Attributes:
        schema: the method's own settings (`semi_cfg.method_options`); None: it has none.
        settings: an object of `schema`, set before any other call.
        spares: the method learns from non-target classes. It matters at points outside all pseudo segments: in the
            softmax form the actions are negatives there, and `pseudo.background: partition` spares likely actions.
        needs_truth: the method reads hidden labels (`Evidence.truth`) and is a diagnostic.
        needs_student: `Evidence.student` is made, with one more pass of the student over the strong views.
        needs_features: `Evidence.averaged` is made, with one more pass of the averaged network over the weak views.
        needs_quality: the method needs a quality head whose factor is in the scores (`model.quality`,
            `test_cfg.quality_score`).
        at_points: with ActionFormer, the method needs `pseudo.partition: dense` (True) or `segments` (False); None: it
            takes both.
        teacher_views: further weak views for the teacher, as keys of the section `semi_cfg.weak`, in addition to those
            of `semi_cfg.teacher_views`, without flip.
        student_views: views of labeled and unlabeled videos on which `consistency` compares the student with the
            teacher, as keys of the section `semi_cfg.strong`.
        has_lessons: whether pseudo labels are made and taught; without them only `consistency` uses unlabeled videos.
        sigmoid_notice: logged at the start of a run with a sigmoid head.
    """

    schema: type[Section] | None = None
    settings: Section
    spares: bool = False
    needs_truth: bool = False
    needs_student: bool = False
    needs_features: bool = False
    needs_quality: bool = False
    at_points: bool | None = None
    teacher_views: Sequence[Mapping[str, Any]] = ()
    student_views: Sequence[Mapping[str, Any]] = ()
    has_lessons: bool = True
    sigmoid_notice: str | None = None

    @property
    def compares(self) -> bool:
        """Whether the method has losses beside those of its lessons."""
        return bool(self.student_views) or any(type(m).auxiliary is not Method.auxiliary for m in self.each())

    @property
    def has_pretext(self) -> bool:
        """Whether the method has losses for the stage `learn: pretext`."""
        return any(type(m).pretext is not Method.pretext for m in self.each())

    @property
    def has_modules(self) -> bool:
        """Whether the method has modules of its own."""
        return any(type(m).modules is not Method.modules for m in self.each())

    def each(self) -> list[Method]:
        """The methods that are composed; else this one alone."""
        return [self]

    def observe(self, evidence: list[Evidence]) -> None:
        """Updates running statistics, before `teach`.

        Args:
            evidence: of the whole batch, of all processes and in the same order in each of them, on the CPU.
        """

    def teach(self, evidence: list[Evidence], options: Options) -> list[Lesson]:
        """One lesson per video; here that of `target`: the most probable class alone.

        Args:
            evidence: of this process's videos. Random numbers come from `Evidence.generator` only.
            options: without `generator` and `true_class`.
        """
        targets = [one_hot_targets(partition(e.probs).target, options) for e in evidence]
        return [Lesson(y=chosen.target, w=chosen.weight) for chosen in targets]

    def locate(self, evidence: list[Evidence], lessons: list[Lesson], options: Options) -> list[Lesson]:
        """The lessons of `teach` with `keep`, `ignore`, `v`, `segments`, `normalizer` or weights changed.

        Several methods may do so one after another: what a lesson has already, such as `ignore` and `v`, is added to
        (`Lesson.ignoring`, `Lesson.weighing`), not replaced.

        Args:
            evidence: as for `teach`; lessons: one per video.
        """
        return lessons

    def consistency(self, pairs: list[list[Matched]], *, labeled: bool, progress: Progress) -> dict[str, Tensor]:
        """Weighted scalar losses by name, which are added to the loss during self-training.

        Args:
            pairs: for each of `student_views`, outputs of every video of this part of the batch. Losses are means over
                the videos.
            labeled: whether the videos are labeled.
        """
        raise NotImplementedError(f"{type(self).__name__} has `student_views`, but no `consistency`")

    def modules(self, sizes: Sizes) -> nn.Module | None:
        """Modules that are trained and averaged with the network, where a loss reaches them. Predictions do without
        them."""
        return None

    def auxiliary(
        self, videos: list[VideoItem], trunk: Trunk, *, labeled: bool, progress: Progress
    ) -> dict[str, Tensor]:
        """Further weighted scalar losses by name, as `consistency`, from features and `modules`.

        Args:
            videos: weak views, labeled or unlabeled; `segments` and `labels` are the events of labeled ones, in grid
                steps, and None of unlabeled ones.
        """
        return {}

    def renew(self) -> None:
        """Called when the student of a stage gets new weights (`student: fresh`), and the method new modules."""

    def pretext(self, videos: list[VideoItem], trunk: Trunk) -> dict[str, Tensor]:
        """Weighted scalar losses by name in the stage `learn: pretext`, before the burn-in, on labeled and unlabeled
        videos without their events. With SPOT they are added to those of its pretext tasks."""
        return {}

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
