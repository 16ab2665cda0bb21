"""Self-training adapter of SPOT: a class distribution per snippet and a mask per confident snippet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actionformer_nt.methods import Evidence, Lesson, Matched, Student
from actionformer_nt.methods.evidence import State
from actionformer_nt.protocol.hidden_labels import HiddenLabels
from actionformer_nt.self_training.criterion import normalizer_of
from actionformer_nt.self_training.interface import SelfTraining, View, inputs_of
from actionformer_nt.self_training.pseudo_segments import PseudoSegments
from actionformer_nt.self_training.selection import labeled_rates, minutes_of
from actionformer_nt.self_training.views import Geometry
from libs.core import distributed
from libs.core.types import Config
from libs.datasets.dataset import TALDataset
from libs.datasets.video import VideoItem
from libs.modeling.class_form import ClassForm
from libs.modeling.decode import Candidates

from .average import average
from .checks import check_spot
from .matching import compare_windows
from .meta_arch import SpotBatch
from .network import SpotOutput
from .pseudo_events import FLOOR, FoundVideo, choose, events_of
from .pseudo_masks import (
    BackgroundAlignment,
    SpotPseudo,
    background_share,
    teacher_labels,
    to_view,
    unlabeled_losses,
    view_index,
)
from .targets import assign_targets
from .whole_videos import WholeVideo, compose, cut
from .windows import Window, merge


class SpotSelfTraining(SelfTraining[SpotPseudo]):
    """The pseudo labels of one video are a `SpotPseudo` with B = 1.

    Of `semi_cfg.pseudo` only `source` and `refresh_every` are used; `model.pseudo` has the settings of SPOT.
    """

    form = ClassForm.SOFTMAX
    has_pretext = True

    pseudo_types = (WholeVideo,)

    def __init__(self, config: Config, labeled: TALDataset) -> None:
        self.num_steps = config["dataset"]["max_seq_len"]
        self.has_quality = config["model"]["quality"]
        self.rates = None
        if config["model"]["pseudo"]["unit"] == "events":
            self.rates = labeled_rates(labeled, config["dataset"]["num_classes"])
        self.alignment = None
        if config["model"]["pseudo"]["align"]:
            self.alignment = BackgroundAlignment(background_share(labeled))

    @staticmethod
    def check(config: Config) -> None:
        check_spot(config)

    @torch.no_grad()
    def pseudo_labels(
        self, teacher: Any, videos: list[VideoItem], further: Sequence[list[View]] = (), *, observe: bool = True
    ) -> list[SpotPseudo]:
        pseudo: list[SpotPseudo] = []
        background: list[Tensor] = []
        for batch in teacher.batches(videos):  # a training sample fits into one window
            output = teacher.network(batch.feats, batch.mask)
            if further:
                output = self._averaged(teacher, output, batch, videos, further)
            if self.alignment is not None:
                output = self.alignment(output)
                background.append(output.logits.softmax(dim=-1)[..., -1][output.mask])
            labels = teacher_labels(output, teacher.options.pseudo)
            pseudo += [SpotPseudo(*(column[i : i + 1] for column in labels)) for i in range(len(batch.index))]
        if self.alignment is not None and observe:
            self.alignment.update(background)
        return pseudo

    @torch.no_grad()
    def find_in_whole_videos(
        self, teacher: Any, videos: list[VideoItem], further: Sequence[list[View]] = ()
    ) -> list[Any]:
        labels = []
        for video in videos:
            windows: list[Window] = []
            parts: list[SpotPseudo] = []
            found: list[tuple[Window, Candidates]] = []
            for batch in teacher.batches([video]):
                output = teacher.network(batch.feats, batch.mask).cpu()
                if self.rates is not None:
                    found += [
                        (window, teacher.decoded(output, k, video, min_score=FLOOR))
                        for k, window in enumerate(batch.windows)
                    ]
                rows = teacher_labels(output, teacher.options.pseudo)
                parts += [SpotPseudo(*(column[k : k + 1] for column in rows)) for k in range(len(batch.index))]
                windows += batch.windows
            whole = compose(windows, parts)
            labels.append(
                whole if self.rates is None else FoundVideo(whole, events_of(merge(found), whole), minutes_of(video))
            )
        return labels

    def select_jointly(self, found: list[Any]) -> list[Any]:
        return found if self.rates is None else choose(found, self.rates)

    def cut(self, pseudo: Any, video: VideoItem) -> SpotPseudo:
        return cut(pseudo, video.get("feat_start", 0), video["feats"].shape[1], num_steps=self.num_steps)

    def evidence(self, pseudo: SpotPseudo) -> Evidence:
        """Units are all T snippets. Those that are not confident teach nothing, unless the lesson keeps them."""
        probs = pseudo.probs.flatten(0, 1)
        return Evidence(
            probs=probs,
            scores=probs[:, :-1].amax(dim=-1),
            selected=pseudo.confident.flatten(), valid=pseudo.valid.flatten(),
            unit="snippet",
            class_scores=probs[:, :-1], stability=pseudo.sharpness.flatten(),
            quality=pseudo.quality.flatten() if self.has_quality else None,
        )  # fmt: skip

    @torch.no_grad()
    def student_says(
        self, student: Any, views: list[VideoItem], geometries: list[Geometry], pseudo: list[SpotPseudo]
    ) -> list[Student]:
        says: list[Student] = []
        for batch in student.batches(views):  # one window a view
            output = student.network(batch.feats, batch.mask)
            probs = (output.logits.float() / student.options.pseudo.temperature).softmax(dim=-1)
            for i, own in zip(batch.index, probs, strict=True):
                length, inverse = int(pseudo[i].valid.sum()), geometries[i].inverse
                index = view_index(
                    inverse, views[i]["feats"].shape[1], view_length=length, num_steps=self.num_steps
                ).to(own.device)
                device = pseudo[i].probs.device  # stored pseudo labels are on the CPU
                says.append(Student(probs=own[index.clamp(min=0)].to(device), seen=(index >= 0).to(device)))
        return says

    def compare(
        self, student: Any, teacher: Any, videos: list[VideoItem], views: list[VideoItem], geometries: list[Geometry]
    ) -> list[Matched]:
        return compare_windows(student, teacher, videos, views, geometries)

    @staticmethod
    def feature_width(config: Config) -> int:
        channels = config["dataset"]["input_dim"]
        return config["model"]["embd_dim"] or (sum(channels) if isinstance(channels, list) else channels)

    def features(self, model: Any, videos: list[VideoItem]) -> list[list[Tensor]]:
        found: dict[int, Tensor] = {}
        for batch in model.batches(videos):  # one window a video
            embedding = model.network(batch.feats, batch.mask).embedding
            found |= {i: embedding[row, batch.mask[row, 0]] for row, i in enumerate(batch.index)}
        return [[found[i]] for i in range(len(videos))]

    def taught(self, pseudo: SpotPseudo, lesson: Lesson) -> tuple[SpotPseudo, Lesson]:
        """`Lesson.keep` replaces the confident snippets; it can take rows of masks away, but not add any."""
        if lesson.v is not None or lesson.segments is not None:
            raise ValueError("SPOT: snippets have no boundaries that a lesson could weigh or replace")
        keep = pseudo.confident if lesson.keep is None else lesson.keep.view_as(pseudo.confident)
        if lesson.ignore is not None:
            keep = keep & ~lesson.ignore.view_as(keep)
        return pseudo._replace(confident=keep, mask_rows=pseudo.mask_rows & keep), lesson

    @staticmethod
    def _averaged(
        teacher: Any, output: SpotOutput, batch: SpotBatch, videos: list[VideoItem], further: Sequence[list[View]]
    ) -> SpotOutput:
        """Mean of an output and of the outputs on further views of the same windows."""
        views = []
        for seen in further:
            own = [seen[i] for i in batch.index]
            (view_batch,) = teacher.batches([view for view, _ in own])  # no longer than the videos, so one batch too
            index = [
                view_index(
                    geometry.inverse, view["feats"].shape[1], view_length=videos[i]["feats"].shape[1],
                    num_steps=teacher.num_steps,
                )
                for i, (view, geometry) in zip(batch.index, own, strict=True)
            ]  # fmt: skip
            views.append((teacher.network(view_batch.feats, view_batch.mask), torch.stack(index)))
        return average(output, views)

    def probs(self, pseudo: SpotPseudo) -> Tensor:
        return pseudo.probs

    def used_probs(self, pseudo: SpotPseudo) -> Tensor:
        return pseudo.probs[pseudo.confident]

    def segments(self, pseudo: SpotPseudo) -> PseudoSegments:
        """Runs of confident snippets of the same action; logits are mean log probabilities over the run."""
        probs = pseudo.probs[0].cpu()
        num_classes = probs.shape[-1] - 1
        label = torch.where(pseudo.confident[0].cpu(), probs.argmax(dim=-1), num_classes)
        border = torch.ones(len(label) + 1, dtype=torch.bool)
        border[1:-1] = label[1:] != label[:-1]
        cuts = border.nonzero()[:, 0]
        runs = [(a, b) for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True) if label[a] < num_classes]
        logits = [probs[a:b, :-1].clamp(min=1e-12).log().mean(dim=0) for a, b in runs]
        if not runs:
            return PseudoSegments(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, num_classes))
        scores = torch.stack([probs[a:b, int(label[a])].mean() for a, b in runs])
        segments = torch.tensor(runs, dtype=torch.float32) - 0.5  # snippet j covers [j - 0.5, j + 0.5]
        order = scores.argsort(descending=True, stable=True)
        return PseudoSegments(segments[order], scores[order], torch.stack(logits)[order])

    def rows_of_segments(self, pseudo: SpotPseudo) -> list[int]:
        """Index of the snippet in the middle of each segment."""
        middle = self.segments(pseudo).segments.mean(dim=1).round().long()
        return middle.clamp(0, pseudo.probs.shape[1] - 1).tolist()

    def true_class(self, hidden: HiddenLabels, video: VideoItem, pseudo: SpotPseudo) -> Tensor:
        segments, labels = hidden.of(video)
        steps, classes = pseudo.probs.shape[1], pseudo.probs.shape[2]
        length = video["feats"].shape[1]
        targets = assign_targets([segments], [labels], [length], num_steps=steps, num_classes=classes - 1)
        return targets.classes.to(pseudo.probs.device)  # (1, T), background last

    def losses(
        self,
        student: Any,
        videos: list[VideoItem],
        views: list[VideoItem],
        geometries: list[Geometry],
        pseudo: list[SpotPseudo],
        lessons: list[Lesson],
    ) -> tuple[dict[str, Tensor], int]:
        (batch,) = student.batches(views)
        output = student.network(batch.feats, batch.mask)
        rows = []
        for video, view, geometry, video_pseudo in zip(videos, views, geometries, pseudo, strict=True):
            lengths = video["feats"].shape[1], view["feats"].shape[1]
            index = view_index(geometry, lengths[0], view_length=lengths[1], num_steps=student.num_steps)[None]
            moved = to_view(video_pseudo, index)
            source = index.clamp(min=0).to(video_pseudo.probs.device)[..., None].expand_as(video_pseudo.probs)
            rows.append((moved, source))
        columns = [torch.cat(column).to(student.device) for column in zip(*(moved for moved, _ in rows), strict=True)]
        labels = SpotPseudo(*columns)  # stored pseudo labels are on the CPU
        y = torch.cat([t.y[None].gather(1, source) for t, (_, source) in zip(lessons, rows, strict=True)])
        w = torch.cat([t.w[None].gather(1, source) for t, (_, source) in zip(lessons, rows, strict=True)])
        y, w = y.to(student.device), w.to(student.device)
        options = student.options
        normalizer = normalizer_of(lessons)
        losses = unlabeled_losses(
            output, labels, y, w, options.loss, class_weight=options.pseudo.class_weight,
            count=None if normalizer is None else normalizer / distributed.world_size(),
        )  # fmt: skip
        consistency = student.consistency_losses(output, batch.clean)
        losses |= consistency | {"loss": losses["loss"] + student.weigh(consistency)}
        return distributed.parts_of_mean(losses), int(labels.mask_rows.sum())

    @staticmethod
    def pretext_losses(model: Any, videos: list[VideoItem], generator: torch.Generator) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = model.pretext(videos, generator)
        return losses

    @staticmethod
    @torch.no_grad()
    def class_features(model: Any, video: VideoItem) -> tuple[np.ndarray, np.ndarray]:
        """Features of all snippets, see `SelfTraining.class_features`. Overlapping windows: the earlier one counts."""
        feats, end = [], 0
        with inputs_of(model.net.class_head) as head_inputs:
            for batch in model.batches([video]):
                head_inputs.clear()
                model.network(batch.feats, batch.mask)
                for row, (start, length) in zip(head_inputs[0], batch.windows, strict=True):
                    feats.append(row[max(end - start, 0) : length])
                    end = start + length
        return torch.cat(feats).numpy(), np.arange(end, dtype=np.float32)

    def state(self) -> State:
        return {} if self.alignment is None else {"background_shift": self.alignment.shift}

    def load_state(self, state: State) -> None:
        if self.alignment is not None:
            shift = state["background_shift"]
            assert isinstance(shift, float)
            self.alignment.shift = shift
