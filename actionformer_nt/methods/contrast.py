"""Contrastive losses on unit vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def fine_contrast(one: Tensor, two: Tensor, *, temperature: float) -> Tensor:
    """Mean loss of telling row i of the other view, (N, W) each, from its other rows (InfoNCE, van den Oord et al.,
    2018), in both directions; N > 0."""
    logits = F.normalize(one, dim=-1) @ F.normalize(two, dim=-1).T / temperature
    same = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same))


def coarse_contrast(rows: Tensor, groups: Tensor, *, temperature: float) -> Tensor:
    """Mean of -log of the share of a row's similarity that falls on other rows of its group,

        sum_{j != i, g_j = g_i} exp(s_ij) / sum_{j != i} exp(s_ij),

    over the rows (N, W) with another row of their group (N,); 0 without any (after Khosla et al., 2020)."""
    logits = F.normalize(rows, dim=-1) @ F.normalize(rows, dim=-1).T / temperature
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    together = (groups[:, None] == groups[None, :]) & ~itself
    used = together.any(dim=1)
    if not used.any():
        return 0.0 * rows.sum()
    logits = logits.masked_fill(itself, -torch.inf)[used]
    inside = logits.masked_fill(~together[used], -torch.inf).logsumexp(dim=1)
    return (logits.logsumexp(dim=1) - inside).mean()
