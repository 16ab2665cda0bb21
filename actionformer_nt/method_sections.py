"""Schemas of the methods' own settings, `semi_cfg.method_options`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, ValidationError

from libs.core.config import explained
from libs.core.schema import Count, Fraction, NonNegative, Positive, Section

from .pseudo_sections import ViewSection


class FixMatchSection(Section):
    """Settings of `fixmatch`."""

    threshold: Fraction = 0.95
    """Smallest probability of the most probable class with which a pseudo segment, point or snippet teaches."""


class DenseTeacherSection(Section):
    """Settings of `dense_teacher`."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of the points or snippets of a video, the best ones, that learn the teacher's scores and boundaries."""
    class_weight: NonNegative = 4.0
    """Weight of the class loss."""
    boundary_weight: NonNegative = 1.0
    """Weight of the regression loss."""


class FullMatchSection(Section):
    """Settings of `fullmatch`."""

    threshold: Fraction = 0.95
    """Smallest probability of the most probable class with which a point or snippet learns that class."""
    agreement: Fraction = 0.99
    """Share of the points of a batch whose most probable class, for the teacher, must be among the k most probable ones
    of the student; k is the smallest number from 2 on for which it is. Classes of a lower rank are negatives."""
    negative_weight: NonNegative = 1.0
    """Weight of the negatives."""
    entropy_weight: NonNegative = 1.0
    """Weight of the loss that makes the other likely classes of a confident point equally probable."""


class NplSection(Section):
    """Settings of `npl`."""

    views: list[ViewSection] = [ViewSection(shift=2), ViewSection(crop=0.1)]
    """Further views for the teacher, which tell how stable its boundaries are; with SPOT not for stored pseudo
    labels."""
    filtered: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of the pseudo labels of each class that are filtered: those of the lowest quality."""
    window: Count = 100
    """Number of unlabeled videos, the last ones seen, whose pseudo labels the filter compares."""


class AplQualitySection(Section):
    """Settings of `apl_quality`."""

    factor: NonNegative = 0.8
    """Threshold of the joint score of a class, divided by the class's mean joint score among the pseudo labels of the
    last `window` videos."""
    window: Count = 100
    """Number of unlabeled videos, the last ones seen, that give the thresholds."""


class AplSection(AplQualitySection):
    """Settings of `apl`."""

    bins: Count = 8
    """Samples of the features in an instance, whose mean the discriminator sees."""
    width: Count = 64
    """Width of the discriminator's embedding."""
    temperature: Positive = 0.1
    """Temperature of the discriminator's and the pretext task's similarities."""
    discriminator_weight: NonNegative = 0.1
    """Weight of the loss of the discriminator, which learns from labeled videos; 0: it neither drops nor mines."""
    discriminator_after: NonNegativeInt = 300
    """Iterations that the discriminator learns before it drops and mines pseudo labels."""
    drop: Fraction = 0.1
    """A pseudo label is dropped if the discriminator gives its class less than this share of the probability of the
    most probable class, which may be the background."""
    mine: Fraction = 0.9
    """A pseudo label that was not selected, but whose joint score reaches the threshold of its class, teaches if the
    discriminator gives its class at least this probability. A class without pseudo labels has the mean threshold."""
    pretext_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Channel dropout of the two views of a video that the pretext task compares."""
    pretext_noise: NonNegative = 0.1
    """Noise of these views, divided by the standard deviation of the features."""
    pretext_points: Count = 32
    """Largest number of points of a video and level that it compares."""
    pretext_action: Annotated[float, Field(gt=0, le=0.5)] = 0.3
    """Share of a video's points that count as action, those that differ most from its mean, and share of those that
    count as background, which differ least."""
    fine_weight: NonNegative = 1.0
    """Weight of telling the same moment in two views from other moments."""
    coarse_weight: NonNegative = 1.0
    """Weight of telling action from background."""


class PlrSection(Section):
    """Settings of `plr`."""

    views: list[ViewSection] = [ViewSection(shift=2), ViewSection(crop=0.1)]
    """Further views for the teacher, whose boundaries are averaged; with SPOT not for stored pseudo labels."""
    sharpness: NonNegative = 2.0
    """Pseudo labels of stability s weigh s^(`sharpness` (1 - t)) at the share t of `ramp_up`."""
    ramp_up: NonNegativeInt = 900
    """Iterations of self-training from which on all pseudo labels weigh the same."""
    bins: Count = 4
    """Samples of the features in each of the regions around the start, inside, and around the end of a segment."""
    reach: Positive = 0.25
    """How far the regions around start and end reach to either side, divided by the length."""
    width: Count = 64
    """Width of the hidden layer of the refinement."""
    jitter: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    """Largest displacement of a labeled event's boundaries that the refinement learns to undo, divided by its length;
    a pseudo segment's boundaries move at most as far."""
    refinement_weight: NonNegative = 1.0
    """Weight of the loss of the refinement, which learns from labeled videos."""


