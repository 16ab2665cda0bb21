"""Building blocks on (B, C, T) features with (B, 1, T) masks, which are True or 1 at valid steps.

The features should lie in memory as (B, T, C) (see `cpu/convolution.py`).

As in ActionFormer, the output of a convolution is masked, but not the input. The last valid steps therefore see padded
steps, which a norm may have set to its bias. `batching.py` accounts for that.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import global_attention, windowed_attention
from .cpu.convolution import own_conv1d

MOST_STEPS = 2048  # chunk length of a block's feed-forward part in inference


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolution with kernel 1: (B, I, T) features, (O, I, 1) weights -> (B, O, T)."""
    return F.linear(x.transpose(1, 2), weight[:, :, 0], bias).transpose(1, 2)


def conv1d(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """Applies a "same"-padded convolution to (B, C, T), with our own CPU kernel if one is in use for it."""
    if conv.kernel_size == conv.stride == (1,) and conv.groups == 1:
        return pointwise(x, conv.weight, conv.bias)
    out = own_conv1d(x, conv)
    return conv(x) if out is None else out


def downsample_mask(mask: Tensor, stride: int) -> Tensor:
    """(B, 1, T) -> (B, 1, T / stride): a coarse step is valid iff its first fine step is."""
    return mask if stride == 1 else mask[:, :, ::stride]


def sinusoids(length: int, width: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Sinusoidal position encoding (length, width), sines and cosines alternating (Vaswani et al., 2017).

    Args:
        dtype: type of the angles and of the result.
    """
    rate = torch.exp(torch.arange(0, width, 2, dtype=dtype) * (-math.log(10000.0) / width))
    angle = torch.arange(length, dtype=dtype)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]


class MaskedConv1D(nn.Module):
    """Convolution with "same" padding whose output is masked. T must be a multiple of `stride`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv1d(
            in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, groups=groups, bias=bias
        )
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        mask = downsample_mask(mask, self.stride)
        return conv1d(x, self.conv) * mask, mask


class LayerNorm(nn.Module):
    """Layer norm over the channels of (B, C, T)."""

    def __init__(self, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(1, num_channels, 1))
        self.bias = nn.Parameter(torch.zeros(1, num_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        by_time = x.transpose(1, 2)
        return F.layer_norm(by_time, by_time.shape[2:], self.weight.flatten(), self.bias.flatten(), self.eps).transpose(
            1, 2
        )


class AffineDropPath(nn.Module):
    """Scales a residual branch per channel and, in training, drops it for random samples (stochastic depth)."""

    def __init__(self, num_channels: int, drop_prob: float, init_scale: float = 1e-4) -> None:
        super().__init__()
        self.drop_prob = drop_prob
        self.scale = nn.Parameter(torch.full((1, num_channels, 1), init_scale))

    def factor(self, x: Tensor) -> Tensor:
        """Factor (1 or B, C, 1) for a branch (B, C, T)."""
        if not self.training:
            return self.scale
        keep = 1.0 - self.drop_prob
        return self.scale * ((torch.rand(len(x), 1, 1, device=x.device, dtype=self.scale.dtype) < keep) / keep)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor(x)


class Scale(nn.Module):
    """Multiplies by a learned scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class PointwiseConv(nn.Conv1d):
    """Convolution with kernel 1."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.bias)


class ConvAttention(nn.Module):
    """Multi-head self-attention whose queries, keys and values come from depthwise convolutions.

    Args:
        stride: downsampling factor; output step i lies at input step stride * i.
        window: a step attends to the steps at most window // 2 output steps away; <= 1: to all.
        rel_pe: learn an attention bias per head and offset (odd windows only).
    """

    def __init__(
        self, dim: int, n_head: int, *, stride: int = 1, window: int = -1, dropout: float = 0.0, rel_pe: bool = False
    ) -> None:
        super().__init__()
        self.n_head, self.stride, self.window = n_head, stride, window

        def depthwise() -> MaskedConv1D:
            return MaskedConv1D(dim, dim, stride + 1 if stride > 1 else 3, stride=stride, groups=dim, bias=False)

        # modules in the order of ActionFormer's state dicts
        self.query_conv, self.query_norm = depthwise(), LayerNorm(dim)
        self.key_conv, self.key_norm = depthwise(), LayerNorm(dim)
        self.value_conv, self.value_norm = depthwise(), LayerNorm(dim)
        self.key, self.query, self.value = PointwiseConv(dim, dim), PointwiseConv(dim, dim), PointwiseConv(dim, dim)
        self.proj = PointwiseConv(dim, dim)
        self.proj_drop = nn.Dropout(dropout)
        self.rel_pe = None
        if rel_pe:
            self.rel_pe = nn.Parameter(torch.zeros(1, 1, n_head, window))
            nn.init.trunc_normal_(self.rel_pe, std=(2.0 / dim) ** 0.5)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.n_head, -1)).transpose(2, 3)  # (B, H, T, D / H)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        q, out_mask = self.query_conv(x, mask)
        k, _ = self.key_conv(x, mask)
        v, _ = self.value_conv(x, mask)
        q = self._heads(self.query(self.query_norm(q)))
        k = self._heads(self.key(self.key_norm(k)))
        v = self._heads(self.value(self.value_norm(v)))
        if self.window > 1:
            bias = None if self.rel_pe is None else self.rel_pe[0, 0]  # (H, w)
            out = windowed_attention(q, k, v, out_mask[:, 0].bool(), radius=self.window // 2, bias=bias)
        else:
            out = global_attention(q, k, v, out_mask[:, 0].bool())
        out = out.transpose(1, 2).flatten(2).transpose(1, 2)  # (B, D, T)
        return self.proj_drop(self.proj(out)), out_mask  # not masked: the block masks its sum


class TransformerBlock(nn.Module):
    """Pre-norm transformer block with optional downsampling: h = pool(x) + attn(LN(x)), y = h + MLP(LN(h))."""

    def __init__(
        self,
        dim: int,
        n_head: int,
        *,
        stride: int = 1,
        window: int = -1,
        dropout: float = 0.0,
        droppath: float = 0.0,
        rel_pe: bool = False,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.ln1, self.ln2 = LayerNorm(dim), LayerNorm(dim)
        self.attn = ConvAttention(dim, n_head, stride=stride, window=window, dropout=dropout, rel_pe=rel_pe)
        self.mlp = nn.Sequential(
            PointwiseConv(dim, 4 * dim),
            nn.GELU(),
            nn.Dropout(dropout),
            PointwiseConv(4 * dim, dim),
            nn.Dropout(dropout),
        )
        self.drop_path_attn = AffineDropPath(dim, droppath) if droppath > 0 else nn.Identity()
        self.drop_path_mlp = AffineDropPath(dim, droppath) if droppath > 0 else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        attended, out_mask = self.attn(self.ln1(x), mask)
        s = self.stride
        shortcut = x if s == 1 else F.max_pool1d(x, s + 1, stride=s, padding=(s + 1) // 2)
        h = _add(shortcut, attended, self.drop_path_attn) * out_mask
        return _add(h, self._feed_forward(self.ln2(h)), self.drop_path_mlp) * out_mask, out_mask

    def _feed_forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.shape[2] <= MOST_STEPS:
            return self.mlp(x)
        # in chunks, because the hidden layer has four times as many channels
        parts = [self.mlp(part).transpose(1, 2) for part in x.split(MOST_STEPS, dim=2)]
        return torch.cat(parts, dim=1).transpose(1, 2)


def _add(shortcut: Tensor, branch: Tensor, drop_path: AffineDropPath | nn.Identity) -> Tensor:
    if isinstance(drop_path, nn.Identity):
        return shortcut + branch
    return torch.addcmul(shortcut, branch, drop_path.factor(branch))


class ConvBlock(nn.Module):
    """Residual block of two convolutions, with optional downsampling."""

    def __init__(self, dim: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = MaskedConv1D(dim, 2 * dim, 3, stride=stride)
        self.conv2 = MaskedConv1D(2 * dim, dim, 3)
        self.downsample = MaskedConv1D(dim, dim, 1, stride=stride) if stride > 1 else None

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        out, out_mask = self.conv1(x, mask)
        out, out_mask = self.conv2(F.relu(out), out_mask)
        if self.downsample is not None:
            x, _ = self.downsample(x, mask)
        return F.relu(out + x), out_mask
