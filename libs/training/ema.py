"""Exponential moving average of the weights."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import nn

logger = logging.getLogger(__name__)

EMA_TRAP = 0.05  # share of the initial weights in the average above which a run warns


class ModelEma(nn.Module):
    """Exponential moving average of every tensor of a model's state dict, in `module`.

    Args:
        decay: weight of the average in an update.
        ramp: use min(decay, (1 + t) / (10 + t)) at update t, from 0. Without it the average starts as a copy of
            the initial weights, which at decay .999 still make up 70 % of it after 350 updates.
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
        """The average's weight in the next update."""
        ramped = (1 + self.num_updates) / (10 + self.num_updates)
        return min(self.decay, ramped) if self.ramp else self.decay

    def initial_weight(self, num_updates: int | None = None) -> float:
        """Share of the initial weights that is left in the average after `num_updates` (default: those made)."""
        count = self.num_updates if num_updates is None else num_updates
        return 0.0 if self.ramp else self.decay**count

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average towards `model`; tensors of integers are copied."""
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
        """Restarts the average from `model`."""
        self.module.load_state_dict(model.state_dict())
        self.num_updates = 0


def warn_about_ema(ema: ModelEma) -> None:
    share = ema.initial_weight()
    if share > EMA_TRAP:
        logger.warning(
            "%.0f %% of the averaged (EMA) weights are still the random initialisation after %d updates at decay %g; "
            "evaluate with --weights raw, or train with train_cfg.ema_ramp: true",
            100 * share, ema.num_updates, ema.decay,
        )  # fmt: skip
