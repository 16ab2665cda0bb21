"""`dense_teacher`: the teacher's scores and boundaries at its best points, without pseudo segments.

Source: Zhou et al., "Dense Teacher" (ECCV 2022), published for images with FCOS: the 1 % of the points with the highest
scores learn the teacher's scores with the quality focal loss (gamma 2, no class balance, weight 4) and its boxes
(weight 1), all other points learn the score 0, and the sum of the best scores of the selected points divides the
losses. Reconstructed: the share is one of each video's points, not of the batch's; boundaries learn with the detector's
own distance IoU loss. In the softmax form selected points learn the teacher's distribution with the cross-entropy, the
others the background; snippets have no boundaries, and their masks are those of `target`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from actionformer_nt.method_sections import DenseTeacherSection

from .base import Method
from .evidence import Evidence, Lesson, Options


class DenseTeacher(Method):
    """With the settings `share`, `class_weight` and `boundary_weight`."""

    schema = DenseTeacherSection
    settings: DenseTeacherSection
    at_points = True

    def teach(self, evidence: list[Evidence], options: Options) -> list[Lesson]:
        return [self._lesson(e, options) for e in evidence]

    def _lesson(self, e: Evidence, options: Options) -> Lesson:
        assert e.class_scores is not None
        best = e.class_scores.amax(dim=-1)  # (N,)
        chosen = best_share(best, e.existing, self.settings.share)
        if options.form.background_columns:
            background = F.one_hot(torch.tensor(e.probs.shape[-1] - 1), e.probs.shape[-1]).to(e.probs)
            y, w = torch.ones_like(e.probs), torch.where(chosen[:, None], e.probs, background)
        else:
            y = F.pad(e.class_scores, (0, 1)) * chosen[:, None]  # the column of the background is not used
            w = options.form.unbalanced_weight(y)
        return Lesson(
            y=y,
            w=self.settings.class_weight * w,
            keep=e.existing,
            v=None if e.segments is None else self.settings.boundary_weight * chosen.float(),
            normalizer=float(best[chosen].sum()),
        )


def best_share(scores: Tensor, among: Tensor, share: float) -> Tensor:
    """(N,) bool: the best units by `scores` (N,), as many as the share of those of `among` (N,) bool, and at least one
    if there is any."""
    count = math.ceil(share * int(among.sum()))
    order = scores.masked_fill(~among, -math.inf).argsort(descending=True, stable=True)
    chosen = torch.zeros_like(among)
    chosen[order[:count]] = True
    return chosen
