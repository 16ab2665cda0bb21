"""`plr`: boundaries from several passes of the teacher, refined by a module, with weights that grow equal.

Source: Meng et al., "Pseudo label refining for semi-supervised temporal action localization" (PLoS ONE 2025).
Published in words: boundaries synthesised from several inferences, self-refinement with temporal RoI pooling, and
adaptive weights for learning pseudo labels of different quality progressively. Everything below is reconstructed:

* synthesis: the mean of the supporting candidates over all views of the teacher, which pseudo segments have anyway;
* refinement: a hidden layer on features sampled around the start, inside, and around the end of a segment says how far
  both boundaries are off; it learns to undo random displacements of labeled events;
* weights: stability^(`sharpness` (1 - t)) of class and regression loss, with t rising from 0 to 1 over `ramp_up`.

Snippets have no boundaries to refine; their masks are averaged over the views, and their class loss is weighed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionformer_nt.method_sections import PlrSection
from libs.datasets.video import VideoItem

from .base import Method
from .evidence import Evidence, Lesson, Options, Progress, Sizes, State, Trunk, tensor_of
from .recent import is_action
from .regions import around_boundaries, pooled


class Refinement(nn.Module):
    """How far the boundaries of segments are off, at most `jitter` times their length. Starts with no change."""

    def __init__(self, sizes: Sizes, options: PlrSection) -> None:
        super().__init__()
        self.bins, self.reach, self.limit = options.bins, options.reach, options.jitter
        self.hidden = nn.Linear(3 * options.bins * sizes.width, options.width)
        self.last = nn.Linear(options.width, 2)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, features: Tensor, segments: Tensor, stride: int) -> Tensor:
        """Features (S, W) and segments (N, 2) in snippets -> displacements (N, 2), divided by the lengths."""
        regions = [
            pooled(features, own, stride=stride, bins=self.bins)
            for own in around_boundaries(segments, reach=self.reach)
        ]
        x = F.relu(self.hidden(torch.cat(regions, dim=1).flatten(1)))
        return self.limit * self.last(x).tanh()


class Plr(Method):
    """A location side: the classes are those of `target`, or of the method that it is composed with."""

    schema = PlrSection
    settings: PlrSection
    at_points = False
    needs_features = True

    def __init__(self) -> None:
        self.updates = 0  # iterations of self-training

    @property
    def teacher_views(self) -> Sequence[Mapping[str, Any]]:  # type: ignore[override]
        return [view.model_dump() for view in self.settings.views]

    def observe(self, evidence: list[Evidence]) -> None:
        self.updates += 1

    @property
    def exponent(self) -> float:
        """Exponent of the stability."""
        o = self.settings
        return o.sharpness * (1 - min(self.updates / max(o.ramp_up, 1), 1.0))

    def locate(self, evidence: list[Evidence], lessons: list[Lesson], options: Options) -> list[Lesson]:
        return [self._located(*pair) for pair in zip(evidence, lessons, strict=True)]

    def _located(self, e: Evidence, lesson: Lesson) -> Lesson:
        assert e.stability is not None
        weight = torch.where(is_action(e), e.stability.to(lesson.w) ** self.exponent, 1.0)
        lesson = replace(lesson, w=lesson.w * weight[:, None])
        if e.unit != "segment":
            return lesson
        assert e.segments is not None
        segments = e.segments if lesson.segments is None else lesson.segments
        return replace(lesson.weighing(weight), segments=self.refined(e, segments))

    @torch.no_grad()
    def refined(self, e: Evidence, segments: Tensor) -> Tensor:
        """Segments (N, 2) with refined boundaries."""
        assert e.averaged is not None and isinstance(e.averaged.modules, Refinement)
        features = e.averaged.features
        moved = e.averaged.modules(features, segments.to(features), e.averaged.stride).to(segments)
        return segments + moved * (segments[:, 1:] - segments[:, :1])

    def modules(self, sizes: Sizes) -> nn.Module:
        return Refinement(sizes, self.settings)

    def auxiliary(
        self, videos: list[VideoItem], trunk: Trunk, *, labeled: bool, progress: Progress
    ) -> dict[str, Tensor]:
        if not labeled:
            return {}
        assert isinstance(trunk.modules, Refinement)
        losses = []
        for video, features, generator in zip(videos, trunk.features(videos), trunk.generators, strict=True):
            assert video["segments"] is not None
            seen, off = displaced(video["segments"], self.settings.jitter, generator)
            moved = trunk.modules(features, seen.to(features), trunk.stride)
            losses.append(F.l1_loss(moved, off.to(features), reduction="sum") / max(len(off), 1))
        return {"refinement": self.settings.refinement_weight * torch.stack(losses).mean()}

    def state(self) -> State:
        return {"updates": torch.tensor(self.updates)}

    def load_state(self, state: State) -> None:
        self.updates = int(tensor_of(state, "updates"))


def displaced(events: Tensor, jitter: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Events (N, 2) with randomly displaced boundaries, and how far these are off, divided by the new length, at most
    `jitter`."""
    length = events[:, 1:] - events[:, :1]
    seen = events + length * jitter * (2 * torch.rand(events.shape, generator=generator) - 1)
    off = (events - seen) / (seen[:, 1:] - seen[:, :1]).clamp(min=1e-6)
    return seen, off.clamp(-jitter, jitter)
