"""Our own CPU kernels, and the switch that enables them.

The environment variable `ACTIONFORMER_NT_CPU_KERNELS` lists the enabled kernels, separated by commas; "none" disables
all. By default the kernels that are faster than torch's on this processor are enabled. Code may also assign `enabled`.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

VARIABLE = "ACTIONFORMER_NT_CPU_KERNELS"
KERNELS = frozenset(
    {
        "block_attention",  # windowed attention without gradients
        "block_attention_training",  # windowed attention with gradients
        "depthwise",  # depthwise convolution
        "few_channels",  # convolution to few output channels
        "winograd",  # convolution with kernel 3
    }
)


def kernels_for(capability: str) -> frozenset[str]:
    """Kernels that are faster than torch's with these vector instructions: all, except Winograd under AVX-512.

    Measurements: docs/benchmarks/cpu_kernels.md.

    Args:
        capability: from `torch.backends.cpu.get_cpu_capability`.
    """
    return KERNELS - {"winograd"} if capability == "AVX512" else KERNELS


def read_kernels(value: str | None) -> frozenset[str]:
    """Parses the value of the environment variable; None (not set) gives the default.

    Raises:
        ValueError: unknown kernel.
    """
    if value is None:
        return kernels_for(torch.backends.cpu.get_cpu_capability())
    names = frozenset(name.strip() for name in value.split(",")) - {"", "none"}
    if unknown := sorted(names - KERNELS):
        raise ValueError(f"{VARIABLE}: unknown kernels {unknown}; known: {sorted(KERNELS)}, or none")
    return names


enabled = read_kernels(os.environ.get(VARIABLE))


def use_own_kernel(kernel: str, x: Tensor) -> bool:
    """Whether to run `kernel` on `x`: on a CPU, outside autocast and torch.compile, if the kernel is enabled."""
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    return kernel in enabled