class SspSection(Section):
    """Settings of `ssp`."""

    view: ViewSection = ViewSection(warp=0.3, snippet_mask=0.2)
    """View of the student: time warping and masked snippets."""
    class_weight: NonNegative = 6.0
    """Weight of the squared difference of class probabilities."""
    boundary_weight: NonNegative = 1.0
    """Weight of the squared difference of boundaries, or of mask probabilities."""
    ramp_up: NonNegativeInt = 300
    """Iterations of self-training over which the weights rise from 0."""


class SstapSection(Section):
    """Settings of `sstap`."""

    view: ViewSection = ViewSection(channel_shift=1 / 64, channel_dropout=0.2)
    """View of the student: moved channels, then channel dropout."""
    flip_view: ViewSection = ViewSection(flip=1.0, channel_dropout=0.1)
    """Flipped view of the student."""
    weight: NonNegative = 6.0
    """Largest weight omega of the consistency."""
    ramp_epochs: NonNegative = 5.0
    """Passes over the labeled videos over which omega rises from 6 exp(-5)."""
    flip_weight: NonNegative = 0.1
    """Factor of omega for the flipped view."""
    boundary_weight: NonNegative = 1.0
    """Factor of the squared difference of boundaries, or of mask probabilities, beside that of class probabilities."""
    gate: Fraction = 0.6
    """An unlabeled video counts only if the teacher's best score is above."""
    sharpen_high: Fraction = 0.9
    """Scores of the teacher from here on become 1 on unlabeled videos."""
    sharpen_low: Fraction = 0.1
    """Scores of the teacher up to here become 0 on unlabeled videos."""
    reconstruction_weight: NonNegative = 5e-4
    """Weight of the reconstruction of snippets that were set to zero."""
    reconstruction_mask: Fraction = 0.2
    """Probability that a snippet is set to zero for it."""
    order_weight: NonNegative = 0.01
    """Weight of telling whether the halves of a video were swapped."""


SECTIONS: Mapping[str, type[Section]] = {  # of built-in methods
    "apl": AplSection,
    "apl_quality": AplQualitySection,
    "dense_teacher": DenseTeacherSection,
    "fixmatch": FixMatchSection,
    "fullmatch": FullMatchSection,
    "npl": NplSection,
    "plr": PlrSection,
    "ssp": SspSection,
    "sstap": SstapSection,
}


def complete(names: Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The settings of methods, those of built-in ones checked and with their defaults.

    Raises:
        ValueError: settings of a method that is not among `names`, or without settings; a wrong key or value.
    """
    unused = [name for name in options if name not in names]
    if parts := [name for name in names if name.split(".")[0] in unused]:
        raise ValueError(
            f"method_options: {unused[0]}: the name of a module has dots, so give its settings as a mapping: "
            f"method_options={{{parts[0]}: {{...}}}}"
        )
    if unused:
        raise ValueError(f"method_options: {', '.join(unused)}: without effect for method {'+'.join(names)}; leave out")
    found = {}
    for name in names:
        given = options.get(name, {})
        if name in SECTIONS:
            found[name] = validated(name, SECTIONS[name], given).model_dump()
        elif given and "." not in name:
            raise ValueError(f"method_options: {name}: {dict(given)}: the method {name} has no settings; leave out")
        elif given:  # of a user's module, which checks them when a run is set up
            found[name] = dict(given)
    return found


def validated(name: str, section: type[Section], given: Mapping[str, Any]) -> Section:
    """A method's settings as an object. Raises ValueError, which names the key and the method."""
    try:
        return section.model_validate(dict(given))
    except ValidationError as error:
        raise ValueError(explained(error, section, f"method_options.{name}")) from None
