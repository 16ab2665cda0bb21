"""Presets: networks by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from urllib.error import URLError

import numpy as np
import torch
from torch import nn

from .extractor import Extractor, Wanted
from .hub_networks import hf_preset, timm_preset
from .i3d_streams import i3d_rgb, i3d_rgb_flow
from .torchvision_networks import torchvision_preset, tsp

PRESETS: dict[str, Callable[[Wanted], Extractor]] = {
    "i3d-rgb": i3d_rgb,
    "i3d-rgb-flow": i3d_rgb_flow,
    "tsp": tsp,
    "r3d_18": torchvision_preset("fc", "R3D_18_Weights"),
    "r2plus1d_18": torchvision_preset("fc", "R2Plus1D_18_Weights"),
    "s3d": torchvision_preset("classifier", "S3D_Weights"),
    "mvit_v2_s": torchvision_preset("head", "MViT_V2_S_Weights"),
    "swin3d_b": torchvision_preset("head", "Swin3D_B_Weights"),
}
FAMILIES: dict[str, Callable[[Wanted], Extractor]] = {"timm": timm_preset, "hf": hf_preset}  # of NAME in FAMILY:NAME


def make_extractor(
    preset: str, *, weights: str | os.PathLike | None = None, flow_weights: str | os.PathLike | None = None,
    window: int | None = None, stride: int | None = None, spatial: str | None = None, flow: str | None = None,
    seed: int | None = None,
) -> Extractor:  # fmt: skip
    """Builds the network of a preset.

    Args:
        weights: file with a state dict; None: the library's own weights, which it downloads, for its networks.
        flow_weights: of the network of the flow.
        window, stride, spatial, flow: instead of those of the preset.
        seed: random weights of this seed, for tests of a pipeline.

    Raises:
        ValueError: unknown preset, weights that do not fit, or none where they are needed.
        MissingExtraError: a package is not installed.
    """
    build = PRESETS.get(preset) or FAMILIES.get(preset.partition(":")[0])
    if build is None:
        raise ValueError(f"preset '{preset}' is not one of {[*sorted(PRESETS), 'timm:NAME', 'hf:ID']}")
    if seed is not None and (weights is not None or flow_weights is not None):
        raise ValueError("weights and seed exclude each other")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0 if seed is None else seed)
        try:
            extractor = build(Wanted(preset, weights, spatial, seed, flow, flow_weights))
        except URLError as error:
            raise ValueError(
                f"preset {preset}: its weights could not be downloaded ({error.reason}); give --weights FILE"
            ) from None
    extractor.network.eval()
    for module in extractor.network.modules():
        if isinstance(module, nn.Conv3d):  # faster so
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    extractor = replace(extractor, window=window or extractor.window, stride=stride or extractor.stride)
    (frame,) = extractor.frames([np.zeros((64, 64, 3), np.uint8)])
    try:
        extractor(torch.stack([frame] * extractor.window)[None])
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"preset {preset} cannot take clips of {extractor.window} frames: {str(error).splitlines()[0]}"
        ) from None
    return extractor
