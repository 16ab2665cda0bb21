"""What SPOT's quality head learns: how well the mask of a snippet agrees with the event that owns the snippet."""

from __future__ import annotations

import torch
from torch import Tensor

from libs.modeling.location_quality import location_quality, quality_loss

from .targets import SpotTargets, to_segments


def own_ranges(masks: Tensor) -> Tensor:
    """Masks (B, T, T) bool -> half-open ranges of snippets (B, T, 2): the run of each row that contains the snippet of
    the row; an empty range at the snippet where its own mask does not contain it."""
    steps = masks.shape[-1]
    step = torch.arange(steps, device=masks.device)
    before = torch.where(masks, -1, step).cummax(dim=2).values  # last snippet outside the mask up to each column
    after = torch.where(masks, steps, step).flip(2).cummin(dim=2).values.flip(2)  # first one from each column on
    begin, end = before.diagonal(dim1=1, dim2=2) + 1, after.diagonal(dim1=1, dim2=2)
    own = masks.diagonal(dim1=1, dim2=2)
    return torch.stack([torch.where(own, begin, step), torch.where(own, end, step)], dim=2)


def snippet_quality_loss(logits: Tensor, masks: Tensor, targets: SpotTargets, valid: Tensor) -> Tensor:
    """Mean loss of the quality head over the snippets of events; 0, with a gradient graph, without any.

    Args:
        logits: (B, T, 2) of the quality head; masks: (B, T, T) logits, whose own runs above a probability of 1/2 are
            compared with the events; they get no gradient.
        valid: (B, T) bool, valid snippets.
    """
    owned = targets.masks.any(dim=2) & valid  # (B, T)
    found = own_ranges((masks.detach() > 0) & valid[:, None, :])[owned]
    true = own_ranges(targets.masks)[owned]
    loss = quality_loss(logits[owned].float(), location_quality(to_segments(found), to_segments(true)))
    return (loss.sum() + 0.0 * logits.float().sum()) / max(len(loss), 1)
