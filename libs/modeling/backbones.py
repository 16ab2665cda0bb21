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
    """Input projection and embedding convolutions, shared by both backbones (not a level by itself)."""

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
    """Embedding convolutions, then transformer blocks: `arch[1]` on the finest level, `arch[2]` that halve.

    Args:
        n_in: input channels, a list for several features.
        n_embd: channels, a list of parts (their sum is used) where `n_in` is one.
        arch: numbers of embedding convolutions, stem blocks and downsampling blocks.
        windows: attention window of the stem and of each downsampling block.
        max_len: length for which the absolute position encoding is defined.
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
        """(1 or B, D, length). A video longer than `max_len` stretches the table to its own padded length."""
        if self.training or lengths is None or int(lengths.max()) <= self.max_len:
            return F.pad(table, (0, max(length - self.max_len, 0)))[:, :, :length]
        rows = []
        for own in lengths.tolist():
            row = table if own <= self.max_len else F.interpolate(table, own, mode="linear", align_corners=False)
            rows.append(F.pad(row, (0, max(length - row.shape[2], 0)))[:, :, :length])
        return torch.cat(rows)

    def forward(self, x: Tensor, mask: Tensor, lengths: Tensor | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """
        Args:
            x: (B, C, T); mask: (B, 1, T) bool.
            lengths: (B,) to what length each video would be padded alone; matters for absolute positions only.

        Returns:
            Features (B, D, T / s^l) and masks (B, 1, T / s^l) of the levels l = 0 .. arch[2].
        """
        mask = mask.to(x.dtype)  # once, instead of at every product with it
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
    """The same with residual convolution blocks instead of transformer blocks."""

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
        """As `ConvTransformerBackbone.forward`; `lengths` plays no part."""
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
