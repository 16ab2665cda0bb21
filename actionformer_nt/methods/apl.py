"""`apl`: pseudo labels assessed by class and place together, checked by a discriminator, after contrastive pretraining.

Source: Zhou et al., "Towards Adaptive Pseudo-label Learning for Semi-Supervised Temporal Action Localization" (ECCV
2024). Published in words: the head for tIoU and centre distance, the joint score and DIoU-based soft class labels, a
discriminator of the similarity of pseudo and labeled instances, which drops ambiguous pseudo labels and mines others,
and unsupervised contrastive pretraining on several scales, coarse (action, background) and fine (within actions).

`model.quality` and, for soft labels of labeled videos, `train_cfg.soft_labels` (not with SPOT) are settings of the
detector; the stage `learn: pretext` turns the pretraining on. Reconstructed:

* choice and weights: those of `apl_quality`;
* class target of a pseudo segment: the predicted quality, with the quality focal loss in the sigmoid form; in the
  softmax form, and at snippets, the weight of the cross-entropy, the rest of a snippet's weight being the background's;
* discriminator: cosine similarities of an instance's mean feature to a learned vector of each class and the background,
  a softmax of them, learned on labeled events and the gaps between them; an instance is a segment or a snippet;
* pretraining: two views with channel dropout and noise; on each level of the
  pyramid, fine, a moment is told from others of its video, and coarse, points whose features differ most from the mean
  of their video from those that differ least.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionformer_nt.method_sections import AplSection
from libs.datasets.video import VideoItem

from .apl_quality import AplQuality, joint_score
from .contrast import coarse_contrast, fine_contrast
from .evidence import Evidence, Lesson, Options, Progress, Sizes, State, Trunk, tensor_of
from .label_space import partition
from .recent import is_action
from .regions import gaps, pooled


class Discriminator(nn.Module):
    """Logits of the classes and the background, last, for features of instances."""

    def __init__(self, sizes: Sizes, width: int, temperature: float) -> None:
        super().__init__()
        self.embedding, self.temperature = nn.Linear(sizes.width, width), temperature
        self.classes = nn.Parameter(torch.randn(sizes.num_classes + 1, width))

    def forward(self, features: Tensor) -> Tensor:
        """(N, W) -> (N, C + 1)."""
        own, classes = F.normalize(self.embedding(features), dim=-1), F.normalize(self.classes, dim=-1)
        return own @ classes.T / self.temperature


class Apl(AplQuality):
    """With the settings of `AplSection`."""

    schema = AplSection
    settings: AplSection
    needs_features = True

    def __init__(self) -> None:
        super().__init__()
        self.updates = 0  # iterations that the discriminator has learned

    def observe(self, evidence: list[Evidence]) -> None:
        super().observe(evidence)
        self.updates += 1

    def teach(self, evidence: list[Evidence], options: Options) -> list[Lesson]:
        return [self._lesson(e, options) for e in evidence]

    def _lesson(self, e: Evidence, options: Options) -> Lesson:
        assert e.quality is not None
        target, q = partition(e.probs).target.float(), e.quality.to(e.probs)[:, None]
        if e.unit == "snippet":
            soft = torch.where(is_action(e)[:, None], q, 1.0) * target
            soft = torch.cat([soft[:, :-1], 1 - soft[:, :-1].sum(dim=1, keepdim=True)], dim=1)
            return Lesson(y=torch.ones_like(soft), w=soft)
        if options.form.background_columns:
            return Lesson(y=target, w=q * target)
        return Lesson(y=q * target, w=torch.ones_like(target))

    def locate(self, evidence: list[Evidence], lessons: list[Lesson], options: Options) -> list[Lesson]:
        lessons = super().locate(evidence, lessons, options)
        if not self.settings.discriminator_weight or self.updates <= self.settings.discriminator_after:
            return lessons
        thresholds = self.thresholds(evidence[0].probs.shape[-1])
        thresholds = torch.where(thresholds.isnan(), thresholds.nanmean(), thresholds)
        return [self._discriminated(*pair, thresholds) for pair in zip(evidence, lessons, strict=True)]

    @torch.no_grad()
    def _discriminated(self, e: Evidence, lesson: Lesson, thresholds: Tensor) -> Lesson:
        """The lesson without units that the discriminator finds unlike their class, and with others that are like
        it."""
        found, action, score = e.probs.argmax(dim=-1), is_action(e), joint_score(e)
        everything = self.likeness(e)
        likeness = everything.gather(1, found[:, None])[:, 0]
        good = (score >= thresholds.to(score)[found]) & (likeness >= self.settings.mine)
        mined = ~e.selected & e.existing & action & good
        dropped = lesson.kept(e) & action & (likeness < self.settings.drop * everything.amax(dim=1))
        return replace(lesson.ignoring(dropped), keep=(e.selected if lesson.keep is None else lesson.keep) | mined)

    def likeness(self, e: Evidence) -> Tensor:
        """(N, C + 1) the discriminator's probabilities of the units' instances."""
        assert e.averaged is not None and isinstance(e.averaged.modules, Discriminator)
        features, discriminator = e.averaged.features, e.averaged.modules
        if e.unit == "segment":
            assert e.segments is not None
            own = self._instances(features, e.segments, e.averaged.stride)
        else:
            own = F.pad(features, (0, 0, 0, len(e.probs) - len(features)))
        return discriminator(own).softmax(dim=-1).to(e.probs)

    def _instances(self, features: Tensor, segments: Tensor, stride: int) -> Tensor:
        """Mean features (N, W) of segments (N, 2)."""
        return pooled(features, segments.to(features), stride=stride, bins=self.settings.bins).mean(dim=1)

    def renew(self) -> None:
        self.updates = 0

    def modules(self, sizes: Sizes) -> nn.Module:
        return Discriminator(sizes, self.settings.width, self.settings.temperature)

    def auxiliary(
        self, videos: list[VideoItem], trunk: Trunk, *, labeled: bool, progress: Progress
    ) -> dict[str, Tensor]:
        if not labeled:
            return {}
        assert isinstance(trunk.modules, Discriminator)
        losses = []
        for video, features in zip(videos, trunk.features(videos), strict=True):
            events, classes = video["segments"], video["labels"]
            assert events is not None and classes is not None
            between = gaps(events, video["feats"].shape[1])
            logits = trunk.modules(self._instances(features, torch.cat([events, between.to(events)]), trunk.stride))
            background = torch.full((len(between),), logits.shape[1] - 1)
            targets = torch.cat([classes, background]).to(features.device)
            losses.append(F.cross_entropy(logits, targets, reduction="sum") / max(len(targets), 1))
        return {"discriminator": self.settings.discriminator_weight * torch.stack(losses).mean()}

    def pretext(self, videos: list[VideoItem], trunk: Trunk) -> dict[str, Tensor]:
        o = self.settings
        one, two = (
            trunk.levels([self._view(*pair) for pair in zip(videos, trunk.generators, strict=True)]) for _ in range(2)
        )
        fine, coarse = [], []
        for video, own, other, generator in zip(videos, one, two, trunk.generators, strict=True):
            for level, again in zip(own, other, strict=True):
                chosen = torch.randperm(len(level), generator=generator)[: o.pretext_points]
                group = actionness(video["feats"], len(level), o.pretext_action)[chosen].to(level.device)
                rows, same = level[chosen.to(level.device)], again[chosen.to(level.device)]
                fine.append(fine_contrast(rows, same, temperature=o.temperature))
                coarse.append(coarse_contrast(rows[group >= 0], group[group >= 0], temperature=o.temperature))
        return {
            "fine": o.fine_weight * torch.stack(fine).mean(),
            "coarse": o.coarse_weight * torch.stack(coarse).mean(),
        }

    def _view(self, video: VideoItem, generator: torch.Generator) -> VideoItem:
        o, feats = self.settings, video["feats"]
        kept = torch.rand(len(feats), 1, generator=generator) >= o.pretext_dropout
        noise = o.pretext_noise * feats.std() * torch.randn(feats.shape, generator=generator)
        return {**video, "feats": feats * kept / (1 - o.pretext_dropout) + noise}

    def state(self) -> State:
        return super().state() | {"updates": torch.tensor(self.updates)}

    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.updates = int(tensor_of(state, "updates"))


def actionness(feats: Tensor, points: int, share: float) -> Tensor:
    """(points,) 1 for the share of evenly spaced points of a video (D, T) whose features differ most from the video's
    mean, 0 for the share of those that differ least, -1 between. A point stands for the snippets up to the next one."""
    difference = (feats - feats.mean(dim=1, keepdim=True)).square().sum(dim=0)  # (T,)
    difference = F.adaptive_avg_pool1d(difference[None], points)[0]
    order, count = difference.argsort(stable=True), int(share * points)
    group = torch.full((points,), -1)
    group[order[:count]] = 0
    group[order[points - count :]] = 1
    return group
