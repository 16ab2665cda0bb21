"""Device of a run, and compilation of its network."""

from __future__ import annotations

import logging
from typing import Any

import torch

from . import distributed
from .types import Config

logger = logging.getLogger(__name__)


def select_device(config: Config) -> torch.device:
    """The device that `devices` names; the CPU, with a warning, if it names a GPU and CUDA is not available.

    With several processes, process i uses GPU LOCAL_RANK.

    Raises:
        ValueError: `devices` names several devices, or an unknown one.
    """
    devices = config["devices"]
    if len(devices) != 1:
        raise ValueError(
            f"devices: {devices}: one process runs on one device; name a single one, such as ['cuda:0'] or ['cpu'], "
            f"and type torchrun --nproc-per-node={len(devices)} tools/train.py ... for {len(devices)} GPUs"
        )
    try:
        device = torch.device(devices[0])
    except RuntimeError:
        raise ValueError(f"devices: '{devices[0]}' is not a device; use 'cpu', 'cuda:0', ...") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        logger.warning("devices: no CUDA GPU here, running on the CPU instead of %s", devices[0])
        return torch.device("cpu")
    if device.type == "cuda" and distributed.world_size() > 1:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def compile_network(model: Any, config: Config) -> None:
    """Compiles `model.network`, for videos of any length, if `train_cfg.compile` is true.

    Call this after `ModelEma` has copied the model, so that the averaged copy stays uncompiled. Parameter names do not
    change.
    """
    if config["train_cfg"]["compile"]:
        model.network = torch.compile(model.network, dynamic=True)
