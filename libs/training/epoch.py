"""One epoch of supervised training."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from libs.core import distributed
from libs.core.interrupts import StopRequest
from libs.core.seeding import generator_state, set_generator_state

from .ema import ModelEma
from .update import Updater

logger = logging.getLogger(__name__)

T = TypeVar("T")


class PartOfEpoch(NamedTuple):
    """Progress within an epoch in which training was stopped."""

    iterations: int  # completed ones
    length: int  # iterations of the whole epoch
    totals: dict[str, float]  # sum of each loss over the completed iterations
    rng_states: list[Tensor]  # torch's generators in each process


class StoppedInEpoch(Exception):  # noqa: N818 (not an error)
    """Training was asked to stop within an epoch; `part` is the progress."""

    def __init__(self, part: PartOfEpoch) -> None:
        super().__init__(part.iterations)
        self.part = part


def train_one_epoch(
    train_loader: DataLoader,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    curr_epoch: int,
    model_ema: ModelEma | None = None,
    clip_grad_l2norm: float = -1,
    tb_writer: Any = None,
    print_freq: int = 20,
    *,
    accumulate: int = 1,
    scaler: torch.amp.GradScaler | None = None,
    progress: bool = True,
    part: PartOfEpoch | None = None,
    stop: StopRequest | None = None,
) -> dict[str, float]:
    """`train_epoch` under the signature of ActionFormer's function.

    Args:
        curr_epoch: from 0.
        clip_grad_l2norm: bound of the gradient's norm; <= 0: none.
        tb_writer: TensorBoard's `SummaryWriter`, or None.
        print_freq: iterations from one log line and TensorBoard entry to the next.
        scaler: scales the loss, for float16.
        accumulate, progress, part, stop: see `train_epoch`.

    Returns:
        Mean of every loss over the epoch.
    """
    updater = Updater(model, optimizer, scheduler, ema=model_ema, scaler=scaler, clip_grad_l2norm=clip_grad_l2norm)
    return train_epoch(
        train_loader, updater, curr_epoch, accumulate=accumulate, tb_writer=tb_writer, print_freq=print_freq,
        progress=progress, part=part, stop=stop,
    )  # fmt: skip


def train_epoch(
    loader: DataLoader,
    updater: Updater,
    epoch: int,
    *,
    accumulate: int = 1,
    tb_writer: Any = None,
    print_freq: int = 20,
    progress: bool = True,
    part: PartOfEpoch | None = None,
    stop: StopRequest | None = None,
) -> dict[str, float]:
    """Trains on every batch of `loader` once; the learning rate changes after every iteration.

    Args:
        epoch: from 0; seeds the order and the crops of a loader of `make_data_loader`.
        accumulate: see `train_cfg.accumulate`.
        tb_writer, print_freq: see `train_one_epoch`.
        progress: show a progress bar (on a terminal only).
        part: progress within this epoch before an interruption; needs a loader of `make_data_loader`.
        stop: checked after every iteration.

    Returns:
        Mean of every loss over the epoch.

    Raises:
        StoppedInEpoch: a stop was requested before the last iteration.
        NonFiniteLossError: names the iteration, the losses and the videos of the batch.
    """
    done, length = 0 if part is None else part.iterations, len(loader)
    if set_epoch := getattr(loader.batch_sampler, "set_epoch", None):
        set_epoch(epoch, **({"start": done} if done else {}))
    updater.model.train()
    log = _IterationLog(updater, epoch, length, writer=tb_writer, print_freq=print_freq)
    if part is not None:
        log.totals, log.first = dict(part.totals), done
        if len(part.rng_states) == distributed.world_size():
            set_generator_state(part.rng_states[distributed.rank()])
    bar = tqdm(
        until_stopped(loader, stop), total=length, initial=done, desc=f"epoch {epoch + 1}", unit="batch",
        leave=False, disable=None if progress else True,
    )  # fmt: skip
    stopped = False
    for i, videos in enumerate(bar, start=done):
        parts = [videos[k::accumulate] for k in range(accumulate)]
        losses = updater.update(updater.model, parts, videos=videos, epoch=epoch, iteration=i)
        bar.set_postfix(loss=f"{losses['final_loss']:.3f}", refresh=False)
        log.add(i, losses)
        done = i + 1
        if stop is not None and done < length and (stopped := distributed.in_any(bool(stop))):
            break
    if (stopped or stop) and done < length:
        raise StoppedInEpoch(PartOfEpoch(done, length, log.totals, distributed.gather(generator_state())))
    return {name: total / length for name, total in log.totals.items()}


class _IterationLog:
    """Adds up the losses of an epoch; every `print_freq` iterations writes a log line and TensorBoard scalars."""

    def __init__(self, updater: Updater, epoch: int, length: int, *, writer: Any, print_freq: int) -> None:
        self.updater, self.epoch, self.length, self.writer, self.print_freq = updater, epoch, length, writer, print_freq
        self.totals: dict[str, float] = {}
        self.first = 0  # first iteration of this process in the epoch
        self.began = time.perf_counter()

    def add(self, i: int, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            self.totals[name] = self.totals.get(name, 0.0) + value
        if not i or self.print_freq <= 0 or i % self.print_freq:
            return
        terms = {name: value for name, value in losses.items() if name != "final_loss"}
        if self.writer is not None:
            step = self.epoch * self.length + i
            self.writer.add_scalar("train/learning_rate", self.updater.scheduler.get_last_lr()[0], step)
            self.writer.add_scalars("train/all_losses", terms, step)
            self.writer.add_scalar("train/final_loss", losses["final_loss"], step)
        logger.debug(
            "epoch %03d [%d/%d] %.3f s/iteration, loss %.4f (%.4f) %s",
            self.epoch, i, self.length, (time.perf_counter() - self.began) / (i + 1 - self.first),
            losses["final_loss"], self.totals["final_loss"] / (i + 1),
            " ".join(f"{name} {value:.4f} ({self.totals[name] / (i + 1):.4f})" for name, value in terms.items()),
        )  # fmt: skip


def until_stopped(loader: Iterable[T], stop: StopRequest | None) -> Iterator[T]:
    """Yields the batches of a loader.

    The signal that requests a stop may also kill the loader's workers. In a run of one process their RuntimeError then
    ends the iteration.
    """
    batches = iter(loader)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError:
            if stop and distributed.world_size() == 1:
                return
            raise
        yield batch
