"""Seeds. Random numbers depend on the run's seed and on their purpose (epoch, video, ...), not on earlier draws."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch

from .distributed import rank


def fix_random_seed(seed: int, include_cuda: bool = True) -> torch.Generator:
    """Seeds Python, numpy and torch, and asks cuDNN for repeatable kernels. Returns torch's generator."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    generator = torch.manual_seed(seed)
    if include_cuda and torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
    return generator


def seed_model(*parts: int) -> None:
    """Seeds torch's global generator, from which dropout and drop path draw; processes get different seeds.

    Args:
        parts: the run's seed and, for instance, the epoch.
    """
    process = (rank(),) if rank() else ()
    torch.manual_seed(derive_seed(*parts, "model", *process))


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from a run's seed and the purpose of the draws, such as (seed, epoch, index, "crop")."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
