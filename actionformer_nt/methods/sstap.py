"""`sstap`: student and teacher agree on moved, dropped and flipped features; reconstruction and order beside it.

Source: Wang et al., "Self-Supervised Learning for Semi-Supervised Temporal Action Proposal" (CVPR 2021), with the
constants of its public code:

* omega(e) = 6 exp(-5 (1 - min(e, 5) / 5)^2) after e epochs;
* student's view: 2 x 6 of 400 channels (400 // 64 each way) moved by one step, then channel dropout .2;
* flipped view with channel dropout .1 and .1 omega, the teacher's output mirrored;
* the teacher's scores on unlabeled videos: at least .9 becomes 1, at most .1 becomes 0; a video counts only if the best
  is above .6 (there: those of start and end);
* 5e-4 times the reconstruction of snippets set to zero with probability .2, .01 times the order of swapped halves, on
  half of the videos.

Not the method's, but the run's: the teacher's channel dropout of .05 (`semi_cfg.weak`), optimizer, batches, average,
and no burn-in (`stages`). Reconstructed for detection: class probabilities and boundaries, or masks, take the place of
the maps of BMN; boundaries are weighed by the teacher's best score. Reconstruction is a linear layer on the network's
features, and the order is read from their means over eighths of the video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionformer_nt.method_sections import SstapSection
from libs.datasets.video import VideoItem

from .base import Method
from .evidence import Matched, Progress, Sizes, Trunk, ramp
from .ssp import class_difference, place_difference

BINS = 8  # parts of a video whose mean features tell the order


class Sstap(Method):
    """With the settings of `SstapSection`."""

    schema = SstapSection
    settings: SstapSection
    has_lessons = False

    @property
    def student_views(self) -> Sequence[Mapping[str, Any]]:  # type: ignore[override]
        return [self.settings.view.model_dump(), self.settings.flip_view.model_dump()]

    def omega(self, progress: Progress) -> float:
        return self.settings.weight * ramp(progress.epoch, self.settings.ramp_epochs)

    def consistency(self, pairs: list[list[Matched]], *, labeled: bool, progress: Progress) -> dict[str, Tensor]:
        weights = self.omega(progress), self.settings.flip_weight * self.omega(progress)
        names = "view", "flip"
        return {
            name: weight * torch.stack([self._difference(m, labeled=labeled) for m in videos]).mean()
            for name, weight, videos in zip(names, weights, pairs, strict=True)
        }

    def _difference(self, m: Matched, *, labeled: bool) -> Tensor:
        o, counts = self.settings, True
        if not labeled:
            counts = bool((m.teacher_scores > o.gate).any())
            m = m._replace(teacher_scores=sharpened(m.teacher_scores, low=o.sharpen_low, high=o.sharpen_high))
        return float(counts) * (class_difference(m) + o.boundary_weight * place_difference(m))

    def modules(self, sizes: Sizes) -> nn.Module:
        return nn.ModuleDict({
            "decoder": nn.Linear(sizes.width, sizes.input_dim), "order": nn.Linear(BINS * sizes.width, 1),
        })  # fmt: skip

    def auxiliary(
        self, videos: list[VideoItem], trunk: Trunk, *, labeled: bool, progress: Progress
    ) -> dict[str, Tensor]:
        assert isinstance(trunk.modules, nn.ModuleDict)
        o, decoder, order = self.settings, trunk.modules["decoder"], trunk.modules["order"]
        feats, generators = [video["feats"] for video in videos], trunk.generators
        masked = [masked_snippets(x, o.reconstruction_mask, g) for x, g in zip(feats, generators, strict=True)]
        rebuilt = [
            F.mse_loss(decoder(own), rows_at(x, len(own), trunk.stride).to(own))
            for own, x in zip(trunk.features(with_feats(videos, masked)), feats, strict=True)
        ]
        swapped = torch.stack([torch.rand((), generator=g) < 0.5 for g in generators])
        halves = [swapped_halves(x) if swap else x for x, swap in zip(feats, swapped.tolist(), strict=True)]
        seen = trunk.features(with_feats(videos, halves))
        logits = torch.cat([order(F.adaptive_avg_pool1d(own.T, BINS).flatten()) for own in seen])
        told = F.binary_cross_entropy_with_logits(logits, swapped.to(logits))
        return {
            "reconstruction": o.reconstruction_weight * torch.stack(rebuilt).mean(),
            "order": o.order_weight * told,
        }


def with_feats(videos: list[VideoItem], feats: list[Tensor]) -> list[VideoItem]:
    """The same videos with other features."""
    return [{**video, "feats": own} for video, own in zip(videos, feats, strict=True)]


def sharpened(scores: Tensor, *, low: float, high: float) -> Tensor:
    """Scores with 1 from `high` on and 0 up to `low`."""
    return torch.where(scores >= high, 1.0, torch.where(scores <= low, 0.0, scores))


def masked_snippets(feats: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Features (D, T) in which each snippet is zero with a probability."""
    return feats * (torch.rand(feats.shape[1], generator=generator) >= share)


def swapped_halves(feats: Tensor) -> Tensor:
    """Features (D, T), the second half first."""
    middle = feats.shape[1] // 2
    return torch.cat([feats[:, middle:], feats[:, :middle]], dim=1)


def rows_at(feats: Tensor, count: int, stride: int) -> Tensor:
    """Features (D, T) at the points 0, stride, ..., (count, D)."""
    return feats[:, ::stride][:, :count].T
