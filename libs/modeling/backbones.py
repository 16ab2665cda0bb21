"""Backbones: features (B, C, T) -> feature pyramid, finest level first."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from libs.core.registry import BACKBONES

from .blocks import ConvBlock, LayerNorm, MaskedConv1D, TransformerBlock, sinusoids


class _Stem(nn.Module):
    """Input projections and embedding convolutions of both backbones.

    Args:
        n_in, n_embd: see `ConvTransformerBackbone`.
        depth: number of embedding convolutions.
        with_ln: normalise after each of them.
    """

    def __init__(
        self, n_in: int | list[int], n_embd: int | list[int], kernel_size: int, depth: int, with_ln: bool
    ) -> None:
        super().__init__()
        parts = [n_embd] if isinstance(n_embd, int) else list(n_embd)
        self.dim = dim = sum(parts)
        self.splits: list[int] | None = None
        if isinstance(n_in, int):
            channels = n_in
        else:
            self.splits, channels = list(n_in), dim
            self.proj = nn.ModuleList(MaskedConv1D(i, o, 1) for i, o in zip(n_in, parts, strict=True))
        self.embd = nn.ModuleList(
            MaskedConv1D(channels if i == 0 else dim, dim, kernel_size, bias=not with_ln) for i in range(depth)
        )
        self.embd_norm = nn.ModuleList(LayerNorm(dim) if with_ln else nn.Identity() for _ in range(depth))
        if depth == 0 and channels != dim:
            raise ValueError(f"without embedding convolutions input_dim {channels} must equal embd_dim {dim}")

    def embed(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.splits is not None:
            x = torch.cat(
                [p(part, mask)[0] for p, part in zip(self.proj, x.split(self.splits, dim=1), strict=True)], dim=1
            )
        for conv, norm in zip(self.embd, self.embd_norm, strict=True):
            x = F.relu(norm(conv(x, mask)[0]))
        return x


@BACKBONES.register("convTransformer")
class ConvTransformerBackbone(_Stem):
    """Embedding convolutions, `arch[1]` transformer blocks on the finest level, `arch[2]` downsampling ones.

    Args:
        n_in: input channels; a list if several features are concatenated.
        n_embd: embedding channels; a list if `n_in` is one: each feature is projected to its own number of channels.
        arch: numbers of embedding convolutions, stem blocks and downsampling blocks.
        windows: attention windows of the stem and of each downsampling block, in steps of the block's output.
        max_len: length of the absolute position encoding, in grid steps.
    """

    pos_embd: Tensor | None  # (1, D, max_len)

    def __init__(
        self,
        *,
        n_in: int | list[int],
        n_embd: int | list[int],
        n_head: int,
        n_embd_ks: int,
        max_len: int,
        arch: tuple[int, int, int],
        windows: list[int],
        scale_factor: int = 2,
        with_ln: bool = False,
        attn_pdrop: float = 0.0,
        path_pdrop: float = 0.0,
        use_abs_pe: bool = False,
        use_rel_pe: bool = False,
    ) -> None:
        super().__init__(n_in, n_embd, n_embd_ks, arch[0], with_ln)
        self.max_len = max_len
        shared: dict[str, Any] = {"dropout": attn_pdrop, "droppath": path_pdrop, "rel_pe": use_rel_pe}
        self.stem = nn.ModuleList(
            TransformerBlock(self.dim, n_head, window=windows[0], **shared) for _ in range(arch[1])
        )
        self.branch = nn.ModuleList(
            TransformerBlock(self.dim, n_head, stride=scale_factor, window=windows[1 + i], **shared)
            for i in range(arch[2])
        )
        if use_abs_pe:
            table = sinusoids(max_len, self.dim, dtype=torch.float64).float().t()[None] / math.sqrt(self.dim)
            self.register_buffer("pos_embd", table, persistent=False)
        else:
            self.pos_embd = None

    def _position_encoding(self, table: Tensor, length: int, lengths: Tensor | None) -> Tensor:
        """Position encoding (1 or B, D, length). In evaluation it is stretched for videos longer than `max_len`."""
        if self.training or lengths is None or int(lengths.max()) <= self.max_len:
            return F.pad(table, (0, max(length - self.max_len, 0)))[:, :, :length]
        rows = []
        for steps in lengths.tolist():
            row = table if steps <= self.max_len else F.interpolate(table, steps, mode="linear", align_corners=False)
            rows.append(F.pad(row, (0, max(length - row.shape[2], 0)))[:, :, :length])
        return torch.cat(rows)

    def forward(self, x: Tensor, mask: Tensor, lengths: Tensor | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """
        Args:
            x: (B, C, T); mask: (B, 1, T) bool.
            lengths: (B,) length to which each video would be padded alone; used by the position encoding only.

        Returns:
            Features (B, D, T / s^l) and masks (B, 1, T / s^l) of the levels l = 0 .. arch[2].
        """
        mask = mask.to(x.dtype)  # converted once instead of in every product
        x = self.embed(x, mask)
        if self.pos_embd is not None:
            x = x + self._position_encoding(self.pos_embd, x.shape[2], lengths) * mask
        for block in self.stem:
            x, mask = block(x, mask)
        feats, masks = [x], [mask]
        for block in self.branch:
            x, mask = block(x, mask)
            feats.append(x)
            masks.append(mask)
        return feats, [mask.bool() for mask in masks]


@BACKBONES.register("conv")
class ConvBackbone(_Stem):
    """`ConvTransformerBackbone` with residual convolution blocks instead of transformer blocks."""

    def __init__(
        self,
        *,
        n_in: int | list[int],
        n_embd: int | list[int],
        n_embd_ks: int,
        arch: tuple[int, int, int],
        scale_factor: int = 2,
        with_ln: bool = False,
    ) -> None:
        super().__init__(n_in, n_embd, n_embd_ks, arch[0], with_ln)
        self.stem = nn.ModuleList(ConvBlock(self.dim) for _ in range(arch[1]))
        self.branch = nn.ModuleList(ConvBlock(self.dim, stride=scale_factor) for _ in range(arch[2]))

    def forward(self, x: Tensor, mask: Tensor, lengths: Tensor | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """As `ConvTransformerBackbone.forward`; `lengths` is not used."""
        mask = mask.to(x.dtype)
        x = self.embed(x, mask)
        for block in self.stem:
            x, mask = block(x, mask)
        feats, masks = [x], [mask]
        for block in self.branch:
            x, mask = block(x, mask)
            feats.append(x)
            masks.append(mask)
        return feats, [mask.bool() for mask in masks]
