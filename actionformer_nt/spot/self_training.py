"""The unlabeled half of an iteration for SPOT: a class distribution per snippet and a mask per confident snippet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from actionformer_nt.methods import ClassTargets
from actionformer_nt.protocol.hidden_labels import HiddenLabels
from actionformer_nt.self_training.pseudo_segments import PseudoSegments
from actionformer_nt.self_training.views import Geometry
from libs.core import distributed
from libs.datasets.dataset import TALDataset

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


class SpotUnlabeled:
    """Pseudo labels of one video are a `SpotPseudo` of one row, on the T snippets of the window.

    Of `semi_cfg.pseudo` only the teacher's `source` counts: SPOT's own thresholds are in `model.pseudo`.
    """

    form = "softmax"

    def __init__(self, config: dict[str, Any], labeled: TALDataset) -> None:
        self.alignment = None
        if config["model"]["pseudo"]["align"]:
            self.alignment = BackgroundAlignment(background_share(labeled))

    @torch.no_grad()
    def pseudo_labels(self, teacher: Any, videos: list[dict[str, Any]]) -> list[SpotPseudo]:
        found: list[SpotPseudo] = []
        background: list[Tensor] = []
        for batch in teacher.batches(videos):  # samples of training fit one window each
            output = teacher.network(batch.feats, batch.mask)
            if self.alignment is not None:
                output = self.alignment(output)
                background.append(output.logits.softmax(dim=-1)[..., -1][output.mask])
            labels = teacher_labels(output, teacher.options.pseudo)
            found += [SpotPseudo(*(column[i : i + 1] for column in labels)) for i in range(len(batch.index))]
        if self.alignment is not None:
            self.alignment.update(background)
        return found

    def probs(self, pseudo: SpotPseudo) -> Tensor:
        return pseudo.probs

    def used_probs(self, pseudo: SpotPseudo) -> Tensor:
        return pseudo.probs[pseudo.confident]

    def segments(self, pseudo: SpotPseudo) -> PseudoSegments:
        """Runs of confident snippets of one action, with their mean log probabilities as logits."""
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

    def true_class(self, hidden: HiddenLabels, video: dict[str, Any], pseudo: SpotPseudo) -> Tensor:
        segments, labels = hidden.of(video)
        steps, classes = pseudo.probs.shape[1], pseudo.probs.shape[2]
        length = video["feats"].shape[1]
        targets = assign_targets([segments], [labels], [length], num_steps=steps, num_classes=classes - 1)
        return targets.classes.to(pseudo.probs.device)  # (1, T), background last

    def losses(
        self,
        student: Any,
        videos: list[dict[str, Any]],
        views: list[dict[str, Any]],
        geometries: list[Geometry],
        pseudo: list[SpotPseudo],
        targets: list[ClassTargets],
    ) -> tuple[dict[str, Tensor], int]:
        (batch,) = student.batches(views)
        output = student.network(batch.feats, batch.mask)
        rows = []
        for video, view, geometry, found in zip(videos, views, geometries, pseudo, strict=True):
            lengths = video["feats"].shape[1], view["feats"].shape[1]
            index = view_index(geometry, lengths[0], view_length=lengths[1], num_steps=student.num_steps)[None]
            moved = to_view(found, index)
            source = index.clamp(min=0).to(found.probs.device)[..., None].expand_as(found.probs)
            rows.append((moved, source))
        labels = SpotPseudo(*(torch.cat(columns) for columns in zip(*(moved for moved, _ in rows), strict=True)))
        y = torch.cat([t.target.gather(1, source) for t, (_, source) in zip(targets, rows, strict=True)])
        w = torch.cat([t.weight.gather(1, source) for t, (_, source) in zip(targets, rows, strict=True)])
        options = student.options
        losses = unlabeled_losses(output, labels, y, w, options.loss, class_weight=options.pseudo.class_weight)
        consistency = student.consistency_losses(output, batch.feats)
        losses |= consistency | {"loss": losses["loss"] + student.weigh(consistency)}
        return distributed.parts_of_mean(losses), int(labels.mask_rows.sum())

    def state(self) -> dict[str, Any]:
        return {} if self.alignment is None else {"background_shift": self.alignment.shift}

    def load_state(self, state: dict[str, Any]) -> None:
        if self.alignment is not None:
            self.alignment.shift = state["background_shift"]
