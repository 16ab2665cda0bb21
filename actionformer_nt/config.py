"""Schema of the section `semi_cfg`, the settings of semi-supervised training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, model_validator

from actionformer_nt.methods import check_method, get_method, parts_of
from libs.core.schema import Count, NonNegative, Section
from libs.core.types import Config

from .method_sections import complete
from .pseudo_sections import MOVING, PseudoSection, ViewSection
from .stage_sections import LEARN, StageSection

if TYPE_CHECKING:
    from actionformer_nt.methods import Method


class SplitSection(Section):
    file: str
    """Split file, written by `actionformer-nt splits`."""
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the training videos that is labeled. Optional for a published list, which has a single ratio."""
    fold: NonNegativeInt = 0
    """Fold of the split file, that is, which random draw of labeled videos."""


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


def _joined(method: object) -> object:
    """A list of methods as a text."""
    return "+".join(map(str, method)) if isinstance(method, list) else method


class SemiSection(Section):
    """The section `semi_cfg`."""

    split: SplitSection
    """Which training videos are labeled."""
    method: Annotated[str, BeforeValidator(_joined)]
    """Method, which says what the student learns from the pseudo labels: a built-in name, or the module of your own.
    Several methods, as a list or joined by +, are composed: one says what is taught about the classes, the others which
    pseudo labels teach and with which boundaries."""
    method_options: dict[str, dict[str, Any]] = {}
    """Method -> its own settings, see [methods](#settings-of-methods)."""
    stages: list[StageSection] | None = None
    """Stages of training, in order. `null`: `pretrain`, `burn_in` and `iterations` say how long the three stages are,
    and one schedule spans them."""
    pretrain: NonNegativeInt = 0
    """Iterations of the pretext tasks, of SPOT or of a method, on all videos before the burn-in; without `stages`."""
    burn_in: NonNegativeInt = 0
    """Iterations on labeled videos only; without `stages`."""
    iterations: NonNegativeInt = 0
    """Iterations of self-training, after the burn-in; without `stages`."""
    warmup_iterations: NonNegativeInt = 0
    """Iterations of the learning-rate warm-up, at the start of every schedule."""
    burn_in_checkpoint: str | None = None
    """Checkpoint from the end of a burn-in with the same labeled videos and the same stages before self-training, which
    are then skipped; the method may be another."""
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
    watch: WatchSection = WatchSection()
    """Compares the pseudo labels with the labeled videos, and warns if they leave the labeled range."""
    on_collapse: Literal["warn", "stop"] = "warn"
    """What happens when `watch` finds pseudo labels outside the labeled range: a warning (`warn`), or a checkpoint and
    the end of the run with an error (`stop`)."""
    log_hidden: bool = False
    """Measures the quality of pseudo labels with the hidden labels, and records it. Not with a weak view that moves
    events (`crop`, `shift`, `warp`, `flip`)."""
    allow_external_scores: bool = False
    """Allows `test_cfg.ext_score_file`, although the model behind external scores may have seen hidden labels."""

    @model_validator(mode="after")
    def _check(self) -> SemiSection:
        check_method(self.method)
        self.method_options = complete(parts_of(self.method), self.method_options)
        self._check_stages()
        if self.on_collapse == "stop" and not self.watch.videos:
            raise ValueError("on_collapse: stop: without effect while watch.videos is 0, which switches the watch off")
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
        if self.pseudo.refresh_every != PseudoSection.model_fields["refresh_every"].default:
            raise ValueError("pseudo.refresh_every: without effect beside stages, which have their own; leave it out")
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

    def make_method(self) -> Method | None:
        """A new instance of the method; None for `labeled_only`. Raises ValueError as `get_method`."""
        return get_method(self.method, self.method_options)

    @property
    def stores_labels(self) -> bool:
        """Whether a stage stores its pseudo labels."""
        return any(stage.labels == "stored" for stage in self.plan())


def semi_section(config: Config) -> SemiSection:
    """The section `semi_cfg` of a resolved configuration as an object."""
    return SemiSection.model_validate(config["semi_cfg"])
