"""Optimizer and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from libs.core.types import OptConfig


def make_optimizer(model: nn.Module, opt: OptConfig) -> torch.optim.Optimizer:
    """AdamW or SGD.

    Weight decay applies to the weights of convolutions and linear layers only. Each parameter group is sorted by full
    name, as in ActionFormer, so that ActionFormer's optimizer states can be loaded.

    Raises:
        ValueError: `opt.type` is unknown.
    """
    decay: dict[str, nn.Parameter] = {}
    no_decay: dict[str, nn.Parameter] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            full_name = f"{module_name}.{name}" if module_name else name
            is_weight = name == "weight" and isinstance(module, (nn.Conv1d, nn.Linear))
            (decay if is_weight else no_decay)[full_name] = parameter
    groups = [
        {"params": [decay[name] for name in sorted(decay)], "weight_decay": opt["weight_decay"]},
        {"params": [no_decay[name] for name in sorted(no_decay)], "weight_decay": 0.0},
    ]
    if opt["type"] == "SGD":
        return torch.optim.SGD(groups, lr=opt["learning_rate"], momentum=opt["momentum"])
    if opt["type"] == "AdamW":
        return torch.optim.AdamW(groups, lr=opt["learning_rate"], fused=True)
    raise ValueError(f"opt.type: '{opt['type']}' is neither 'AdamW' nor 'SGD'")


class IterationLR(LRScheduler):
    """Learning rate as a function of the iteration: linear warm-up, then cosine or multistep.

    Args:
        warmup_epochs, max_epochs: numbers of iterations, named as in ActionFormer's checkpoints.
        milestones: iterations, counted from the end of the warm-up, at which the rate is multiplied by `gamma`; None:
            cosine.
        eta_min: final rate of the cosine.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        warmup_epochs: int,
        max_epochs: int,
        milestones: list[int] | None = None,
        gamma: float = 0.1,
        eta_min: float = 1e-8,
    ) -> None:
        self.warmup_epochs, self.max_epochs = warmup_epochs, max_epochs
        self.milestones, self.gamma, self.eta_min = milestones, gamma, eta_min
        super().__init__(optimizer)

    def factor_at(self, iteration: int, base: float | Tensor) -> float | Tensor:
        """Learning rate at an iteration for the base rate `base`."""
        if iteration < self.warmup_epochs:
            return base * iteration / max(self.warmup_epochs - 1, 1)
        step = iteration - self.warmup_epochs
        if self.milestones is not None:
            return base * self.gamma ** sum(step >= milestone for milestone in self.milestones)
        span = max(self.max_epochs - self.warmup_epochs, 1)
        return self.eta_min + 0.5 * (base - self.eta_min) * (1 + math.cos(math.pi * min(step / span, 1.0)))

    def get_lr(self) -> list[float | Tensor]:
        return [self.factor_at(self.last_epoch, base) for base in self.base_lrs]

    def set_rate(self, rate: float) -> None:
        """Sets the base learning rate of all parameters, at the present place of the schedule."""
        self.base_lrs = [rate for _ in self.base_lrs]
        self._last_lr = self.get_lr()
        for group, now in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = now

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Reads only `last_epoch` and `base_lrs`, the keys that ActionFormer's checkpoints have too."""
        self.last_epoch = state_dict["last_epoch"]
        self.base_lrs = list(state_dict["base_lrs"])
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


def total_epochs(opt: OptConfig) -> int:
    """Number of epochs of a run: `early_stop_epochs`, or else `epochs` plus the warm-up."""
    return opt.get("early_stop_epochs") or opt["epochs"] + (opt["warmup_epochs"] if opt["warmup"] else 0)


def make_scheduler(
    optimizer: torch.optim.Optimizer, opt: OptConfig, num_iters_per_epoch: int, last_epoch: int = -1
) -> IterationLR:
    """Learning-rate schedule of the `opt` section. As in ActionFormer, the cosine ends at 1e-8; without warm-up,
    at 0.

    Raises:
        ValueError: `last_epoch` is given, or `opt.schedule_type` is unknown.
    """
    if last_epoch != -1:
        raise ValueError("make_scheduler: to resume, load the scheduler's state dict instead of passing last_epoch")
    if opt["schedule_type"] not in ("cosine", "multistep"):
        raise ValueError(f"opt.schedule_type: '{opt['schedule_type']}' is neither 'cosine' nor 'multistep'")
    warmup = opt["warmup_epochs"] if opt["warmup"] else 0
    multistep = opt["schedule_type"] == "multistep"
    return IterationLR(
        optimizer,
        warmup_epochs=warmup * num_iters_per_epoch,
        max_epochs=(opt["epochs"] + warmup) * num_iters_per_epoch,
        milestones=[step * num_iters_per_epoch for step in opt["schedule_steps"]] if multistep else None,
        gamma=opt.get("schedule_gamma", 0.1),  # missing in ActionFormer's own cosine configurations
        eta_min=1e-8 if opt["warmup"] else 0.0,
    )
