"""Schema of views and of pseudo labels in `semi_cfg`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, model_validator

from libs.core.schema import Count, Fraction, NonNegative, Positive, Section


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
    channel_shift: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of the channels, drawn at random, that are moved one step to the past; as many are moved one step to the
    future."""
    snippet_mask: Fraction = 0.0
    """Probability that a block of `mask_length` snippets is set to zero."""
    mask_length: Count = 1
    """Snippets in a block of `snippet_mask`."""
    channel_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a channel is set to zero; the others are scaled up."""
    noise: NonNegative = 0.0
    """Standard deviation of Gaussian noise, in standard deviations of the features."""


MOVING = ("crop", "shift", "warp", "flip")  # perturbations that change the time of events


NEEDED = {  # key of `PseudoSection` -> the setting, and its values, with which the key has an effect
    "topk": ("select", ("topk",)),
    "rate_floor": ("select", ("rate",)),
    "background_weight": ("background", ("weighted",)),
}


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
        for name, (setting, needed) in NEEDED.items():
            if getattr(self, name) != type(self).model_fields[name].default and getattr(self, setting) not in needed:
                raise ValueError(
                    f"{name}: {getattr(self, name)}: without effect for {setting}: {getattr(self, setting)}; leave it "
                    f"out, or set {setting}: {' or '.join(needed)}"
                )
        if self.ignore_from is not None and self.select == "fixed" and self.ignore_from >= self.threshold:
            raise ValueError(f"ignore_from: {self.ignore_from}: must be below threshold, {self.threshold}")
        return self

    @property
    def at_points(self) -> bool:
        """Whether the teacher's class distributions at points are used."""
        return self.partition == "dense" or self.background == "partition"
