"""Loads the compiled kernels as torch operators; a warning says why if they are missing."""

from __future__ import annotations

import importlib
import logging
from functools import lru_cache

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
HOW_TO_BUILD = "build them with `python setup.py build_ext --inplace` or by installing the package with a C++ compiler"


@lru_cache(maxsize=1)
def compiled() -> bool:
    """Whether the CPU kernels can be loaded; warns once if not."""
    try:
        importlib.import_module("libs._C")
    except ImportError as error:
        logger.warning("NMS runs in PyTorch, which is slower: no compiled kernels (%s); %s", error, HOW_TO_BUILD)
        return False
    _register_fakes()
    return True


@lru_cache(maxsize=1)
def compiled_for_cuda() -> bool:
    """Whether the CUDA kernels can be loaded too; warns once if not, provided that torch has CUDA."""
    if not compiled() or torch.version.cuda is None:
        return False
    try:
        importlib.import_module("libs._C_cuda")
    except ImportError as error:
        logger.warning("NMS of CUDA tensors runs on the CPU: no CUDA kernels (%s); %s", error, HOW_TO_BUILD)
        return False
    return True


def _register_fakes() -> None:
    """Registers shapes and dtypes of the operators' results, for tracing."""

    @torch.library.register_fake("actionformer_nt::nms_1d")
    @torch.library.register_fake("actionformer_nt::nms_1d_greedy")
    def fake_nms(
        segs: Tensor, scores: Tensor, group_offsets: Tensor, video_groups: Tensor, *_: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        index = group_offsets.new_empty(scores.shape)
        return index, torch.empty_like(scores), group_offsets.new_empty(video_groups.shape[0] - 1)

    @torch.library.register_fake("actionformer_nt::segment_voting")
    def fake_voting(kept: Tensor, *_: Tensor | float) -> Tensor:
        return torch.empty_like(kept)
