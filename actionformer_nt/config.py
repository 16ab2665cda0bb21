"""Schema of the section `semi_cfg`, the settings of semi-supervised training."""

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
    renewed every `refresh_every` iterations (`refresh`)."""
    refresh_every: Count = 500
    """Iterations from one copy of the teacher to the next, for `refresh`."""
    select: Literal["fixed", "per_class", "topk"] = "fixed"
    """Selection of pseudo segments: all with a score of at least `threshold` (`fixed`); of at least `threshold` times
    m_c / max m, where m_c is the running mean score of class c (`per_class`); or the best `topk` (`topk`)."""
    threshold: Fraction = 0.3
    """Threshold of the score, for `fixed` and `per_class`."""
    topk: Count = 20
    """Segments per video, for `topk`."""
    nms_iou: Positive = 0.5
    """tIoU threshold of the class-agnostic hard NMS."""
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


class WatchSection(Section):
    """Comparison of the pseudo labels with the labeled videos (`semi_cfg.watch`). It does not affect training."""

    videos: NonNegativeInt = 100
    """Number of unlabeled videos, the last ones seen, whose pseudo labels are compared; 0: no watch."""
    every: Count = 1000
    """Iterations between two warnings about the same quantity."""


class SemiSection(Section):
    """The section `semi_cfg`."""

    split: SplitSection
    """Which training videos are labeled."""
    method: str
    """Method that turns class distributions into class targets: a built-in name, or the module of your own method."""
    pretrain: NonNegativeInt = 0
    """Iterations of SPOT's pretext tasks on all videos, before the burn-in."""
    burn_in: NonNegativeInt
    """Iterations on labeled videos only."""
    iterations: NonNegativeInt
    """Iterations of self-training, after the burn-in."""
    warmup_iterations: NonNegativeInt = 0
    """Iterations of the learning-rate warm-up, at the start of the one schedule over all stages."""
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
    watch: WatchSection = WatchSection()
    """Compares the pseudo labels with the labeled videos, and warns if they leave the labeled range."""
    on_collapse: Literal["warn", "stop"] = "warn"
    """What happens when `watch` finds pseudo labels outside the labeled range: a warning (`warn`), or a checkpoint and
    the end of the run with an error (`stop`)."""
    log_hidden: bool = False
    """Measures the quality of pseudo labels with the hidden labels, and records it."""
    allow_external_scores: bool = False
    """Allows `test_cfg.ext_score_file`, although the model behind external scores may have seen hidden labels."""

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
    """The section `semi_cfg` of a resolved configuration as an object."""
    return SemiSection.model_validate(config["semi_cfg"])
