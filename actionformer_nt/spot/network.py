"""SPOT's network: snippet embedding, class head, global mask head, and the heads of the pretext tasks.

Padded snippets do not influence valid ones: they are set to zero before every convolution, and are not keys of the
attention.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from libs.modeling.blocks import sinusoids
from libs.modeling.location_quality import INITIAL_LOGITS

EMPTY_CLASS_LOGIT = math.log(1e-6 / (1 - 1e-6))  # initial bias of classes without a training event


class SpotOutput(NamedTuple):
    """Output of the network for B windows of T snippets."""

    logits: Tensor  # (B, T, C + 1), the background last
    masks: Tensor  # (B, T, T) logits; [b, i, j]: snippet j belongs to the action instance of snippet i
    embedding: Tensor  # (B, T, W)
    mask: Tensor  # (B, T) bool, True where a snippet is valid
    quality: Tensor | None = None  # (B, T, 2) logits of the quality head

    def cpu(self) -> SpotOutput:
        """The same on the CPU."""
        return SpotOutput(*(None if column is None else column.cpu() for column in self))  # type: ignore[arg-type]


class ConvTower(nn.Module):
    """`num_layers` times: convolution (W -> W), LayerNorm, ReLU."""

    def __init__(self, width: int, num_layers: int, kernel_size: int = 3) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.convs = nn.ModuleList(nn.Conv1d(width, width, kernel_size, padding=padding) for _ in range(num_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(num_layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, W) and mask (B, T) -> (B, T, W), zero at padded snippets."""
        pad = ~mask[:, :, None]  # (B, T, 1)
        x = x.masked_fill(pad, 0.0)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x.transpose(1, 2)).transpose(1, 2))).masked_fill(pad, 0.0)
        return x


class FeedForward(nn.Module):
    """Post-norm feed-forward part of a transformer layer: LayerNorm(x + W2 ReLU(W1 x)), for every snippet by itself."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, W) -> (B, T, W)."""
        y: Tensor = self.norm(x + self.dropout(self.outer(F.relu(self.inner(x)))))
        return y


