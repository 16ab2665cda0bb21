"""`apl_quality`: pseudo labels chosen and weighed by class score and location quality together.

Source: the label quality assessment of Zhou et al., "Towards Adaptive Pseudo-label Learning for Semi-Supervised
Temporal Action Localization" (ECCV 2024): a head predicts tIoU and centre distance, and pseudo labels are chosen by
dynamic thresholds of the joint score, class score times clip(tIoU - distance, 0, 1). Needs `model.quality`.
Reconstructed:

* the threshold of a class is `factor` times the mean joint score of its pseudo labels in the last `window` videos;
  pseudo labels below teach nothing;
* the regression loss of a segment is weighed by its quality, the class loss of a snippet by that of its mask.

At snippets the background is neither filtered nor weighed.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from actionformer_nt.method_sections import AplQualitySection

from .base import Method
from .evidence import Evidence, Lesson, Options, State
from .recent import Recent, is_action


class AplQuality(Method):
    """A location side: the classes are those of `target`, or of the method that it is composed with."""

    schema = AplQualitySection
    settings: AplQualitySection
    at_points = False
    needs_quality = True

    def __init__(self) -> None:
        self.recent = Recent()

    def observe(self, evidence: list[Evidence]) -> None:
        self.recent.add(evidence, [joint_score(e) for e in evidence], window=self.settings.window)

    def thresholds(self, num_classes: int) -> Tensor:
        """(C,) smallest joint score of each class; NaN, which no score is below, for a class without pseudo labels."""
        return self.settings.factor * torch.stack([own.mean() for own in self.recent.by_class(num_classes)])

    def locate(self, evidence: list[Evidence], lessons: list[Lesson], options: Options) -> list[Lesson]:
        thresholds = self.thresholds(evidence[0].probs.shape[-1])
        return [self._located(*pair, thresholds) for pair in zip(evidence, lessons, strict=True)]

    def _located(self, e: Evidence, lesson: Lesson, thresholds: Tensor) -> Lesson:
        score, action = joint_score(e), is_action(e)
        lesson = lesson.ignoring(lesson.kept(e) & action & (score < thresholds.to(score)[e.probs.argmax(dim=-1)]))
        assert e.quality is not None
        if e.unit == "segment":
            return lesson.weighing(e.quality)
        return replace(lesson, w=lesson.w * torch.where(action, e.quality.to(lesson.w), 1.0)[:, None])

    def state(self) -> State:
        return self.recent.state()

    def load_state(self, state: State) -> None:
        self.recent.load_state(state)


def joint_score(e: Evidence) -> Tensor:
    """(N,) class score times quality. The scores of segments have the quality already."""
    assert e.quality is not None
    return e.scores if e.unit == "segment" else e.scores * e.quality.to(e.scores)
