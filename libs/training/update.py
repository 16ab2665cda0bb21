"""One update of a network's weights, for supervised and semi-supervised training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from libs.core import distributed
from libs.datasets.video import VideoItem

from .ema import ModelEma

Part = TypeVar("Part")


class NonFiniteLossError(RuntimeError):
    """The loss or the gradient of a batch is NaN or infinite."""


class Updater:
    """Backward pass, sum of gradients over processes, clipping, optimizer step, schedule and EMA update.

    Args:
        model: a detector.
        scheduler: learning-rate schedule; `step()` is called once per update.
        ema: averaged weights to update, or None.
        scaler: gradient scaler for fp16; if a gradient overflows, the scaler skips the optimizer step and lowers the
            scale. None: the loss is not scaled.
        clip_grad_l2norm: bound of the gradient's norm; <= 0: none.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        *,
        ema: ModelEma | None = None,
        scaler: torch.amp.GradScaler | None = None,
        clip_grad_l2norm: float = -1,
    ) -> None:
        self.model: Any = model  # a detector also has `device` and `loss_normalizer`
        self.optimizer, self.scheduler, self.ema = optimizer, scheduler, ema
        self.scaler = torch.amp.GradScaler(enabled=False) if scaler is None else scaler
        self.bound = clip_grad_l2norm if clip_grad_l2norm > 0 else float("inf")

    def update(
        self,
        losses_of: Callable[[Part], dict[str, Tensor]],
        parts: Sequence[Part],
        *,
        videos: Sequence[VideoItem],
        epoch: int,
        iteration: int,
    ) -> dict[str, float]:
        """Makes one update from the parts of a batch, whose gradients are averaged.

        Args:
            losses_of: part -> scalar losses by name; `final_loss` is differentiated.
            videos, epoch, iteration: for error messages; epoch and iteration count from 0.

        Returns:
            Every loss: mean over the parts, sum over the processes.

        Raises:
            NonFiniteLossError: names the iteration, the losses and the videos. The weights have not changed.
        """
        self.optimizer.zero_grad(set_to_none=True)
        process_values: dict[str, float] = {}
        for part in parts:
            losses = losses_of(part)
            self.scaler.scale(losses["final_loss"] / len(parts)).backward()
            for name, loss in losses.items():
                process_values[name] = process_values.get(name, 0.0) + float(loss.detach()) / len(parts)
        distributed.sum_gradients(self.model.parameters())
        self.scaler.unscale_(self.optimizer)
        values = distributed.total(process_values)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.bound)
        overflow = {} if self.scaler.is_enabled() else {"gradient norm": float(norm)}
        check_finite(values | overflow, videos, epoch, iteration)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        if self.ema is not None:
            self.ema.update(self.model)
        return values


def check_finite(values: dict[str, float], videos: Sequence[VideoItem], epoch: int, iteration: int) -> None:
    """Raises `NonFiniteLossError` if a value is NaN or infinite; epoch and iteration count from 0."""
    if all(value - value == 0 for value in values.values()):  # inf - inf and nan - nan are nan
        return
    raise NonFiniteLossError(
        f"loss or gradient is not finite in epoch {epoch + 1}, iteration {iteration}: {values}; "
        f"videos of the batch: {[video['video_id'] for video in videos]}. "
        f"Look at their features and segments, or try a lower opt.learning_rate or train_cfg.clip_grad_l2norm: 1.0"
    )
