"""`fullmatch`: confident targets, negatives of an adaptive number, and equal probabilities of the classes between them.

Source: Chen et al., "FullMatch" (CVPR 2023), published for images. k is the smallest number from 2 on such that the
student's k most probable classes hold the teacher's most probable one for a share of the batch (.9999). Three losses on
the student's distribution p:

* where the teacher is confident (.95): the cross-entropy with its most probable class t;
* everywhere: -log(1 - p_c) of the classes c whose rank for the teacher is above k (weight 1);
* where it is confident: the binary cross-entropy of the other k - 1 classes with u = (1 - p_t - sum of the p of the
  negatives) / (k - 1), averaged over them (weight 1).

Classes with p_c above the threshold squared are left out of the last two.

Reconstructed for detection: the share is .99, since k becomes the number of classes otherwise; k, u and the classes
left out come from a pass of the student in evaluation mode. The background is a class, but no negative where the
teacher is not confident. A sigmoid head has no distribution, so Y and W enter its focal loss class by class, and u
comes from the distribution at points (`pseudo.background_logit`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from actionformer_nt.method_sections import FullMatchSection

from .base import Method
from .evidence import Evidence, Lesson, Options


class FullMatch(Method):
    """With the settings `threshold`, `agreement`, `negative_weight` and `entropy_weight`."""

    schema = FullMatchSection
    settings: FullMatchSection
    at_points = True
    needs_student = True

    def __init__(self) -> None:
        self.k = 2  # of the present batch

    def observe(self, evidence: list[Evidence]) -> None:
        """Finds k from the batch of all processes."""
        ranks = torch.cat([rank_of_target(e) for e in evidence])
        self.k = agreeing_number(ranks, self.settings.agreement)

    def teach(self, evidence: list[Evidence], options: Options) -> list[Lesson]:
        return [self._lesson(e, options) for e in evidence]

    def _lesson(self, e: Evidence, options: Options) -> Lesson:
        assert e.student is not None
        o, k = self.settings, min(self.k, e.probs.shape[-1])
        top, target = e.probs.max(dim=-1, keepdim=True)  # (N, 1)
        is_target = torch.zeros_like(e.probs, dtype=torch.bool).scatter_(-1, target, True)
        confident = top >= o.threshold
        low = e.student.probs <= o.threshold**2
        rank = ranks(e.probs)
        negative = (rank > k) & low
        negative[..., -1:] &= confident
        between = (rank <= k) & ~is_target & low & confident
        rest = 1 - (e.student.probs * (is_target | (rank > k))).sum(dim=-1, keepdim=True)  # of the k - 1 classes
        u = (rest / max(k - 1, 1)).clamp(0, 1)
        y = torch.where(between, u, (is_target & confident).to(e.probs))
        w = o.negative_weight * negative.to(e.probs)
        w = w + o.entropy_weight * between / between.sum(dim=-1, keepdim=True).clamp(min=1)
        w = torch.where(is_target & confident, 1.0, w)
        return Lesson(y=y, w=w * e.student.seen[:, None], keep=e.existing & e.student.seen)


def ranks(probs: Tensor) -> Tensor:
    """(N, K) rank of each class in its distribution, from 1 on; of equally probable classes the first comes first."""
    order = probs.argsort(dim=-1, descending=True, stable=True)
    numbers = torch.arange(1, probs.shape[-1] + 1, device=probs.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, numbers)


def rank_of_target(e: Evidence) -> Tensor:
    """(n,) rank for the student of the teacher's most probable class, at the units that both see."""
    assert e.student is not None
    both = e.existing & e.student.seen
    return ranks(e.student.probs).gather(-1, e.probs.argmax(dim=-1, keepdim=True))[both, 0]


def agreeing_number(ranks: Tensor, share: float) -> int:
    """The smallest k from 2 on such that at least `share` of the ranks (n,) are at most k."""
    if not len(ranks):
        return 2
    ordered = ranks.sort().values
    needed = max(-(-share * len(ordered) // 1), 1)  # rounded up
    return max(int(ordered[int(needed) - 1]), 2)
