"""Features of segments: samples of a feature sequence at given times (temporal RoI alignment)."""

from __future__ import annotations

import torch
from torch import Tensor


def sampled(features: Tensor, positions: Tensor) -> Tensor:
    """Linear interpolation of features (S, W) at positions (...,) in points, clamped to [0, S - 1]; (..., W)."""
    positions = positions.clamp(0, len(features) - 1)
    low = positions.floor().long().clamp(max=max(len(features) - 2, 0))
    high = (low + 1).clamp(max=len(features) - 1)
    return torch.lerp(features[low], features[high], (positions - low)[..., None].to(features))


def pooled(features: Tensor, segments: Tensor, *, stride: int, bins: int) -> Tensor:
    """Features (S, W) in the middle of `bins` equal parts of each segment, (N, bins, W).

    Args:
        segments: (N, 2) in snippets; stride: snippets from one point of the features to the next.
    """
    share = (torch.arange(bins, device=segments.device) + 0.5) / bins
    times = segments[:, :1] + share * (segments[:, 1:] - segments[:, :1])  # (N, bins)
    return sampled(features, (times / stride).to(features.device))


def around_boundaries(segments: Tensor, *, reach: float) -> list[Tensor]:
    """Three segments (N, 2) for each: around the start, inside, and around the end; the first and the last reach as far
    as `reach` times the length to either side."""
    start, end = segments[:, :1], segments[:, 1:]
    side = reach * (end - start)
    return [torch.cat([start - side, start + side], dim=1), segments, torch.cat([end - side, end + side], dim=1)]


def gaps(segments: Tensor, length: int) -> Tensor:
    """The parts of at least one snippet of a video of `length` snippets that no segment (N, 2) covers, (M, 2)."""
    found, end = [], 0.0
    for start, stop in sorted(segments.tolist()):
        if start - end >= 1:
            found.append((end, start))
        end = max(end, stop)
    if length - end >= 1:
        found.append((end, float(length)))
    return torch.tensor(found).view(-1, 2)
