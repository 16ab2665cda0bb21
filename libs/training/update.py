"""One update of a network's weights: the same for supervised and for semi-supervised training."""

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
    """Backward pass, gradients of all processes, clipping, optimizer step, schedule, averaged weights.

    Args:
        ema: averaged weights that follow; None: there are none.
        scaler: of the loss, for float16; where a gradient overflows, it skips the step and lowers the scale. None: the
            loss is not scaled.
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
        self.model: Any = model  # a detector: it also has `device` and `loss_normalizer`
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
        """Learns from the parts of a batch, one after another; their gradients are averaged.

        Args:
            losses_of: the losses of a part, `final_loss` among them, which is differentiated.
            videos, epoch, iteration: of the batch, for error messages; epoch and iteration count from 0.

        Returns:
            Mean of every loss over the parts, of all processes together.

        Raises:
            NonFiniteLossError: names the iteration, the losses and the videos. The weights are as before.
        """
        self.optimizer.zero_grad(set_to_none=True)
        own: dict[str, float] = {}
        for part in parts:
            losses = losses_of(part)
            self.scaler.scale(losses["final_loss"] / len(parts)).backward()
            for name, loss in losses.items():
                own[name] = own.get(name, 0.0) + float(loss.detach()) / len(parts)
        distributed.sum_gradients(self.model.parameters())
        self.scaler.unscale_(self.optimizer)
        values = distributed.total(own)
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
    """Raises `NonFiniteLossError` where a value is NaN or infinite; epoch and iteration count from 0."""
    if all(value - value == 0 for value in values.values()):  # inf - inf and nan - nan are nan
        return
    raise NonFiniteLossError(
        f"loss or gradient is not finite in epoch {epoch + 1}, iteration {iteration}: {values}; "
        f"videos of the batch: {[video['video_id'] for video in videos]}. "
        f"Look at their features and segments, or try a lower opt.learning_rate or train_cfg.clip_grad_l2norm: 1.0"
    )
