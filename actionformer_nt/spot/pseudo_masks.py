"""SPOT's pseudo labels: teacher's output -> class distributions and masks -> losses of the student."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from libs.core import distributed
from libs.datasets.crop import crop_at
from libs.datasets.dataset import TALDataset
from libs.modeling.location_quality import predicted_factor

from .losses import class_loss, mask_loss
from .network import SpotOutput
from .schema import LossSection, PseudoSection
from .targets import quantise


class SpotPseudo(NamedTuple):
    """Pseudo labels of B windows, without gradient."""

    probs: Tensor  # (B, T, C + 1) class distributions, background last; zero at padded snippets
    confident: Tensor  # (B, T) bool: snippets with a class loss
    masks: Tensor  # (B, T, T) 0 or 1, row = query
    mask_rows: Tensor  # (B, T) bool: rows with a mask loss
    sharpness: Tensor  # (B, T) mean of |2 m - 1| over the mask probabilities m of the row; 0 at padded snippets
    quality: Tensor  # (B, T) factor of the quality head; 1 without one

    @property
    def valid(self) -> Tensor:
        """(B, T) bool, False at padded snippets."""
        return self.probs.sum(dim=-1) > 0


@torch.no_grad()
def teacher_labels(output: SpotOutput, options: PseudoSection) -> SpotPseudo:
    """Pseudo labels from the teacher's output.

    A snippet is confident if the more probable of its best action and the background has a probability of at least
    `threshold`, after the temperature; with a threshold of 0 every snippet is. A confident action snippet has a mask
    loss if its own mask contains the snippet. With `background_rows`, a confident background snippet has a mask loss
    too; its mask is empty, as in labeled windows.
    """
    probs = (output.logits.float() / options.temperature).softmax(dim=-1)
    action = probs[..., :-1].amax(dim=-1)
    background = probs[..., -1]
    sure_action = (action >= options.threshold) & (action > background) & output.mask
    sure_background = (background >= options.threshold) & (background >= action) & output.mask
    valid = output.mask[:, :, None] & output.mask[:, None, :]
    soft = output.masks.float().sigmoid()
    masks = ((soft >= options.mask_threshold) & valid).float()
    sharpness = ((2 * soft - 1).abs() * valid).sum(dim=2) / valid.sum(dim=2).clamp(min=1)
    contains_query = masks.diagonal(dim1=1, dim2=2) > 0
    rows = sure_action & contains_query
    if options.background_rows:
        masks = masks * ~sure_background[:, :, None]
        rows = rows | sure_background
    quality = torch.ones_like(action) if output.quality is None else predicted_factor(output.quality.float())
    return SpotPseudo(probs * output.mask[..., None], sure_action | sure_background, masks, rows, sharpness, quality)


class BackgroundAlignment:
    """Shifts the teacher's background logit so that the mean background probability of unlabeled snippets approaches
    the share of background among labeled snippets. Otherwise self-training drifts towards ever more or less action.

    Args:
        share: share of background among labeled snippets, 0 .. 1.
    """

    RATE = 0.2  # change of the shift per iteration, divided by the difference of the shares

    def __init__(self, share: float) -> None:
        self.share, self.shift = share, 0.0

    @torch.no_grad()
    def __call__(self, output: SpotOutput) -> SpotOutput:
        """Adds the current shift to the background logits of an output."""
        logits = output.logits.float().clone()
        logits[..., -1] += self.shift
        return output._replace(logits=logits)

    def update(self, background: list[Tensor]) -> None:
        """Updates the shift once per iteration.

        Args:
            background: background probabilities (N,) of the valid snippets of each batch, after the current shift.
        """
        sums = {"background": sum(float(p.sum()) for p in background), "snippets": sum(len(p) for p in background)}
        sums = distributed.total(sums)
        self.shift += self.RATE * (self.share - sums["background"] / max(sums["snippets"], 1))


WINDOWS = 64  # per video, in `background_share`


def background_share(dataset: TALDataset) -> float:
    """Share of background among the labels of the windows that training draws from a data set: of each video, up to 64
    evenly spaced windows of `max_seq_len` steps that hold an event, or the whole video if it is not longer."""
    background, snippets = 0.0, 0
    for i in range(len(dataset)):
        length = min(dataset.grid(i).length, dataset.max_seq_len)
        step = torch.arange(length)
        shares = []
        for segments in _events_of_windows(dataset, i, length):
            ranges, on_grid = quantise(torch.from_numpy(segments), length)
            inside = (step >= ranges[:, :1]) & (step < ranges[:, 1:]) & on_grid[:, None]  # (N, T)
            shares.append(1 - float(inside.any(dim=0).double().mean()))
        background += length * float(np.mean(shares))
        snippets += length
    return background / max(snippets, 1)


def _events_of_windows(dataset: TALDataset, index: int, length: int) -> list[np.ndarray]:
    """Events (N, 2) in evenly spaced windows of a video, in steps of each window."""
    grid, (segments, _) = dataset.grid(index), dataset.events(index)
    if grid.length == length:
        return [segments]
    starts = np.unique(np.linspace(0, grid.length - length, WINDOWS).round().astype(int))
    crops = [crop_at(int(a), length, segments, grid.offset, trunc_thresh=dataset.trunc_thresh) for a in starts]
    with_events = [crop for crop in crops if crop.kept.any()]  # training draws again where no event is kept
    return [crop.segments for crop in with_events or crops]


def view_index(geometry: Callable[[Tensor], Tensor], length: int, *, view_length: int, num_steps: int) -> Tensor:
    """Maps snippets of the student's view to snippets of the teacher's view.

    Args:
        geometry: `views.Geometry` of the student's view: teacher's grid times -> student's grid times.
        length, view_length: numbers of valid snippets in the teacher's and in the student's view; num_steps: T.

    Returns:
        (T,) long: index of the nearest snippet of the teacher, at less than one step; -1 if there is none.
    """
    times = geometry(torch.arange(length, dtype=torch.float32))  # (length,)
    step = torch.arange(num_steps)
    distance, source = (times[None, :] - step[:, None]).abs().min(dim=1)
    return torch.where((distance < 1) & (step < view_length), source, -1)


def to_view(pseudo: SpotPseudo, index: Tensor) -> SpotPseudo:
    """Maps pseudo labels from the teacher's view to the student's view.

    Args:
        index: (B, T) of `view_index`. Snippets with index -1 are not confident, are in no mask, and have no mask loss.
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
        pseudo.sharpness.gather(1, source) * known,
        pseudo.quality.gather(1, source) * known,
    )


