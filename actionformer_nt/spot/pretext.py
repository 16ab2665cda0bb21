"""Pretext tasks, which train the network without labels (`semi_cfg.pretrain`).

* Random foreground: all snippets outside a few random segments are set to zero, and the mask branch predicts the
  segments.
* Reconstruction: random snippets are set to zero, and the decoder predicts their features.
* Order: the halves of the video are swapped with probability 1/2, and the order head predicts whether they are.

The class head is not used and gets no gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses import mask_loss, reconstruction_loss
from .network import SpotNetwork
from .schema import PretextSection
from .targets import SpotTargets, assign_targets, to_segments


class Foreground(NamedTuple):
    """Input and targets of the random foreground."""

    feats: Tensor  # (B, D, T) normalised to [0, 1], zero outside the segments
    targets: SpotTargets


def pretext_losses(
    net: SpotNetwork,
    feats: Tensor,
    mask: Tensor,
    *,
    options: PretextSection,
    bce: float = 0.4,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Scalar losses `mask_loss`, `recon_loss`, `order_loss` and their weighted sum `final_loss`.

    Args:
        feats: (B, D, T), not changed; mask: (B, T) bool, valid snippets first.
        bce: see `mask_loss`.
        generator: CPU generator of all random numbers.
    """
    lengths = mask.sum(dim=1).tolist()
    foreground = random_foreground(feats, lengths, num_segments=options.num_segments, generator=generator)
    dropped = (torch.rand(mask.shape, generator=generator) < options.drop_ratio).to(mask.device) & mask
    swapped = torch.rand(len(feats), generator=generator) < 0.5
    reordered = swap_halves(feats, lengths, swapped)

    views = torch.cat([foreground.feats, feats.masked_fill(dropped[:, None], 0.0), reordered])
    embedding = net.embedding(views, mask.repeat(3, 1))
    cropped, holes, halves = embedding.chunk(3)
    losses = {
        "mask_loss": mask_loss(net.mask_head(cropped, mask), foreground.targets.masks, mask, mask, bce=bce),
        "recon_loss": reconstruction_loss(net.decoder(holes), feats, dropped),
        "order_loss": F.cross_entropy(net.order_head(halves, mask).float(), (~swapped).long().to(mask.device)),
    }
    total = options.mask_weight * losses["mask_loss"] + options.recon_weight * losses["recon_loss"]
    return losses | {"final_loss": total + options.order_weight * losses["order_loss"]}


def random_foreground(
    feats: Tensor, lengths: list[int], *, num_segments: int, generator: torch.Generator
) -> Foreground:
    """Keeps random segments of each video, separated by gaps, and sets all other snippets to zero.

    Args:
        feats: (B, D, T); lengths: number of valid snippets of each video.
        num_segments: segments per video; short videos have fewer, but at least one.
    """
    segments = []
    for length in lengths:
        count = min(num_segments, (length + 1) // 2)
        # distinct borders, so that no segment and no inner gap is empty
        cuts = torch.randperm(length + 1, generator=generator)[: 2 * count].sort().values
        segments.append(to_segments(cuts.view(-1, 2)).to(feats.device))
    labels = [torch.zeros(len(s), dtype=torch.long, device=s.device) for s in segments]
    targets = assign_targets(segments, labels, lengths, num_steps=feats.shape[-1], num_classes=1)
    keep = (targets.classes == 0)[:, None]  # (B, 1, T)
    valid = torch.arange(feats.shape[-1], device=feats.device) < torch.tensor(lengths, device=feats.device)[:, None]
    return Foreground(normalise(feats, valid) * keep, targets)


def normalise(feats: Tensor, valid: Tensor) -> Tensor:
    """Scales each channel of (B, D, T) to [0, 1] over the valid snippets (B, T); a constant channel becomes 0."""
    outside = ~valid[:, None]
    low = feats.masked_fill(outside, torch.inf).amin(dim=-1, keepdim=True)
    high = feats.masked_fill(outside, -torch.inf).amax(dim=-1, keepdim=True)
    span = high - low
    scaled = (feats - low) / torch.where(span > 0, span, 1.0)
    return scaled.masked_fill(outside, 0.0)


def swap_halves(feats: Tensor, lengths: list[int], swapped: Tensor) -> Tensor:
    """A copy of (B, D, T) with swapped halves in the videos `swapped` (B,) bool; padding stays at the end."""
    step = torch.arange(feats.shape[-1])
    index = step.repeat(len(feats), 1)  # (B, T)
    for row, (length, swap) in enumerate(zip(lengths, swapped.tolist(), strict=True)):
        if swap and length:
            index[row, :length] = step[:length].roll(-(length // 2))
    return feats.gather(2, index.to(feats.device)[:, None].expand_as(feats))
