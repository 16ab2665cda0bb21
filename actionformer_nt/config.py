"""The section `semi_cfg`: everything about semi-supervised training that the supervised sections do not say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, model_validator

from actionformer_nt.methods import ORACLE, check_method
from libs.core.schema import Count, Fraction, NonNegative, Positive, Section
from libs.core.types import Config


class SplitSection(Section):
    file: str  # written by `actionformer-nt splits`
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None  # labeled share; None: that of a published list
    fold: NonNegativeInt = 0


class ViewSection(Section):
    """Perturbations of a view, applied in this order; 0 switches one off."""

    crop: Fraction = 0.0  # at most this share of the steps is cut off
    shift: NonNegativeInt = 0  # by at most so many steps to either side
    warp: Annotated[float, Field(ge=0, lt=1)] = 0.0  # local tempo changes by at most this factor, 1 - warp .. 1 + warp
    flip: Fraction = 0.0  # probability of reversing time
    snippet_mask: Fraction = 0.0  # probability of zeroing a block of `mask_length` steps
    mask_length: Count = 1
    channel_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    noise: NonNegative = 0.0  # of the features' standard deviation


MOVING = ("crop", "shift", "warp", "flip")  # perturbations that move moments


class PseudoSection(Section):
    """From a teacher's detections to pseudo segments."""

    source: Literal["online", "refresh"] = "online"  # the teacher of the moment, or one frozen every `refresh_every`
    refresh_every: Count = 500  # iterations
    select: Literal["fixed", "per_class", "topk"] = "fixed"
    threshold: Fraction = 0.3  # of the score; per_class: times the mean of the class's scores over its best class's
    topk: Count = 20  # segments per video
    nms_iou: Positive = 0.5  # class-agnostic hard NMS
    support_iou: Fraction = 0.7  # candidates that overlap a segment so much give it their logits
    max_segments: Count = 100
    temperature: Positive = 1.0  # logits are divided by it before they become a distribution; > 1: less sure
    # Where distributions are taken and partitioned: once per pseudo segment, over the actions, or at every point, over
    # actions and background.
    partition: Literal["segments", "dense"] = "segments"
    # Points of no pseudo segment. partition: negative, but for the actions that are almost as probable there as the
    # background, or ambiguous; methods without non-target classes: negative.
    background: Literal["negative", "ignore", "weighted", "partition"] = "negative"
    background_logit: float | None = None  # of the distributions at points; softmax form: 0
    background_weight: Fraction = 0.5  # with `weighted`

    @property
    def at_points(self) -> bool:
        """Whether the teacher's distributions at points are used."""
        return self.partition == "dense" or self.background == "partition"


class SamplesSection(Section):
    """What a run keeps for its report (`samples.py`); it changes nothing in training."""

    videos: NonNegativeInt = 16  # unlabeled videos to look at; 0: none
    moments: Count = 4  # beside the end of the burn-in, the last of them the end


class SemiSection(Section):
    """The section `semi_cfg`."""

    split: SplitSection
    method: str
    pretrain: NonNegativeInt = 0  # iterations of SPOT's pretext tasks on all videos, before everything else
    burn_in: NonNegativeInt  # iterations on labeled videos alone
    iterations: NonNegativeInt  # of self-training after them
    warmup_iterations: NonNegativeInt = 0
    burn_in_checkpoint: str | None = None  # a burn-in of the same configuration, instead of running it
    unlabeled_batch_size: Count = 2
    alpha: NonNegative = 1.0  # weight of the unlabeled loss
    ramp_up: NonNegativeInt = 0  # iterations over which alpha rises from 0
    reg_weight: NonNegative = 1.0  # of the regression on pseudo segments, within the unlabeled loss
    lam: Annotated[float, Field(gt=0, le=1)] = 0.85
    positive: Literal["split", "hard"] = "split"
    positive_reduction: Literal["sum", "mean"] = "sum"
    pseudo: PseudoSection = PseudoSection()
    labeled_view: Literal["plain", "strong"] = "plain"  # of the labeled videos, for every method alike
    weak: ViewSection = ViewSection()
    strong: ViewSection = ViewSection(snippet_mask=0.1, channel_dropout=0.1)
    ckpt_every: Count = 500  # iterations
    log_every: Count = 50
    samples: SamplesSection = SamplesSection()
    log_hidden: bool = False  # curves of the quality of pseudo labels, from the hidden labels
    allow_external_scores: bool = False

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
