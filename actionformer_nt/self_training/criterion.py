"""The loss of unlabeled videos."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from actionformer_nt.methods import Lesson
from libs.core import distributed
from libs.modeling.class_form import ClassForm
from libs.modeling.losses import ctr_diou_loss_1d

from .point_targets import PointTargets


class UnlabeledCriterion:
    """Class loss on all points with a weight, and distance IoU loss on the points of pseudo segments.

    Both are divided by `normalizer`, a running mean of the number of points of pseudo segments. It starts at the
    labeled loss normaliser (None before the first call). An iteration counts at least `FLOOR` times the labeled
    normaliser, so that the loss does not explode at the first pseudo labels after many iterations without any.

    Args:
        form: class form of the model.
        reg_weight: weight of the regression loss in `loss`.
    """

    MOMENTUM = 0.9
    FLOOR = 0.1

    def __init__(self, *, form: str, reg_weight: float) -> None:
        self.form, self.reg_weight = ClassForm(form), reg_weight
        self.normalizer: float | None = None

    def __call__(
        self,
        logits: Tensor,
        offsets: Tensor,
        targets: PointTargets,
        *,
        labeled_normalizer: float,
        normalizer: float | None = None,
    ) -> dict[str, Tensor]:
        """
        Args:
            logits: (B, P, C); offsets: (B, P, 2) in units of the stride.
            targets: with class targets and weights (B, P, K), see `ClassForm`.
            labeled_normalizer: loss normaliser of the labeled videos.
            normalizer: number to divide by instead of the running mean, which then stays as it is.

        Returns:
            Scalars `cls_loss`, `reg_loss` and their weighted sum `loss`.
        """
        if normalizer is None:
            normalizer = self._update(int(targets.owned.sum()), labeled_normalizer)
        y, w, r, v = targets.targets
        used, regressed = w.amax(-1) > 0, v > 0
        logits = self.form.add_background(logits)
        cls_loss = self.form.loss(logits[used].float(), y[used], w[used]).sum() / normalizer
        if regressed.any():
            reg_loss = (ctr_diou_loss_1d(offsets[regressed].float(), r[regressed]) * v[regressed]).sum() / normalizer
        else:
            reg_loss = 0.0 * offsets.sum()
        return {"cls_loss": cls_loss, "reg_loss": reg_loss, "loss": cls_loss + self.reg_weight * reg_loss}

    def _update(self, owned: int, labeled_normalizer: float) -> float:
        """Updates the running mean with the number of points of pseudo segments in this process."""
        count, floor = distributed.total_count(owned), self.FLOOR * labeled_normalizer
        normalizer = labeled_normalizer if self.normalizer is None else self.normalizer
        self.normalizer = self.MOMENTUM * normalizer + (1 - self.MOMENTUM) * max(count, floor)
        return self.normalizer


def normalizer_of(lessons: list[Lesson]) -> float | None:
    """Sum of `Lesson.normalizer` over the videos of all processes; None if the lessons have none.

    Raises:
        ValueError: some lessons have one and others do not.
    """
    given = [lesson.normalizer for lesson in lessons if lesson.normalizer is not None]
    if given and len(given) < len(lessons):
        raise ValueError("the method gave a normalizer for some videos of a batch only")
    sums = distributed.total({"given": sum(given), "lessons": float(len(given))})
    return sums["given"] if sums["lessons"] else None


def level_normalizers(lessons: list[Lesson]) -> list[Lesson]:
    """The lessons of a whole batch with the same normalizer each, whose sum over all processes is the given sum, but at
    least 1. So every part of the batch is divided by its share of the same number."""
    total = normalizer_of(lessons)
    if total is None:
        return lessons
    share = max(total, 1.0) / (len(lessons) * distributed.world_size())
    return [replace(lesson, normalizer=share) for lesson in lessons]
