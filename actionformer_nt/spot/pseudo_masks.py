"""Pseudo labels of unlabeled windows: from a teacher's output to class distributions and masks, and the losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from libs.core import distributed
from libs.datasets.dataset import TALDataset

from .losses import class_loss, mask_loss
from .network import SpotOutput
from .schema import LossSection, PseudoSection
from .targets import quantise


class SpotPseudo(NamedTuple):
    """Without gradient."""

    probs: Tensor  # (B, T, C + 1), what a method of `actionformer_nt.methods` turns into Y and W
    confident: Tensor  # (B, T) bool: snippets that the class loss uses
    masks: Tensor  # (B, T, T) 0 or 1
    mask_rows: Tensor  # (B, T) bool: rows that the mask loss uses


@torch.no_grad()
def teacher_labels(output: SpotOutput, options: PseudoSection) -> SpotPseudo:
    """Pseudo labels of a teacher's output on an unperturbed view.

    A snippet is confident if its best action or the background has at least the threshold's probability, both after
    the temperature. A row of the mask is used if its snippet is confidently an action, and is itself in the mask, or,
    with `background_rows`, if it is confidently background, and is empty then, as in labeled windows.
    """
    probs = (output.logits.float() / options.temperature).softmax(dim=-1)
    action = probs[..., :-1].amax(dim=-1)
    background = probs[..., -1]
    sure_action = (action >= options.threshold) & (action > background) & output.mask
    sure_background = (background >= options.threshold) & output.mask
    valid = output.mask[:, :, None] & output.mask[:, None, :]
    masks = ((output.masks.float().sigmoid() >= options.mask_threshold) & valid).float()
    own = masks.diagonal(dim1=1, dim2=2) > 0
    rows = sure_action & own
    if options.background_rows:
        masks = masks * ~sure_background[:, :, None]
        rows = rows | sure_background
    return SpotPseudo(probs, sure_action | sure_background, masks, rows)


class BackgroundAlignment:
    """Shift of a teacher's background logit that brings the mean probability of background over unlabeled snippets to
    that over labeled ones. Self-training that is left alone drifts towards more and more action, or less and less.

    Args:
        share: of background among the labeled snippets, 0 .. 1.
    """

    RATE = 0.2  # of the difference in shares, added to the shift at each call

    def __init__(self, share: float) -> None:
        self.share, self.shift = share, 0.0

    @torch.no_grad()
    def __call__(self, output: SpotOutput) -> SpotOutput:
        """The output with the present shift."""
        logits = output.logits.float().clone()
        logits[..., -1] += self.shift
        return output._replace(logits=logits)

    def update(self, background: list[Tensor]) -> None:
        """Moves the shift on.

        Args:
            background: probabilities of it, with the present shift, at the snippets of an iteration.
        """
        sums = {"background": sum(float(p.sum()) for p in background), "snippets": sum(len(p) for p in background)}
        sums = distributed.total(sums)
        self.shift += self.RATE * (self.share - sums["background"] / max(sums["snippets"], 1))


def background_share(dataset: TALDataset) -> float:
    """Share of snippets without an event over all snippets of a data set's videos, however long these are."""
    background, snippets = 0, 0
    for i in range(len(dataset)):
        length = dataset.grid(i).length
        ranges, on_grid = quantise(torch.from_numpy(dataset.events(i)[0]), length)
        step = torch.arange(length)
        inside = (step >= ranges[:, :1]) & (step < ranges[:, 1:]) & on_grid[:, None]  # (N, T)
        background += length - int(inside.any(dim=0).sum())
        snippets += length
    return background / max(snippets, 1)


def view_index(geometry: Callable[[Tensor], Tensor], length: int, *, view_length: int, num_steps: int) -> Tensor:
    """Which of the teacher's snippets each of the student's comes from, (T,) long; -1: from none.

    Args:
        geometry: of the student's view (`views.Geometry`), from the teacher's grid times to the student's.
        length, view_length: valid snippets of the teacher and of the student; num_steps: T.
    """
    times = geometry(torch.arange(length, dtype=torch.float32))  # (length,)
    step = torch.arange(num_steps)
    distance, source = (times[None, :] - step[:, None]).abs().min(dim=1)
    return torch.where((distance < 1) & (step < view_length), source, -1)


def to_view(pseudo: SpotPseudo, index: Tensor) -> SpotPseudo:
    """Pseudo labels laid out on the student's windows.

    Args:
        index: (B, T) of `view_index`. A snippet from nowhere is not confident, in no mask, and asks for none.
    """
    index = index.to(pseudo.probs.device)
    known, source = index >= 0, index.clamp(min=0)
    columns = source[:, None, :].expand_as(pseudo.masks)
    masks = pseudo.masks.gather(1, source[:, :, None].expand_as(pseudo.masks)).gather(2, columns)
    return SpotPseudo(
        pseudo.probs.gather(1, source[:, :, None].expand_as(pseudo.probs)),
        pseudo.confident.gather(1, source) & known,
        masks * known[:, :, None] * known[:, None, :],
        pseudo.mask_rows.gather(1, source) & known,
    )


def unlabeled_losses(
    output: SpotOutput, pseudo: SpotPseudo, y: Tensor, w: Tensor, options: LossSection, *, class_weight: float
) -> dict[str, Tensor]:
    """Losses of a student on pseudo labels that are laid out on its own window: `cls_loss`, `mask_loss` and `loss`,
    their weighted sum. Each is zero, with a graph, where nothing is confident.

    Args:
        y, w: class targets and weights (B, T, C + 1), a method's answer to `pseudo.probs`.
        class_weight: of the class loss, times `options.class_weight`.
    """
    weight = w * (pseudo.confident & output.mask)[..., None]
    losses = {
        "cls_loss": class_loss(output.logits, y.detach(), weight.detach(), focal_gamma=options.focal_gamma),
        "mask_loss": mask_loss(output.masks, pseudo.masks, pseudo.mask_rows, output.mask, bce=options.mask_bce),
    }
    total = class_weight * options.class_weight * losses["cls_loss"] + options.mask_weight * losses["mask_loss"]
    return losses | {"loss": total}