def unlabeled_losses(
    output: SpotOutput,
    pseudo: SpotPseudo,
    y: Tensor,
    w: Tensor,
    options: LossSection,
    *,
    class_weight: float,
    count: float | None = None,
) -> dict[str, Tensor]:
    """Scalar losses of the student: `cls_loss`, `mask_loss` and their weighted sum `loss`. They are zero, with a
    gradient graph, if no snippet is confident.

    Args:
        pseudo: pseudo labels on the student's view, see `to_view`.
        y, w: class targets and weights (B, T, C + 1), which the method computed from `pseudo.probs`.
        class_weight: weight of the class loss, in addition to `options.class_weight`.
        count: number to divide the class loss by; None: the number of valid snippets.
    """
    count = float(output.mask.sum()) if count is None else count
    weight = w * (pseudo.confident & output.mask)[..., None]
    losses = {
        "cls_loss": class_loss(
            output.logits, y.detach(), weight.detach(), focal_gamma=options.focal_gamma, count=count
        ),
        "mask_loss": mask_loss(output.masks, pseudo.masks, pseudo.mask_rows, output.mask, bce=options.mask_bce),
    }
    total = class_weight * options.class_weight * losses["cls_loss"] + options.mask_weight * losses["mask_loss"]
    return losses | {"loss": total}
