"""Seeds. Random numbers depend on the run's seed and on their purpose (epoch, video, ...), not on earlier draws."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch
from torch import Tensor

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


def generator_state() -> Tensor:
    """State of torch's global generators, from which dropout and drop path draw: that of the CPU and, if this process
    uses GPUs, those of all GPUs that it sees. uint8, one after another."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    return torch.cat(states)


def set_generator_state(state: Tensor) -> None:
    """Restores a result of `generator_state`; of another number of GPUs, the state of the CPU alone."""
    size = len(torch.get_rng_state())
    torch.set_rng_state(state[:size])
    if torch.cuda.is_initialized():
        own = torch.cuda.get_rng_state_all()
        if len(state) - size == sum(len(part) for part in own):
            torch.cuda.set_rng_state_all(list(state[size:].split([len(part) for part in own])))


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from a run's seed and the purpose of the draws, such as (seed, epoch, index, "crop")."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
