"""Exponential moving average of the weights."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import nn

logger = logging.getLogger(__name__)

EMA_TRAP = 0.05  # a run warns if the initial weights make up more than this share of the average


class ModelEma(nn.Module):
    """Exponential moving average (EMA) of every tensor in a model's state dict. `module` is the averaged model.

    Args:
        decay: weight of the old average in an update.
        ramp: at update t = 0, 1, ... use decay min(decay, (1 + t) / (10 + t)). Without it, the initial weights still
            make up 70 % of the average after 350 updates at decay 0.999.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999, device: Any = None, *, ramp: bool = False) -> None:
        super().__init__()
        self.module = copy.deepcopy(model).eval()
        for parameter in self.module.parameters():
            parameter.requires_grad_(False)
        self.decay, self.ramp, self.num_updates = decay, ramp, 0
        if device is not None:
            self.module.to(device)

    def current_decay(self) -> float:
        """Decay of the next update."""
        ramped = (1 + self.num_updates) / (10 + self.num_updates)
        return min(self.decay, ramped) if self.ramp else self.decay

    def initial_weight(self, num_updates: int | None = None) -> float:
        """Weight of the initial weights in the average after `num_updates` (default: the updates made so far)."""
        count = self.num_updates if num_updates is None else num_updates
        return 0.0 if self.ramp else self.decay**count

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """average = decay * average + (1 - decay) * model; integer tensors are copied."""
        decay = self.current_decay()
        averages, values = [], []
        pairs = zip(self.module.state_dict().values(), model.state_dict().values(), strict=True)
        for average, value in pairs:
            if average.is_floating_point():
                averages.append(average)
                values.append(value.to(average.device))
            else:
                average.copy_(value)
        torch._foreach_mul_(averages, decay)
        torch._foreach_add_(averages, values, alpha=1.0 - decay)
        self.num_updates += 1

    @torch.no_grad()
    def set(self, model: nn.Module) -> None:
        """Sets the average to the weights of `model` and restarts the count of updates."""
        self.module.load_state_dict(model.state_dict())
        self.num_updates = 0


def warn_about_ema(ema: ModelEma) -> None:
    """Warns if the average still consists of the initial weights to a large part."""
    share = ema.initial_weight()
    if share > EMA_TRAP:
        logger.warning(
            "%.0f %% of the averaged (EMA) weights are still the random initialisation after %d updates at decay %g; "
            "evaluate with --weights raw, or train with train_cfg.ema_ramp: true",
            100 * share, ema.num_updates, ema.decay,
        )  # fmt: skip
