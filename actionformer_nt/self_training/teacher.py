"""The teacher of self-training: views, pseudo labels and lessons of unlabeled videos."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from typing_extensions import NotRequired

from actionformer_nt.config import SemiSection
from actionformer_nt.methods import Averaged, Evidence, Lesson, Method, Options, Student
from actionformer_nt.protocol.hidden_labels import HiddenLabels
from actionformer_nt.pseudo_sections import ViewSection
from libs.core import distributed
from libs.core.seeding import derive_seed
from libs.datasets.video import VideoItem
from libs.modeling.class_form import ClassForm
from libs.training.ema import ModelEma

from .criterion import level_normalizers
from .interface import SelfTraining, State, View
from .stages import Stage
from .views import Geometry, view_of


@dataclass(frozen=True, kw_only=True)
class UnlabeledBatch:
    """A batch of unlabeled videos with views, pseudo labels and lessons. Entry i of every list belongs to video i."""

    weak: list[VideoItem]
    strong: list[VideoItem]
    geometries: list[Geometry]
    pseudo: list[Any]
    lessons: list[Lesson]

    def part(self, k: int, parts: int) -> UnlabeledBatch:
        """Part k of `parts` equal parts."""
        return UnlabeledBatch(**{name: column[k::parts] for name, column in vars(self).items()})


class TeacherState(TypedDict):
    """State of a teacher for exact resuming, under its keys in a checkpoint."""

    unlabeled: State | None  # of `SelfTraining`; None before self-training
    frozen_teacher: dict[str, Tensor] | None  # weights; None before self-training and with `teacher: online`
    method: NotRequired[State]  # of `Method`


class Teacher:
    """Makes pseudo labels with averaged weights of the student: the current ones, or a copy (`teacher` of a stage).

    Args:
        method: decides what the student is taught.
        ema: averaged weights of the student.
        seed: seed of the run.
        hidden: hidden labels, for methods with `needs_truth` only; else None.
        backwards: (C,) class that each class is when it is played backwards.
    """

    def __init__(
        self,
        semi: SemiSection,
        self_training: SelfTraining,
        method: Method,
        *,
        ema: ModelEma,
        seed: int,
        hidden: HiddenLabels | None,
        backwards: Tensor,
    ) -> None:
        self.semi, self.self_training, self.method, self.ema = semi, self_training, method, ema
        self.seed, self.hidden, self.backwards = seed, hidden, backwards
        self.views = [*semi.teacher_views, *map(ViewSection.model_validate, method.teacher_views)]
        if any(view.flip for view in self.views):
            raise ValueError(f"method {semi.method}: teacher_views: flip: some classes change when they run backwards")
        self.stage: Stage | None = None  # None: not begun, the teacher is online
        self.frozen: ModelEma | None = None  # copy of the averaged weights, unless the stage has an online teacher
        self.stored: dict[str, Any] | None = None  # pseudo labels of whole videos, by video id

    @property
    def notice(self) -> str | None:
        """What a reader of the log should know about the method with this head."""
        return self.method.sigmoid_notice if self.self_training.form is ClassForm.SIGMOID else None

    @property
    def network(self) -> Any:
        """The teacher's network with its present weights."""
        return (self.ema if self.frozen is None else self.frozen).module

    def begin(self, stage: Stage, iteration: int) -> None:
        """Begins a stage of self-training at its first iteration, or goes on with it."""
        self.stage = stage
        if stage.options.teacher == "online":
            self.frozen = None
        elif iteration == stage.start:
            self._freeze()

    def advance(self, iteration: int) -> None:
        """Takes the student's present average if the stage asks for it, before an iteration of self-training."""
        if self.stage is not None and self.stage.refreshes(iteration):
            self._freeze()

    def _freeze(self) -> None:
        if self.frozen is None:
            self.frozen = ModelEma(self.ema.module)
        self.frozen.set(self.ema.module)

    def teach(self, videos: list[VideoItem], iteration: int, student: Any) -> UnlabeledBatch:
        """Views, pseudo labels and lessons of a batch of unlabeled videos.

        Args:
            student: the network that is trained, for methods with `needs_student`.
        """
        weak, pseudo = self._pseudo_labels(videos, iteration)
        strong = [view_of(video, "strong", self.semi.strong, self.seed, iteration) for video in weak]
        evidence = [
            self._evidence(video, labels, row, iteration)
            for row, (video, labels) in enumerate(zip(weak, pseudo, strict=True))
        ]
        if self.method.needs_student:
            says = self._student_says(student, strong, pseudo)
            evidence = [replace(e, student=own) for e, own in zip(evidence, says, strict=True)]
        if self.method.needs_features:
            seen = self._averaged(weak, getattr(student, "method_modules", None))
            evidence = [replace(e, averaged=own) for e, own in zip(evidence, seen, strict=True)]
        lessons = level_normalizers(self._lessons(evidence))
        pairs = [self.self_training.taught(*pair) for pair in zip(pseudo, lessons, strict=True)]
        taught, lessons = [labels for labels, _ in pairs], [lesson for _, lesson in pairs]
        for i, (_, geometry) in enumerate(strong):
            if geometry.reverses:
                lessons[i] = self._swapped(lessons[i])
        return UnlabeledBatch(
            weak=weak, strong=[view for view, _ in strong], geometries=[geometry for _, geometry in strong],
            pseudo=taught, lessons=lessons,
        )  # fmt: skip

    def pseudo_labels_of(self, videos: list[VideoItem], iteration: int) -> list[Any]:
        """Pseudo labels of unperturbed videos, as the student is taught, without a change of running statistics."""
        if self.stored is not None:
            return [self.self_training.cut(self.stored[video["video_id"]], video) for video in videos]
        views = self.further_views(videos, iteration)
        return self.self_training.pseudo_labels(self.network, videos, views, observe=False)

    def further_views(self, weak: list[VideoItem], iteration: int) -> list[list[View]]:
        """Further views for the teacher, `semi_cfg.teacher_views` and those of the method."""
        return [
            [view_of(video, f"teacher {k}", options, self.seed, iteration) for video in weak]
            for k, options in enumerate(self.views)
        ]

    def _swapped(self, lesson: Lesson) -> Lesson:
        """A lesson about a view in which time runs backwards."""
        return replace(lesson, y=self._backwards(lesson.y), w=self._backwards(lesson.w))

    def _backwards(self, values: Tensor) -> Tensor:
        """Values (N, K) of the classes that are played backwards; a background column stays."""
        background = torch.arange(len(self.backwards), values.shape[-1])
        return values[..., torch.cat([self.backwards, background]).to(values.device)]

    def _student_says(self, student: Any, strong: list[View], pseudo: list[Any]) -> list[Student]:
        """What the student says about the units of the pseudo labels, with the classes of the weak views."""
        student.eval()
        views, geometries = [view for view, _ in strong], [geometry for _, geometry in strong]
        says = self.self_training.student_says(student, views, geometries, pseudo)
        student.train()
        return [
            replace(own, probs=self._backwards(own.probs)) if geometry.reverses else own
            for own, geometry in zip(says, geometries, strict=True)
        ]

    @torch.no_grad()
    def _averaged(self, weak: list[VideoItem], modules: nn.Module | None) -> list[Averaged]:
        """Features of the weak views. They are those of the present average, also with a frozen teacher, since the
        method's modules learn on the student's features."""
        features = self.self_training.features(self.ema.module, weak)
        return [Averaged(levels[0], self.self_training.feature_stride, modules) for levels in features]

    def _pseudo_labels(self, videos: list[VideoItem], iteration: int) -> tuple[list[VideoItem], list[Any]]:
        """Weak views and their pseudo labels. Stored pseudo labels belong to the unperturbed videos."""
        if self.stored is not None:
            return videos, [self.self_training.cut(self.stored[video["video_id"]], video) for video in videos]
        weak = [view_of(video, "weak", self.semi.weak, self.seed, iteration)[0] for video in videos]
        return weak, self.self_training.pseudo_labels(self.network, weak, self.further_views(weak, iteration))

    def _lessons(self, evidence: list[Evidence]) -> list[Lesson]:
        """What the method teaches about the pseudo labels of weak views."""
        if type(self.method).observe is not Method.observe:
            self.method.observe(distributed.gather_shares([e.shared() for e in evidence]))
        options = Options(
            form=self.self_training.form, lam=self.semi.lam, positive=self.semi.positive,
            positive_reduction=self.semi.positive_reduction,
        )  # fmt: skip
        return self.method.locate(evidence, self.method.teach(evidence, options), options)

    def _evidence(self, video: VideoItem, pseudo: Any, row: int, iteration: int) -> Evidence:
        position = row * distributed.world_size() + distributed.rank()  # position in the batch of all processes
        generator = torch.Generator().manual_seed(derive_seed(self.seed, iteration, position, "method"))
        truth = None if self.hidden is None else self.self_training.true_units(self.hidden, video, pseudo)
        return replace(self.self_training.evidence(pseudo), generator=generator, truth=truth)

    def state(self) -> TeacherState:
        """For exact resuming."""
        frozen = None if self.frozen is None else self.frozen.module.state_dict()
        return {"unlabeled": self.self_training.state(), "frozen_teacher": frozen, "method": self.method.state()}

    def load_state(self, state: TeacherState) -> None:
        """Restores a result of `state`."""
        if state["unlabeled"] is not None:
            self.self_training.load_state(state["unlabeled"])
        if state["frozen_teacher"] is not None:
            self.frozen = ModelEma(self.ema.module)
            self.frozen.module.load_state_dict(state["frozen_teacher"])
        if "method" in state:
            self.method.load_state(state["method"])
