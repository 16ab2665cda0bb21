"""Network, averaged weights and optimizer of a training run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from libs.core.device import compile_network
from libs.core.types import Config
from libs.modeling import make_meta_arch

from .ema import ModelEma
from .optim import make_optimizer
from .update import Updater


def build_updater(
    config: Config,
    device: torch.device,
    schedule: Callable[[torch.optim.Optimizer], Any],
    *,
    extra: nn.Module | None = None,
) -> tuple[Updater, ModelEma]:
    """Builds the network of a resolved configuration, and all that updates it.

    Args:
        schedule: makes the learning-rate schedule of an optimizer.
        extra: modules that only training uses, trained and averaged with the network, which has them as
            `method_modules`.

    Returns:
        The updater, which has the network, and the averaged weights.
    """
    train_cfg = config["train_cfg"]
    model = make_meta_arch(config["model_name"], **config["model"])
    if extra is not None:
        model.method_modules = extra
    model.to(device)
    optimizer = make_optimizer(model, config["opt"])
    ema = ModelEma(model, train_cfg["ema_decay"], ramp=train_cfg["ema_ramp"])
    updater = Updater(
        model,
        optimizer,
        schedule(optimizer),
        ema=ema,
        scaler=torch.amp.GradScaler(device.type, enabled=train_cfg["amp"] == "fp16"),
        clip_grad_l2norm=train_cfg["clip_grad_l2norm"],
    )
    compile_network(model, config)  # after the average, whose copy stays uncompiled
    return updater, ema
