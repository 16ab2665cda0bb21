"""Schema of `semi_cfg.stages`."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import NonNegativeInt, model_validator

from libs.core.schema import Count, Fraction, NonNegative, Positive, Section

Learn: TypeAlias = Literal["pretext", "labeled", "pseudo"]
LEARN: tuple[Learn, ...] = ("pretext", "labeled", "pseudo")  # in the order of the stages


class StageOptSection(Section):
    """Optimizer and learning-rate schedule of a stage. A key that is left out is as in the section `opt`."""

    type: Literal["AdamW", "SGD"] | None = None
    """Optimizer."""
    momentum: Fraction | None = None
    """Momentum of SGD."""
    weight_decay: NonNegative | None = None
    """Weight decay."""
    learning_rate: NonNegative | None = None
    """Highest learning rate."""
    warmup_iterations: NonNegativeInt | None = None
    """Iterations of the warm-up; `null`: as `semi_cfg.warmup_iterations`."""
    schedule_type: Literal["cosine", "multistep"] | None = None
    """Form of the schedule after the warm-up."""
    schedule_steps: list[NonNegativeInt] | None = None
    """Iterations after the warm-up at which the rate falls, for `multistep`."""
    schedule_gamma: Positive | None = None
    """Factor of each fall, for `multistep`."""


class StageSection(Section):
    """A stage of training."""

    learn: Learn
    """What the network learns: pretext tasks, of SPOT or of a method, on all videos (`pretext`), the labels of the
    labeled videos (`labeled`), or these and the pseudo labels of the unlabeled videos (`pseudo`). Stages come in this
    order."""
    iterations: Count
    """Updates of the stage."""
    repeat: Count = 1
    """Number of times that the stage is run, such as the rounds of self-training."""
    schedule: Literal["own", "continued"] = "own"
    """Learning-rate schedule: one of its own, with a new optimizer (`own`), or a share of the schedule of the stage
    before (`continued`): one schedule then spans both."""
    opt: StageOptSection = StageOptSection()
    """Optimizer and schedule of the stage, for `schedule: own`."""
    student: Literal["warm", "fresh"] = "warm"
    """Network at the start of the stage: the one that the stage before has trained (`warm`), or new weights
    (`fresh`). The method `labeled_only` goes on in any case."""
    teacher: Literal["frozen", "online", "refreshed"] = "frozen"
    """Weights of the teacher, for `learn: pseudo`: the average of the stage before (`frozen`), the current average
    (`online`), or the average of the stage before, replaced by the current one every `refresh_every` iterations
    (`refreshed`)."""
    refresh_every: Count = 500
    """Iterations from one copy of the teacher to the next, for `refreshed`."""
    labels: Literal["views", "stored"] = "views"
    """Pseudo labels of a frozen teacher: made in every iteration, on the weak view (`views`), or made once, on whole
    videos, and stored in the run folder (`stored`)."""

    @model_validator(mode="after")
    def _check(self) -> StageSection:
        fields = type(self).model_fields
        given = [n for n in ("teacher", "refresh_every", "labels") if getattr(self, n) != fields[n].default]
        if self.learn != "pseudo" and given:
            raise ValueError(f"{', '.join(given)}: without effect for learn: {self.learn}; leave out")
        if self.labels == "stored" and self.teacher != "frozen":
            raise ValueError(f"labels: stored needs teacher: frozen, found {self.teacher}")
        if self.refresh_every != fields["refresh_every"].default and self.teacher != "refreshed":
            raise ValueError(f"refresh_every: without effect for teacher: {self.teacher}; leave it out")
        if self.student == "fresh" and self.learn == "pseudo" and self.teacher == "online":
            raise ValueError("student: fresh needs teacher: frozen or refreshed, since an online one is as new as it")
        if self.schedule == "continued" and (self.student == "fresh" or self.opt != StageOptSection()):
            raise ValueError("schedule: continued goes on with optimizer and weights; leave out opt and student: fresh")
        return self