class SnippetEmbedding(nn.Module):
    """Optional projection by convolutions, then a post-norm self-attention layer.

    Args:
        input_dim: D; embd_dim: W, or None for no projection and W = D.
        num_layers: number of convolutions of the projection.
        full_width_heads: every head has width W, as in SPOT, instead of W / n_head.
        feed_forward: width of the hidden layer of a feed-forward part after the attention, as a multiple of W; 0: none.

    Raises:
        ValueError: W is not divisible by `n_head`, or `num_layers` > 1 without a projection.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        embd_dim: int | None,
        kernel_size: int,
        positions: bool,
        n_head: int,
        full_width_heads: bool,
        attn_dropout: float,
        dropout: float,
        num_layers: int = 1,
        feed_forward: float = 0.0,
    ) -> None:
        super().__init__()
        width = input_dim if embd_dim is None else embd_dim
        if embd_dim is None and num_layers > 1:
            raise ValueError(f"embd_layers {num_layers}: without embd_dim there is no projection; expected 1")
        if not full_width_heads and width % n_head:
            raise ValueError(
                f"width {width} of the embedding must be divisible by n_head {n_head}; set embd_dim or full_width_heads"
            )
        self.n_head, self.positions, self.attn_dropout = n_head, positions, attn_dropout
        self.proj: nn.Module | None = None
        self.proj_norm: nn.Module | None = None
        self.proj_tower = ConvTower(width, num_layers - 1, kernel_size) if num_layers > 1 else None
        if embd_dim is not None:
            self.proj = nn.Conv1d(input_dim, width, kernel_size, padding=kernel_size // 2)
            self.proj_norm = nn.LayerNorm(width)
        inner = n_head * width if full_width_heads else width
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, width)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(width)
        nn.init.normal_(self.qkv.weight, std=math.sqrt(2.0 / (width + inner // n_head)))
        nn.init.xavier_normal_(self.out.weight)
        self.feed_forward: nn.Module | None = None
        if feed_forward:
            self.feed_forward = FeedForward(width, max(round(feed_forward * width), 1), dropout)
        self.width = width

    def forward(self, feats: Tensor, mask: Tensor) -> Tensor:
        """Features (B, D, T) and mask (B, T) -> embedding (B, T, W), zero at padded snippets."""
        pad = ~mask[:, :, None]  # (B, T, 1)
        x = feats.masked_fill(~mask[:, None], 0.0)
        if self.proj is None or self.proj_norm is None:
            x = x.transpose(1, 2)
        else:
            x = F.relu(self.proj_norm(self.proj(x).transpose(1, 2)))
        if self.proj_tower is not None:
            x = self.proj_tower(x, mask)
        if self.positions:
            x = x + sinusoids(x.shape[1], self.width).to(x)
        x = self.norm(x + self.dropout(self.out(self._attend(x, mask))))
        if self.feed_forward is not None:
            x = self.feed_forward(x)
        return x.masked_fill(pad, 0.0)

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.n_head, -1)).transpose(1, 2)  # (B, H, T, width of a head)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        seen = (mask | ~mask.any(dim=1, keepdim=True))[:, None, None, :]  # all keys if none is valid, to avoid 0 / 0
        dropout = self.attn_dropout if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout).transpose(1, 2).flatten(2)


class MaskHead(nn.Module):
    """Mask logits of every snippet i (query, row) over all snippets j (columns).

    Args:
        width: W; num_steps: T.
        dims: widths of the hidden convolutions (kernel 3, ReLU), at least one.
        kind: "conv", as in SPOT: the last convolution has an output channel per query, so the logit depends on the
            content of snippet j, but only on the index of snippet i. "pairwise": scaled dot product of projections of
            snippets i and j, plus a term that depends on the content of j and on the distance i - j. Only the pairwise
            head is equivariant to shifts in time.
    """

    distance: Tensor

    def __init__(self, width: int, num_steps: int, *, dims: list[int], kind: str) -> None:
        super().__init__()
        widths = [width, *dims]
        self.hidden = nn.ModuleList(nn.Conv1d(a, b, 3, padding=1) for a, b in zip(widths, dims, strict=False))
        self.pairwise = kind == "pairwise"
        self.last = nn.Conv1d(dims[-1], 2 * num_steps - 1 if self.pairwise else num_steps, 1, bias=self.pairwise)
        if self.pairwise:
            self.query, self.key = (nn.Linear(dims[-1], dims[-1], bias=False) for _ in range(2))
            step = torch.arange(num_steps)
            distance = step[:, None] - step[None, :] + num_steps - 1  # (T, T): output channel for the pair (i, j)
            self.register_buffer("distance", distance, persistent=False)

    def forward(self, embedding: Tensor, mask: Tensor) -> Tensor:
        """Embedding (B, T, W) and mask (B, T) -> mask logits (B, T, T)."""
        x, mask = embedding.transpose(1, 2), mask[:, None]
        for conv in self.hidden:
            x = F.relu(conv(x)).masked_fill(~mask, 0.0)
        rows = self.last(x)  # (B, channels, T)
        if not self.pairwise:
            return rows
        x = x.transpose(1, 2)
        products = self.query(x) @ self.key(x).transpose(1, 2) / math.sqrt(x.shape[-1])  # (B, T, T)
        return products + rows.gather(1, self.distance.expand(len(rows), -1, -1))


class OrderHead(nn.Module):
    """Classifies whether the halves of a window are in order (class 1) or swapped (class 0)."""

    def __init__(self, width: int, num_steps: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.conv, self.dropout = nn.Conv1d(width, 1, 3, padding=1), nn.Dropout(dropout)
        self.fc = nn.Linear(num_steps, 2)

    def forward(self, embedding: Tensor, mask: Tensor) -> Tensor:
        """Embedding (B, T, W) and mask (B, T) -> logits (B, 2)."""
        x = F.relu(self.conv(embedding.transpose(1, 2))[:, 0]).masked_fill(~mask, 0.0)
        return self.fc(self.dropout(x))


class SpotNetwork(nn.Module):
    """Features (B, D, T) and mask (B, T) -> `SpotOutput`. `decoder` and `order_head` are used by losses only.

    Args:
        class_tower: number of convolutions before the class head. The other heads read the embedding itself.
        quality: whether there is a quality head.
    """

    def __init__(
        self,
        *,
        embedding: SnippetEmbedding,
        input_dim: int,
        num_classes: int,
        num_steps: int,
        mask_dims: list[int],
        mask_head: str,
        empty_cls: Sequence[int] = (),
        class_tower: int = 0,
        quality: bool = False,
    ) -> None:
        super().__init__()
        width = embedding.width
        self.num_steps, self.embedding = num_steps, embedding
        self.class_head = nn.Linear(width, num_classes + 1)
        self.mask_head = MaskHead(width, num_steps, dims=mask_dims, kind=mask_head)
        self.decoder = nn.Linear(width, input_dim)  # embedding -> features
        self.order_head = OrderHead(width, num_steps)
        self.class_tower = ConvTower(width, class_tower) if class_tower else None
        self.quality_head = nn.Linear(width, 2) if quality else None  # last: the others start as without it
        if self.quality_head is not None:
            with torch.no_grad():
                self.quality_head.bias.copy_(torch.tensor(INITIAL_LOGITS))
        nn.init.zeros_(self.class_head.bias)
        if len(empty_cls):
            with torch.no_grad():
                self.class_head.bias[list(empty_cls)] = EMPTY_CLASS_LOGIT

    def forward(self, feats: Tensor, mask: Tensor) -> SpotOutput:
        if feats.shape[-1] != self.num_steps:
            raise ValueError(f"SPOT: {feats.shape[-1]} snippets, expected max_seq_len={self.num_steps} (padded)")
        embedding = self.embedding(feats, mask)
        x = embedding if self.class_tower is None else self.class_tower(embedding, mask)
        quality = None if self.quality_head is None else self.quality_head(embedding)
        return SpotOutput(self.class_head(x), self.mask_head(embedding, mask), embedding, mask, quality)
