"""Mean of SPOT's outputs over several views of the same windows."""

from __future__ import annotations

import torch
from torch import Tensor

from .network import SpotOutput

SMALLEST = 1e-6  # probabilities are kept this far from 0 and, of masks, from 1, so that their logits are finite


def average(output: SpotOutput, views: list[tuple[SpotOutput, Tensor]]) -> SpotOutput:
    """An output with the logits of the mean class, mask and quality probabilities over all views. A snippet, or a pair
    of snippets in a mask, that a view does not show counts in the other views only.

    Args:
        output: of the first view, B windows.
        views: per further view its output and, per snippet of the first view, the index of its snippet, (B, T), -1
            without one (`pseudo_masks.view_index`).
    """
    probs, masks = output.logits.float().softmax(dim=-1), output.masks.float().sigmoid()
    quality = None if output.quality is None else output.quality.float().sigmoid()
    shown, shown_pairs = torch.ones_like(probs[..., :1]), torch.ones_like(masks)
    for view, position in views:
        index = position.to(probs.device)
        known, source = index >= 0, index.clamp(min=0)
        known_pairs = known[:, :, None] & known[:, None, :]
        view_probs, view_masks = view.logits.float().softmax(dim=-1), view.masks.float().sigmoid()
        moved = view_masks.gather(1, source[:, :, None].expand_as(masks))
        moved = moved.gather(2, source[:, None, :].expand_as(masks))
        probs = probs + known[..., None] * view_probs.gather(1, source[..., None].expand_as(probs))
        masks = masks + known_pairs * moved
        if quality is not None and view.quality is not None:
            moved = view.quality.float().sigmoid().gather(1, source[..., None].expand_as(quality))
            quality = quality + known[..., None] * moved
        shown, shown_pairs = shown + known[..., None], shown_pairs + known_pairs
    probs, masks = (probs / shown).clamp(min=SMALLEST), (masks / shown_pairs).clamp(SMALLEST, 1 - SMALLEST)
    if quality is not None:
        quality = (quality / shown).logit(SMALLEST)
    return output._replace(logits=probs.log(), masks=masks.logit(), quality=quality)
