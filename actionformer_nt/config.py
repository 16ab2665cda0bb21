"""Schema of the section `semi_cfg`, the settings of semi-supervised training."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, model_validator

from actionformer_nt.methods import check_method
from libs.core.schema import Count, Fraction, NonNegative, Positive, Section
from libs.core.types import Config


class SplitSection(Section):
    file: str
    """Split file, written by `actionformer-nt splits`."""
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the training videos that is labeled. Optional for a published list, which has a single ratio."""
    fold: NonNegativeInt = 0
    """Fold of the split file, that is, which random draw of labeled videos."""


class ViewSection(Section):
    """Perturbations of a view, applied in the order of the keys; 0 switches a perturbation off."""

    crop: Fraction = 0.0
    """Largest share of the video that is cropped away."""
    shift: NonNegativeInt = 0
    """Largest shift in time, in grid steps, to either side."""
    warp: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Time warping: the speed varies along the video between 1 - warp and 1 + warp."""
    flip: Fraction = 0.0
    """Probability that time is reversed."""
    snippet_mask: Fraction = 0.0
    """Probability that a block of `mask_length` snippets is set to zero."""
    mask_length: Count = 1
    """Snippets in a block of `snippet_mask`."""
    channel_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a channel is set to zero; the others are scaled up."""
    noise: NonNegative = 0.0
    """Standard deviation of Gaussian noise, in standard deviations of the features."""


MOVING = ("crop", "shift", "warp", "flip")  # perturbations that change the time of events


class PseudoSection(Section):
    """How the teacher's output becomes pseudo segments."""

    source: Literal["online", "refresh"] = "online"
    """Weights of the teacher: the current moving average of the student (`online`), or a copy of that average which is
    renewed every `refresh_every` iterations (`refresh`). With `stages`, each stage has its own `teacher` instead."""
    refresh_every: Count = 500
    """Iterations from one copy of the teacher to the next, for `refresh`."""
    select: Literal["fixed", "per_class", "rate", "topk"] = "fixed"
    """Selection of pseudo segments: all with a score of at least `threshold` (`fixed`); of at least `threshold` times
    m_c / max m, where m_c is the running mean score of class c (`per_class`); of at least a threshold per class at
    which the pseudo segments of the most recent 100 unlabeled videos are as many per minute as the labeled events of
    the class, but not below `rate_floor` (`rate`); or the best `topk` (`topk`)."""
    threshold: Fraction = 0.3
    """Threshold of the score, for `fixed` and `per_class`."""
    topk: Count = 20
    """Segments per video, for `topk`."""
    rate_floor: Fraction = 0.1
    """Smallest threshold of a class, for `rate`."""
    ignore_from: Fraction | None = None
    """Ignore band: points assigned to a proposal that is not selected, but has at least this score, teach nothing,
    unless a pseudo segment owns them; `null`: no band."""
    nms_iou: Positive = 0.5
    """tIoU threshold of the class-agnostic hard NMS."""
    overlap: Literal["nms", "labels"] = "nms"
    """How much pseudo segments may overlap: as much as NMS leaves (`nms`); or at most the share q of the shorter one,
    where q is the smallest share that at most 1 % of the labeled events exceed, but at least .25 (`labels`)."""
    support_iou: Fraction = 0.7
    """Logits and ends of a pseudo segment are the score-weighted means over the candidates with at least this tIoU."""
    max_segments: Count = 100
    """Largest number of segments per video after NMS."""
    temperature: Positive = 1.0
    """Softmax temperature of the class distributions; above 1, they become flatter."""
    partition: Literal["segments", "dense"] = "segments"
    """Class distributions for the method: one per pseudo segment, over the actions (`segments`), or one per point, over
    the actions and the background (`dense`)."""
    background: Literal["negative", "ignore", "weighted", "partition"] = "negative"
    """Class loss at points outside all pseudo segments: background (`negative`), none (`ignore`), background with
    `background_weight` (`weighted`), or background, but without loss for actions that the teacher finds ambiguous or at
    least lambda times as probable as the background (`partition`; equals `negative` for methods that do not use
    non-target classes)."""
    background_logit: float | None = None
    """Background logit of the distributions at points. Required if these are used with the sigmoid form, whose head has
    no background logit; not allowed with the softmax form, where the background logit is 0."""
    background_weight: Fraction = 0.5
    """Weight of the background, for `weighted`."""
    without_segments: Literal["background", "skip"] = "background"
    """Videos without any pseudo segment: background as elsewhere (`background`), or no loss (`skip`)."""
    second_class: Literal["negative", "ignore"] = "negative"
    """Sigmoid form: other classes whose own score at a pseudo segment is at least the threshold, and whose target is 0:
    negatives if the method says so (`negative`), or W = 0 (`ignore`). For events of two classes."""
    boundary_weight: Literal["none", "spread"] = "none"
    """Weight of a pseudo segment's regression loss: 1 (`none`), or exp(-(s + e) / length) with the standard deviations
    s and e of its start and end over the supporting candidates (`spread`)."""
    normalizer: Literal["own", "labeled"] = "own"
    """Number that the unlabeled loss is divided by: a running mean of its own points in segments (`own`), or that of
    the labeled loss (`labeled`), so that an unlabeled point weighs as much as a labeled one."""

    @model_validator(mode="after")
    def _check(self) -> PseudoSection:
        if self.ignore_from is not None and self.select == "fixed" and self.ignore_from >= self.threshold:
            raise ValueError(f"ignore_from: {self.ignore_from}: must be below threshold, {self.threshold}")
        return self

    @property
    def at_points(self) -> bool:
        """Whether the teacher's class distributions at points are used."""
        return self.partition == "dense" or self.background == "partition"


