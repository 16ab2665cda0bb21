"""A long video piece by piece: memory is bounded, the result that of the whole.

Each piece is given with as many more steps on either side as an output depends on; what these give is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def receptive_field(
    *, arch: tuple[int, int, int], scale_factor: int, embd_kernel_size: int, windows: list[int] | None, head_reach: int
) -> int | None:
    """Grid steps to either side on which an output depends at most; None: on all of them.

    Args:
        arch, scale_factor, embd_kernel_size: of the backbone.
        windows: of its attention, stem and downsampling blocks; None: it consists of convolutions.
        head_reach: of a head, in steps of its level.
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
    neck = 2  # a step of the coarsest level below a finer one, and a convolution
    return reach + (neck + head_reach) * stride


def in_chunks(network: Callable[..., Any], feats: Tensor, mask: Tensor, *, chunk: int, halo: int, multiple: int) -> Any:
    """What `network(feats, mask)` gives.

    Args:
        network: (B, C, T) features and (B, 1, T) mask -> a `PyramidOutput`.
        chunk: steps of a piece without its surroundings; rounded up to a multiple of `multiple`.
        halo: steps to either side on which an output depends.
        multiple: coarsest stride, of which T is a multiple.
    """
    length = feats.shape[2]
    chunk, halo = (-(-steps // multiple) * multiple for steps in (chunk, halo))
    pieces = []
    for start in range(0, length, chunk):
        low, high = max(start - halo, 0), min(start + chunk + halo, length)
        output = network(feats[:, :, low:high], mask[:, :, low:high])
        strides = [int(points[0, 3]) for points in output.points]
        kept = [slice((start - low) // s, (min(start + chunk, length) - low) // s) for s in strides]
        moved = []
        for points in output.points:
            points = points.clone()
            points[:, 0] += low
            moved.append(points)
        columns = [*output[:3], [points[None] for points in moved]]  # time is the second dimension of all
        pieces.append([[x[:, own] for x, own in zip(levels, kept, strict=True)] for levels in columns])
    joined = [[torch.cat(parts, dim=1) for parts in zip(*levels, strict=True)] for levels in zip(*pieces, strict=True)]
    return type(output)(*joined[:3], [points[0] for points in joined[3]])
