"""The section `semi_cfg`: everything about semi-supervised training that the supervised sections do not say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, model_validator

from actionformer_nt.methods import ORACLE, check_method
from libs.core.schema import Count, Fraction, NonNegative, Positive, Section
from libs.core.types import Config


class SplitSection(Section):
    file: str
    """Split file, written by `actionformer-nt splits`."""
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the training videos that is labeled. May be left out where the file holds a published list, which has
    one ratio."""
    fold: NonNegativeInt = 0
    """Fold of the file: which draw of labeled videos."""


class ViewSection(Section):
    """Perturbations of a view, applied in this order; 0 switches one off."""

    crop: Fraction = 0.0
    """Up to this share of the steps is cut off."""
    shift: NonNegativeInt = 0
    """The video moves by up to this many steps to either side."""
    warp: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The tempo changes along the video, by a factor between 1 - warp and 1 + warp."""
    flip: Fraction = 0.0
    """Probability that time runs backwards."""
    snippet_mask: Fraction = 0.0
    """Probability that a block of `mask_length` steps becomes zero."""
    mask_length: Count = 1
    """Steps in a block of `snippet_mask`."""
    channel_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a channel becomes zero; the others are scaled up."""
    noise: NonNegative = 0.0
    """Standard deviation of Gaussian noise, in standard deviations of the features."""


MOVING = ("crop", "shift", "warp", "flip")  # perturbations that move moments


class PseudoSection(Section):
    """From a teacher's detections to pseudo segments."""

    source: Literal["online", "refresh"] = "online"
    """Teacher: `online` is the moving average at the moment, `refresh` a copy of it that is renewed every
    `refresh_every` iterations."""
    refresh_every: Count = 500
    """Iterations from one copy of the teacher to the next, for `refresh`."""
    select: Literal["fixed", "per_class", "topk"] = "fixed"
    """Which segments become pseudo labels: those with a score of at least `threshold` (`fixed`), of at least
    `threshold` times the mean score of the class over that of the best class (`per_class`), or the best `topk`
    (`topk`)."""
    threshold: Fraction = 0.3
    """Threshold of the score, for `fixed` and `per_class`."""
    topk: Count = 20
    """Segments per video, for `topk`."""
    nms_iou: Positive = 0.5
    """IoU from which class-agnostic hard NMS drops a segment."""
    support_iou: Fraction = 0.7
    """Candidates that overlap a segment by this IoU support it: its logits and ends are their weighted mean."""
    max_segments: Count = 100
    """Segments per video that NMS keeps."""
    temperature: Positive = 1.0
    """Logits are divided by it before they become a distribution; above 1 makes distributions less sure."""
    partition: Literal["segments", "dense"] = "segments"
    """Where the method gets its distributions: `segments` has one over the actions per pseudo segment, `dense` one over
    actions and background at every point."""
    background: Literal["negative", "ignore", "weighted", "partition"] = "negative"
    """What points outside all pseudo segments learn: background (`negative`), nothing (`ignore`), background with
    `background_weight` (`weighted`), or background without the actions that the teacher finds almost as probable or
    ambiguous there (`partition`; like `negative` for methods without non-target classes)."""
    background_logit: float | None = None
    """Logit of the background in distributions at points. Needed there with the sigmoid form, whose head has none;
    refused with the softmax form, where it is 0."""
    background_weight: Fraction = 0.5
    """Weight of the background, for `weighted`."""

    @property
    def at_points(self) -> bool:
        """Whether the teacher's distributions at points are used."""
        return self.partition == "dense" or self.background == "partition"


class SamplesSection(Section):
    """What a run keeps for its report; it changes nothing in training."""

    videos: NonNegativeInt = 16
    """Unlabeled videos that samples are kept of; 0: none."""
    moments: Count = 4
    """Times that samples are written during self-training, evenly spaced up to its end. They are also written at the
    end of the burn-in."""


class SemiSection(Section):
    """The section `semi_cfg`."""

    split: SplitSection
    """Which training videos are labeled."""
    method: str
    """Name of the method that turns class distributions into class targets, or the module of a method of one's own."""
    pretrain: NonNegativeInt = 0
    """Iterations of SPOT's pretext tasks on all videos, before everything else."""
    burn_in: NonNegativeInt
    """Iterations on labeled videos alone."""
    iterations: NonNegativeInt
    """Iterations of self-training, after the burn-in."""
    warmup_iterations: NonNegativeInt = 0
    """Iterations over which the learning rate rises; one schedule goes over all stages."""
    burn_in_checkpoint: str | None = None
    """Checkpoint of a burn-in with the same configuration, which then is not run."""
    unlabeled_batch_size: Count = 2
    """Unlabeled videos per iteration."""
    alpha: NonNegative = 1.0
    """Weight of the unlabeled loss."""
    ramp_up: NonNegativeInt = 0
    """Iterations of self-training over which `alpha` rises from 0."""
    reg_weight: NonNegative = 1.0
    """Weight of the regression loss within the unlabeled loss."""
    lam: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Lambda of the partition: a class with at least this share of the target's probability is positive."""
    positive: Literal["split", "hard"] = "split"
    """Targets of `nt` on the target and the positive classes S, sigmoid form: 1/|S| each (`split`) or 1 (`hard`)."""
    positive_reduction: Literal["sum", "mean"] = "sum"
    """Sum over the positive classes as in the paper, or mean."""
    pseudo: PseudoSection = PseudoSection()
    """From the teacher's detections to pseudo segments."""
    labeled_view: Literal["plain", "strong"] = "plain"
    """View of labeled videos: unperturbed, or `strong` like the student's unlabeled ones, for every method alike."""
    weak: ViewSection = ViewSection()
    """The teacher's view of an unlabeled video. Perturbations are applied in the order of their keys; 0 switches one
    off."""
    strong: ViewSection = ViewSection(snippet_mask=0.1, channel_dropout=0.1)
    """The student's view of an unlabeled video. Pseudo segments move with the views."""
    ckpt_every: Count = 500
    """Iterations from one checkpoint to the next."""
    log_every: Count = 50
    """Iterations from one record to the next."""
    samples: SamplesSection = SamplesSection()
    """What is kept for the report. It changes nothing in training."""
    log_hidden: bool = False
    """Records the quality of pseudo labels, measured with the hidden labels."""
    allow_external_scores: bool = False
    """Allows `test_cfg.ext_score_file`, whose model may have seen hidden labels."""

    @model_validator(mode="after")
    def _check(self) -> SemiSection:
        check_method(self.method)
        if self.burn_in + self.iterations == 0:
            raise ValueError("burn_in and iterations are both 0: nothing to train")
        if self.pseudo.at_points and (moving := [n for n in MOVING if getattr(self.strong, n)]):
            raise ValueError(
                f"pseudo.partition: {self.pseudo.partition} with background: {self.pseudo.background} takes a "
                f"teacher's point for the same point of the student, but "
                f"strong.{', strong.'.join(moving)} moves them; expected 0"
            )
        if self.pseudo.partition == "dense" and self.method == ORACLE:
            raise ValueError(f"method {ORACLE} needs pseudo.partition: segments, found dense")
        if self.pseudo.partition == "dense" and self.pseudo.background != "negative":
            raise ValueError(
                f"pseudo.background: {self.pseudo.background}: with pseudo.partition: dense every point has its own "
                "targets; leave it out"
            )
        return self


def semi_section(config: Config) -> SemiSection:
    """`semi_cfg` of a resolved configuration as an object."""
    return SemiSection.model_validate(config["semi_cfg"])