class SamplesSection(Section):
    """Snapshots that a run keeps for its report. They do not affect training."""

    videos: NonNegativeInt = 16
    """Number of unlabeled videos in the snapshots; 0: no snapshots."""
    moments: Count = 4
    """Number of snapshots during self-training, evenly spaced up to its end. Another one is taken at the end of the
    burn-in."""


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
    """What the network learns: SPOT's pretext tasks on all videos (`pretext`), the labels of the labeled videos
    (`labeled`), or these and the pseudo labels of the unlabeled videos (`pseudo`). Stages come in this order."""
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
    (`fresh`)."""
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
        if self.student == "fresh" and self.learn == "pseudo" and self.teacher == "online":
            raise ValueError("student: fresh needs teacher: frozen or refreshed, since an online one is as new as it")
        if self.schedule == "continued" and (self.student == "fresh" or self.opt != StageOptSection()):
            raise ValueError("schedule: continued goes on with optimizer and weights; leave out opt and student: fresh")
        return self


class SemiSection(Section):
    """The section `semi_cfg`."""

    split: SplitSection
    """Which training videos are labeled."""
    method: str
    """Method that turns class distributions into class targets: a built-in name, or the module of your own method."""
    stages: list[StageSection] | None = None
    """Stages of training, in order. `null`: `pretrain`, `burn_in` and `iterations` say how long the three stages are,
    and one schedule spans them."""
    pretrain: NonNegativeInt = 0
    """Iterations of SPOT's pretext tasks on all videos, before the burn-in; without `stages`."""
    burn_in: NonNegativeInt = 0
    """Iterations on labeled videos only; without `stages`."""
    iterations: NonNegativeInt = 0
    """Iterations of self-training, after the burn-in; without `stages`."""
    warmup_iterations: NonNegativeInt = 0
    """Iterations of the learning-rate warm-up, at the start of every schedule."""
    burn_in_checkpoint: str | None = None
    """Checkpoint from the end of a burn-in with the same configuration; the burn-in is then skipped."""
    unlabeled_batch_size: Count = 2
    """Unlabeled videos per iteration."""
    alpha: NonNegative = 1.0
    """Weight of the unlabeled loss."""
    ramp_up: NonNegativeInt = 0
    """Iterations of self-training over which `alpha` rises from 0."""
    reg_weight: NonNegative = 1.0
    """Weight of the regression loss within the unlabeled loss."""
    lam: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Lambda of the partition: a class is positive if its probability is at least lambda times the target's."""
    positive: Literal["split", "hard"] = "split"
    """Sigmoid form, method `nt`: target value of each class in S, the target and positive classes: 1/|S| (`split`) or 1
    (`hard`)."""
    positive_reduction: Literal["sum", "mean"] = "sum"
    """Reduction of the loss over the positive classes: sum, as in the paper, or mean."""
    pseudo: PseudoSection = PseudoSection()
    """How the teacher's output becomes pseudo segments."""
    labeled_view: Literal["plain", "strong"] = "plain"
    """View of labeled videos, for every method: unperturbed (`plain`), or perturbed as set in `strong` (`strong`)."""
    weak: ViewSection = ViewSection()
    """Weak view: the teacher's view of an unlabeled video. Perturbations are applied in the order of the keys; 0
    switches one off."""
    teacher_views: list[ViewSection] = []
    """A list of further views for the teacher, each a perturbed view of the weak one, without flip. What the teacher
    finds is moved back to the weak view and averaged: logits, ends and scores of pseudo segments; with SPOT, class and
    mask probabilities. Distributions at points (`pseudo.partition`) come from the weak view alone."""
    strong: ViewSection = ViewSection(snippet_mask=0.1, channel_dropout=0.1)
    """Strong view: the student's view of an unlabeled video. Pseudo segments are mapped into it."""
    reversed_classes: list[tuple[str, str]] = []
    """Pairs of classes that are each other played backwards, such as `[SIT_TO_STAND, STAND_TO_SIT]`: where `flip`
    reverses a view, their labels and pseudo labels are swapped."""
    ckpt_every: Count = 500
    """Iterations from one checkpoint to the next."""
    log_every: Count = 50
    """Iterations from one record in `metrics.jsonl` to the next."""
    samples: SamplesSection = SamplesSection()
    """Snapshots for the report. They do not affect training."""
    log_hidden: bool = False
    """Measures the quality of pseudo labels with the hidden labels, and records it."""
    allow_external_scores: bool = False
    """Allows `test_cfg.ext_score_file`, although the model behind external scores may have seen hidden labels."""

    @model_validator(mode="after")
    def _check(self) -> SemiSection:
        check_method(self.method)
        self._check_stages()
        if any(view.flip for view in self.teacher_views):
            raise ValueError("teacher_views: flip: some classes change when they run backwards; expected 0")
        if self.pseudo.at_points and (moving := [n for n in MOVING if getattr(self.strong, n)]):
            raise ValueError(
                f"pseudo.partition: {self.pseudo.partition} with background: {self.pseudo.background} takes a "
                f"teacher's point for the same point of the student, but "
                f"strong.{', strong.'.join(moving)} moves them; expected 0"
            )
        if self.pseudo.partition == "dense":
            for name in ("background", "ignore_from", "second_class"):
                if (value := getattr(self.pseudo, name)) != PseudoSection.model_fields[name].default:
                    raise ValueError(
                        f"pseudo.{name}: {value}: with pseudo.partition: dense every point has its own targets; leave "
                        "it out"
                    )
        return self

    def _check_stages(self) -> None:
        if self.stages is None:
            if self.burn_in + self.iterations == 0:
                raise ValueError("burn_in and iterations are both 0: nothing to train; set them, or stages")
            return
        lengths = {"pretrain": self.pretrain, "burn_in": self.burn_in, "iterations": self.iterations}
        if given := [name for name, length in lengths.items() if length]:
            raise ValueError(f"{', '.join(given)}: without effect beside stages; leave them out")
        if self.pseudo.source != "online":
            raise ValueError("pseudo.source: without effect beside stages, which have teacher; leave it out")
        order = [LEARN.index(stage.learn) for stage in self.stages]
        if not order or order != sorted(order) or order[-1] == 0:
            found = ", ".join(stage.learn for stage in self.stages) or "none"
            raise ValueError(f"stages: expected pretext (if any), then labeled, then pseudo; found {found}")
        if self.stages[0].schedule == "continued" or self.stages[0].learn == "pseudo":
            raise ValueError(
                "stages: the first one has no stage before it; expected learn: labeled or pretext, schedule: own"
            )

    def plan(self) -> list[StageSection]:
        """All stages, each as often as it is run."""
        if self.stages is not None:
            return [stage for stage in self.stages for _ in range(stage.repeat)]
        lengths = {"pretext": self.pretrain, "labeled": self.burn_in, "pseudo": self.iterations}
        plan = [StageSection(learn=learn, iterations=lengths[learn]) for learn in LEARN if lengths[learn]]
        for stage in plan[1:]:
            stage.schedule = "continued"
        if self.iterations:
            plan[-1].teacher = "online" if self.pseudo.source == "online" else "refreshed"
            plan[-1].refresh_every = self.pseudo.refresh_every
        return plan


def semi_section(config: Config) -> SemiSection:
    """The section `semi_cfg` of a resolved configuration as an object."""
    return SemiSection.model_validate(config["semi_cfg"])
