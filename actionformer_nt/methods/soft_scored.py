"""`soft_scored`: soft pseudo labels times the confidence that there is an action at all.

`soft` teaches a distribution over the actions, given that a segment is one. This method multiplies it with the score of
the segment. At points and snippets, whose distributions include the background, it equals `soft`.
"""

from dataclasses import replace

from .base import FromClassTargets, Method
from .evidence import Evidence, Lesson, Options
from .soft import class_targets


class SoftScored(Method):
    """Sigmoid form: Y = p times the score, W = 1. Softmax form: cross-entropy with the weights p times the score."""

    def teach(self, evidence: list[Evidence], options: Options) -> list[Lesson]:
        lessons = FromClassTargets(class_targets).teach(evidence, options)
        return [self._scored(*pair, options) for pair in zip(evidence, lessons, strict=True)]

    @staticmethod
    def _scored(e: Evidence, lesson: Lesson, options: Options) -> Lesson:
        if e.unit != "segment":
            return lesson
        score = e.scores[:, None].to(lesson.y)
        if options.form.background_columns:
            return replace(lesson, w=lesson.w * score)
        return replace(lesson, y=lesson.y * score)
