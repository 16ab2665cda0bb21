"""Pseudo labels of whole videos, composed of overlapping windows, and their cut to a training sample."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .pseudo_masks import SpotPseudo
from .windows import Window


class WholeVideo(NamedTuple):
    """Pseudo labels of a video of L snippets. Each snippet has those of the window in which it is most central."""

    probs: Tensor  # (1, L, C + 1) class distributions, background last
    confident: Tensor  # (1, L) bool
    masks: Tensor  # (L, T) bool: mask of each snippet over the snippets of its window
    mask_rows: Tensor  # (1, L) bool
    sharpness: Tensor  # (1, L)
    quality: Tensor  # (1, L)
    starts: Tensor  # (L,) long: first snippet of each snippet's window


def compose(windows: list[Window], labels: list[SpotPseudo]) -> WholeVideo:
    """
    Args:
        windows: windows of a video, in the order of time, that cover it.
        labels: the pseudo labels of each window, B = 1.
    """
    step = torch.arange(max(start + length for start, length in windows))  # (L,)
    inside = torch.stack([torch.minimum(step - start, start + length - 1 - step) for start, length in windows])
    chosen = inside.argmax(dim=0)  # (L,): the window whose nearest end is the farthest; of several, the first
    starts = torch.tensor([start for start, _ in windows])[chosen]
    row = step - starts
    probs, confident, masks, mask_rows, sharpness, quality = (
        torch.cat(columns)[chosen, row]
        for columns in zip(*labels, strict=True)  # (windows, T, ...) -> (L, ...)
    )
    return WholeVideo(probs[None], confident[None], masks > 0, mask_rows[None], sharpness[None], quality[None], starts)


def cut(whole: WholeVideo, start: int, length: int, *, num_steps: int) -> SpotPseudo:
    """Pseudo labels of the snippets [start, start + length), padded to T. A mask has no snippet outside its window."""
    rows = slice(start, start + length)
    pad = num_steps - length
    column = torch.arange(start, start + length) - whole.starts[rows, None]  # (l, l): column in the row's window
    known = (column >= 0) & (column < num_steps)
    masks = whole.masks[rows].gather(1, column.clamp(0, num_steps - 1)) & known
    return SpotPseudo(
        torch.nn.functional.pad(whole.probs[:, rows], (0, 0, 0, pad)),
        torch.nn.functional.pad(whole.confident[:, rows], (0, pad)),
        torch.nn.functional.pad(masks[None].float(), (0, pad, 0, pad)),
        torch.nn.functional.pad(whole.mask_rows[:, rows], (0, pad)),
        torch.nn.functional.pad(whole.sharpness[:, rows], (0, pad)),
        torch.nn.functional.pad(whole.quality[:, rows], (0, pad)),
    )
