"""`ssp`: student and teacher agree on a warped and masked view; no pseudo labels.

Source: Ji et al., "Learning Temporal Action Proposals With Fewer Labels" (ICCV 2019), the paper's reference 15:
sequential perturbations, time warping and time masking, and a squared consistency of student and averaged teacher on
all videos, with a rising weight. The constants are reconstructed, and so is the boundary term: it is weighed by the
teacher's best score, since points far from every action have no boundaries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from actionformer_nt.method_sections import SspSection

from .base import Method
from .evidence import Matched, Progress, ramp


class Ssp(Method):
    """With the settings `view`, `class_weight`, `boundary_weight` and `ramp_up`."""

    schema = SspSection
    settings: SspSection
    has_lessons = False

    @property
    def student_views(self) -> Sequence[Mapping[str, Any]]:  # type: ignore[override]
        return [self.settings.view.model_dump()]

    def consistency(self, pairs: list[list[Matched]], *, labeled: bool, progress: Progress) -> dict[str, Tensor]:
        o, (videos,) = self.settings, pairs
        weight = ramp(progress.iteration, o.ramp_up)
        return {
            "class": weight * o.class_weight * torch.stack([class_difference(m) for m in videos]).mean(),
            "place": weight * o.boundary_weight * torch.stack([place_difference(m) for m in videos]).mean(),
        }


def class_difference(m: Matched) -> Tensor:
    """Mean squared difference of the class probabilities."""
    return (m.scores - m.teacher_scores).square().sum() / max(m.scores.numel(), 1)


def place_difference(m: Matched) -> Tensor:
    """Mean squared difference of places, weighed by the teacher's best score."""
    weight = m.teacher_scores.amax(dim=-1, keepdim=True)
    difference = weight * (m.places - m.teacher_places).square()
    return difference.sum() / (weight.sum() * m.places.shape[-1]).clamp(min=1e-6)
