"""Necks: feature pyramid of the backbone -> feature pyramid for the heads, without the levels below `start_level`."""

from __future__ import annotations

from torch import Tensor, nn

from libs.core.registry import NECKS

from .blocks import LayerNorm, MaskedConv1D


@NECKS.register("identity")
class FPNIdentity(nn.Module):
    """A layer norm on every level."""

    def __init__(
        self,
        *,
        in_channels: list[int],
        out_channel: int,
        scale_factor: int = 2,
        start_level: int = 0,
        with_ln: bool = True,
    ) -> None:
        super().__init__()
        self.start_level = start_level
        levels = in_channels[start_level:]
        self.fpn_norms = nn.ModuleList(LayerNorm(out_channel) if with_ln else nn.Identity() for _ in levels)

    def forward(self, feats: list[Tensor], masks: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        feats, masks = feats[self.start_level :], masks[self.start_level :]
        return [norm(x) for norm, x in zip(self.fpn_norms, feats, strict=True)], masks


@NECKS.register("fpn")
class FPN1D(nn.Module):
    """Feature pyramid network: adds upsampled coarser levels to each level, then a depthwise convolution and a norm."""

    def __init__(
        self,
        *,
        in_channels: list[int],
        out_channel: int,
        scale_factor: int = 2,
        start_level: int = 0,
        with_ln: bool = True,
    ) -> None:
        super().__init__()
        self.start_level, self.scale_factor = start_level, scale_factor
        levels = in_channels[start_level:]
        self.lateral_convs = nn.ModuleList(MaskedConv1D(c, out_channel, 1, bias=not with_ln) for c in levels)
        self.fpn_convs = nn.ModuleList(
            MaskedConv1D(out_channel, out_channel, 3, groups=out_channel, bias=not with_ln) for _ in levels
        )
        self.fpn_norms = nn.ModuleList(LayerNorm(out_channel) if with_ln else nn.Identity() for _ in levels)

    def forward(self, feats: list[Tensor], masks: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        feats, masks = feats[self.start_level :], masks[self.start_level :]
        merged = [conv(x, m)[0] for conv, x, m in zip(self.lateral_convs, feats, masks, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            merged[i - 1] = merged[i - 1] + merged[i].repeat_interleave(self.scale_factor, dim=2)
        out = [
            norm(conv(x, m)[0]) for conv, norm, x, m in zip(self.fpn_convs, self.fpn_norms, merged, masks, strict=True)
        ]
        return out, masks
