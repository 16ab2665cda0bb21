"""What the watch advises, with the keys that a configuration has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from actionformer_nt.config import SemiSection

from .watch_ranges import CLASS_RATE, CLASS_SHARE, CLASS_TIME, COVERAGE, ONE_CLASS, ONE_SEGMENT, RATE, TIME


class Advice(NamedTuple):
    """What to do about a quantity; empty: it has no such bound."""

    below: str  # the range
    above: str


def advice_of(semi: SemiSection, model: Mapping[str, object]) -> dict[str, Advice]:
    """Advice for each quantity.

    Args:
        model: the section `model`; an architecture with pseudo labels of its own has a section `pseudo` in it.
    """
    fewer, more = _of_number(semi, own="pseudo" in model)
    burn_in = "more iterations for learn: labeled in semi_cfg.stages" if semi.stages else "a larger semi_cfg.burn_in"
    too_few = f"{more}, or a longer burn-in ({burn_in})"
    collapsed = (
        f"look at the pseudo labels (actionformer-nt report); a longer burn-in ({burn_in}), {_of_teacher(semi)}"
        "a smaller semi_cfg.alpha or more labeled videos of other classes may help"
    )
    number, share = Advice(too_few, fewer), Advice("", collapsed)
    return {
        RATE: number, CLASS_RATE: number, TIME: number, COVERAGE: Advice(too_few, ""),
        CLASS_SHARE: share, CLASS_TIME: share, ONE_SEGMENT: share, ONE_CLASS: share,
    }  # fmt: skip


def _of_number(semi: SemiSection, *, own: bool) -> tuple[str, str]:
    """How to get fewer pseudo segments, and how to get more. `own`: they are set in `model.pseudo`."""
    if own:
        return "a higher model.pseudo.threshold", "a lower model.pseudo.threshold or model.pseudo.mask_threshold"
    key = {"rate": "rate_floor", "topk": "topk"}.get(semi.pseudo.select, "threshold")
    low, high = ("a smaller", "a larger") if key == "topk" else ("a higher", "a lower")
    return f"{low} semi_cfg.pseudo.{key}, or a lower semi_cfg.pseudo.nms_iou", f"{high} semi_cfg.pseudo.{key}"


def _of_teacher(semi: SemiSection) -> str:
    """A teacher that changes less; empty if it does not change within a stage."""
    teachers = {stage.teacher for stage in semi.plan() if stage.learn == "pseudo"}
    if teachers <= {"frozen"}:
        return ""
    if semi.stages is not None:
        return "a teacher with fixed weights (teacher: frozen in semi_cfg.stages), "
    if semi.pseudo.source == "online":
        return "a teacher with fixed weights (semi_cfg.pseudo.source: refresh), "
    return "a teacher that is renewed less often (a larger semi_cfg.pseudo.refresh_every), "
