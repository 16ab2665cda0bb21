"""`npl`: pseudo labels ranked by class confidence and boundary stability, filtered class by class, weighed by quality.

Source: Xia et al., "Learning from Noisy Pseudo Labels for Semi-Supervised Temporal Action Localization" (ICCV 2023).
Published in words only: noisy label ranking by semantic confidence and boundary reliability, label filtering against
the class imbalance of category errors, and learning that penalises inconsistent boundary predictions. Everything below
is reconstructed:

* quality q = score * stability, `Evidence.stability` over several views of the teacher;
* of each class the share `filtered` with the lowest q among the last `window` videos teaches nothing;
* the class weights of a pseudo label are multiplied by q;
* the regression loss of a segment is weighed by exp(-d / length), with the mean distance d of the teacher's and the
  student's boundaries, and 0 where the student has none there.

At snippets the background is neither filtered nor weighed, and there is no regression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from actionformer_nt.method_sections import NplSection

from .base import Method
from .evidence import Evidence, Lesson, Options, State
from .recent import Recent, is_action


class Npl(Method):
    """A location side: the classes are those of `target`, or of the method that it is composed with."""

    schema = NplSection
    settings: NplSection
    at_points = False
    needs_student = True

    def __init__(self) -> None:
        self.recent = Recent()

    @property
    def teacher_views(self) -> Sequence[Mapping[str, Any]]:  # type: ignore[override]
        return [view.model_dump() for view in self.settings.views]

    def observe(self, evidence: list[Evidence]) -> None:
        self.recent.add(evidence, [quality(e) for e in evidence], window=self.settings.window)

    def thresholds(self, num_classes: int) -> Tensor:
        """(C,) quality below which pseudo labels of a class are filtered; 0 for a class without any."""
        found = self.recent.by_class(num_classes)
        return torch.stack([q.quantile(self.settings.filtered) if len(q) else torch.zeros(()) for q in found])

    def locate(self, evidence: list[Evidence], lessons: list[Lesson], options: Options) -> list[Lesson]:
        thresholds = self.thresholds(evidence[0].probs.shape[-1])
        return [self._located(*pair, thresholds) for pair in zip(evidence, lessons, strict=True)]

    def _located(self, e: Evidence, lesson: Lesson, thresholds: Tensor) -> Lesson:
        q, action = quality(e), is_action(e)
        noisy = lesson.kept(e) & action & (q < thresholds.to(q)[e.probs.argmax(dim=-1)])
        lesson = lesson.ignoring(noisy)
        if e.unit == "segment":
            lesson = lesson.weighing(agreement(e))
        return replace(lesson, w=lesson.w * torch.where(action, q, 1.0)[:, None])

    def state(self) -> State:
        return self.recent.state()

    def load_state(self, state: State) -> None:
        self.recent.load_state(state)


def quality(e: Evidence) -> Tensor:
    """(N,) score * stability."""
    assert e.stability is not None
    return e.scores * e.stability.to(e.scores)


def agreement(e: Evidence) -> Tensor:
    """(N,) exp(-d / length), with the mean distance d of the teacher's and the student's boundaries; 0 where the
    student has none."""
    assert e.segments is not None and e.student is not None and e.student.segments is not None
    length = (e.segments[:, 1] - e.segments[:, 0]).clamp(min=1e-6)
    distance = (e.student.segments - e.segments).abs().mean(dim=1)
    return torch.where(e.student.seen, (-distance / length).exp(), 0.0)
