"""Inference on long videos in overlapping chunks: bounded memory, identical result.

Every chunk is extended on either side by the receptive field of the network. Outputs at the added steps are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def receptive_field(
    *, arch: tuple[int, int, int], scale_factor: int, embd_kernel_size: int, windows: list[int] | None, head_reach: int
) -> int | None:
    """Upper bound of the distance, in grid steps, between an output and the inputs it depends on.

    Args:
        arch, scale_factor, embd_kernel_size: see `ModelKeys`, where `arch` is `backbone_arch`.
        windows: attention windows of the stem and of the downsampling blocks; None: a backbone of convolutions.
        head_reach: the same bound for a head alone, in steps of its level.

    Returns:
        None if some block has global attention.
    """
    if windows is not None and any(w <= 1 for w, used in zip(windows, [arch[1], *[1] * arch[2]], strict=True) if used):
        return None
    reach = arch[0] * (embd_kernel_size // 2)
    reach += arch[1] * (2 if windows is None else 1 + windows[0] // 2)
    stride = 1
    for level in range(arch[2]):
        reach += stride * (1 if windows is None else (scale_factor + 1) // 2)
        stride *= scale_factor
        reach += stride * (1 if windows is None else windows[1 + level] // 2)
    neck = 2  # top-down path and convolution, one coarse step each
    return reach + (neck + head_reach) * stride


def in_chunks(network: Callable[..., Any], feats: Tensor, mask: Tensor, *, chunk: int, halo: int, multiple: int) -> Any:
    """Computes `network(feats, mask)` in overlapping chunks.

    Args:
        network: (B, C, T) features and (B, 1, T) mask -> `PyramidOutput`.
        chunk: grid steps of a chunk before it is extended; rounded up to a multiple of `multiple`.
        halo: receptive field of the network, see `receptive_field`.
        multiple: coarsest stride, which must divide T.
    """
    length = feats.shape[2]
    chunk, halo = (-(-steps // multiple) * multiple for steps in (chunk, halo))
    chunks = []
    for start in range(0, length, chunk):
        low, high = max(start - halo, 0), min(start + chunk + halo, length)
        output = network(feats[:, :, low:high], mask[:, :, low:high])
        strides = [int(points[0, 3]) for points in output.points]
        inner = [slice((start - low) // s, (min(start + chunk, length) - low) // s) for s in strides]
        shifted_points = []
        for points in output.points:
            points = points.clone()
            points[:, 0] += low
            shifted_points.append(points)
        columns = output._asdict() | {"points": [points[None] for points in shifted_points]}  # time is dimension 1
        chunks.append({
            name: [x[:, steps] for x, steps in zip(levels, inner, strict=True)]
            for name, levels in columns.items() if levels is not None
        })  # fmt: skip
    joined = {
        name: [torch.cat(parts, dim=1) for parts in zip(*(chunk[name] for chunk in chunks), strict=True)]
        for name in chunks[0]
    }
    return type(output)(**joined | {"points": [points[0] for points in joined["points"]]})
