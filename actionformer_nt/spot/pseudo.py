"""Pseudo labels of unlabeled windows: from a teacher's output to class distributions and masks, and the losses."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .losses import class_loss, mask_loss
from .network import SpotOutput
from .schema import LossSection, PseudoSection


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
    the temperature. A row of the mask is used if its snippet is confidently an action, and is itself in the mask.
    """
    probs = (output.logits.float() / options.temperature).softmax(dim=-1)
    action = probs[..., :-1].amax(dim=-1)
    background = probs[..., -1]
    sure_action = (action >= options.threshold) & (action > background) & output.mask
    sure_background = (background >= options.threshold) & output.mask
    valid = output.mask[:, :, None] & output.mask[:, None, :]
    masks = ((output.masks.float().sigmoid() >= options.mask_threshold) & valid).float()
    own = masks.diagonal(dim1=1, dim2=2) > 0
    return SpotPseudo(probs, sure_action | sure_background, masks, sure_action & own)


def unlabeled_losses(
    output: SpotOutput, pseudo: SpotPseudo, y: Tensor, w: Tensor, options: LossSection
) -> dict[str, Tensor]:
    """Losses of a student on pseudo labels that are laid out on its own window: `cls_loss`, `mask_loss` and `loss`,
    their weighted sum. Each is zero, with a graph, where nothing is confident.

    Args:
        y, w: class targets and weights (B, T, C + 1), a method's answer to `pseudo.probs`.
    """
    weight = w * (pseudo.confident & output.mask)[..., None]
    losses = {
        "cls_loss": class_loss(output.logits, y.detach(), weight.detach(), focal_gamma=options.focal_gamma),
        "mask_loss": mask_loss(output.masks, pseudo.masks, pseudo.mask_rows, output.mask, bce=options.mask_bce),
    }
    total = options.class_weight * losses["cls_loss"] + options.mask_weight * losses["mask_loss"]
    return losses | {"loss": total}
