"""Our own kernels for CPUs, and the switch in front of them.

The environment variable `ACTIONFORMER_NT_CPU_KERNELS` names the kernels to use, separated by commas; "none" turns all
of them off. Without the variable those are used that save time on this processor. A program or a test can also replace
`enabled` while it runs.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

VARIABLE = "ACTIONFORMER_NT_CPU_KERNELS"
KERNELS = frozenset(
    {
        "block_attention",  # windowed attention without gradients
        "block_attention_training",  # the same with a backward pass of its own
        "depthwise",  # depthwise convolution
        "few_channels",  # convolution to few output channels
        "winograd",  # convolution with kernel 3
    }
)


def kernels_for(capability: str) -> frozenset[str]:
    """Kernels that save time with these vector instructions (as PyTorch names them): with AVX-512 PyTorch's own
    convolution is faster than Winograd's (docs/benchmarks/cpu_kernels.md)."""
    return KERNELS - {"winograd"} if capability == "AVX512" else KERNELS


def read_kernels(value: str | None) -> frozenset[str]:
    """Kernels named by the environment variable, or the default without it.

    Raises:
        ValueError: a name that no kernel has.
    """
    if value is None:
        return kernels_for(torch.backends.cpu.get_cpu_capability())
    names = frozenset(name.strip() for name in value.split(",")) - {"", "none"}
    if unknown := sorted(names - KERNELS):
        raise ValueError(f"{VARIABLE}: unknown kernels {unknown}; known: {sorted(KERNELS)}, or none")
    return names


enabled = read_kernels(os.environ.get(VARIABLE))


def use_own_kernel(kernel: str, x: Tensor) -> bool:
    """True on a CPU outside autocast and torch.compile, the only place where our own kernels are used; False there too
    for a kernel that has been turned off."""
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    return kernel in enabled
