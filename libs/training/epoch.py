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

from libs.core.distributed import gather, in_any, rank, sum_gradients, total, world_size
from libs.core.interrupts import StopRequest

from .optim import ModelEma

logger = logging.getLogger(__name__)

T = TypeVar("T")


class PartOfEpoch(NamedTuple):
    """What was done of an epoch in which training was stopped."""

    iterations: int
    length: int  # iterations of the whole epoch
    totals: dict[str, float]  # sums of the losses
    rng_states: list[Tensor]  # of torch, one a process


class StoppedInEpoch(Exception):  # noqa: N818 (not an error)
    """Somebody has asked training to stop; `part` is what was done."""

    def __init__(self, part: PartOfEpoch) -> None:
        super().__init__(part.iterations)
        self.part = part


class NonFiniteLossError(RuntimeError):
    """The loss or the gradient of a batch is NaN or infinite."""


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
    """Trains on every batch of `train_loader` once; the schedule advances with every iteration.

    Args:
        curr_epoch: from 0; decides the order and the crops of a seeded loader.
        clip_grad_l2norm: bound of the gradient's norm; <= 0: none.
        print_freq: iterations from one log line and TensorBoard entry to the next.
        accumulate: equal parts of a batch that go through the network one after another; their gradients are averaged.
            The loss normaliser then follows the parts.
        scaler: of the loss, for float16; where a gradient overflows, it skips the step and lowers the scale.
        progress: show a bar (on a terminal).
        part: what was done of this epoch before an interruption; needs a loader of `make_data_loader`.
        stop: asked after every iteration.

    Returns:
        Mean of every loss over the epoch.

    Raises:
        StoppedInEpoch: `stop` said so before the last iteration.
        NonFiniteLossError: names the iteration, the losses and the videos of the batch.
    """
    first = done = 0 if part is None else part.iterations
    if set_epoch := getattr(train_loader.batch_sampler, "set_epoch", None):
        set_epoch(curr_epoch, **({"start": done} if done else {}))
    model.train()
    scaler = torch.amp.GradScaler(enabled=False) if scaler is None else scaler
    num_iters = len(train_loader)
    totals: dict[str, float] = {} if part is None else dict(part.totals)
    if part is not None and len(part.rng_states) == world_size():
        torch.set_rng_state(part.rng_states[rank()])
    start = time.perf_counter()
    bar = tqdm(
        until_stopped(train_loader, stop), total=num_iters, initial=done, desc=f"epoch {curr_epoch + 1}", unit="batch",
        leave=False, disable=None if progress else True,
    )  # fmt: skip
    stopped = False
    for i, video_list in enumerate(bar, start=done):
        optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for k in range(accumulate):
            losses = model(video_list[k::accumulate])
            scaler.scale(losses["final_loss"] / accumulate).backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + float(loss.detach()) / accumulate
        sum_gradients(model.parameters())
        scaler.unscale_(optimizer)
        values = total(sums)
        bound = clip_grad_l2norm if clip_grad_l2norm > 0 else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), bound)
        overflow = {} if scaler.is_enabled() else {"gradient norm": float(norm)}
        check_finite(values | overflow, video_list, curr_epoch, i)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        if model_ema is not None:
            model_ema.update(model)

        for name, value in values.items():
            totals[name] = totals.get(name, 0.0) + value
        bar.set_postfix(loss=f"{values['final_loss']:.3f}", refresh=False)
        if i and print_freq > 0 and i % print_freq == 0:
            step = curr_epoch * num_iters + i
            terms = {name: value for name, value in values.items() if name != "final_loss"}
            if tb_writer is not None:
                tb_writer.add_scalar("train/learning_rate", scheduler.get_last_lr()[0], step)
                tb_writer.add_scalars("train/all_losses", terms, step)
                tb_writer.add_scalar("train/final_loss", values["final_loss"], step)
            logger.debug(
                "epoch %03d [%d/%d] %.3f s/iteration, loss %.4f (%.4f) %s",
                curr_epoch, i, num_iters, (time.perf_counter() - start) / (i + 1 - first),
                values["final_loss"], totals["final_loss"] / (i + 1),
                " ".join(f"{name} {value:.4f} ({totals[name] / (i + 1):.4f})" for name, value in terms.items()),
            )  # fmt: skip
        done = i + 1
        if stop is not None and done < num_iters and (stopped := in_any(bool(stop))):
            break
    if (stopped or stop) and done < num_iters:
        raise StoppedInEpoch(PartOfEpoch(done, num_iters, totals, gather(torch.get_rng_state())))
    return {name: total / num_iters for name, total in totals.items()}


def until_stopped(loader: Iterable[T], stop: StopRequest | None) -> Iterator[T]:
    """The batches of a loader. If a stop is asked for while one is awaited, the loader's workers may be gone with the
    same signal: then this is the end instead of an error, unless other processes wait for this one."""
    batches = iter(loader)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError:
            if stop and world_size() == 1:
                return
            raise
        yield batch


def check_finite(values: dict[str, float], video_list: list[dict[str, Any]], epoch: int, iteration: int) -> None:
    """Raises `NonFiniteLossError` where a value is NaN or infinite; epoch and iteration count from 0."""
    if all(value - value == 0 for value in values.values()):  # inf - inf and nan - nan are nan
        return
    videos = [video["video_id"] for video in video_list]
    raise NonFiniteLossError(
        f"loss or gradient is not finite in epoch {epoch + 1}, iteration {iteration}: {values}; "
        f"videos of the batch: {videos}. "
        f"Look at their features and segments, or try a lower opt.learning_rate or train_cfg.clip_grad_l2norm: 1.0"
    )
