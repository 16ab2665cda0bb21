"""`fixmatch`: self-training on the target class where the teacher is sure of it; the rest teaches nothing.

Source: Sohn et al., "FixMatch" (NeurIPS 2020), published for images: one-hot pseudo labels of the weak view's
predictions with a probability of at least .95, learned on the strong view. Reconstructed for detection: the probability
is that of the class, given the segment; which segments there are is left to `semi_cfg.pseudo`. At points and snippets
the background is a class like the others.
"""

from actionformer_nt.method_sections import FixMatchSection

from .base import Method
from .evidence import Evidence, Lesson, Options


class FixMatch(Method):
    """Ignores the units whose most probable class is less probable than the threshold."""

    schema = FixMatchSection
    settings: FixMatchSection

    def locate(self, evidence: list[Evidence], lessons: list[Lesson], options: Options) -> list[Lesson]:
        return [self._sure(*pair) for pair in zip(evidence, lessons, strict=True)]

    def _sure(self, e: Evidence, lesson: Lesson) -> Lesson:
        return lesson.ignoring(lesson.kept(e) & (e.probs.amax(dim=-1) < self.settings.threshold))
