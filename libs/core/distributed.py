"""Data-parallel training and evaluation under torchrun: one process per device, on one machine or several.

In a run of one process these functions change nothing. `loader.batch_size` counts the videos of all processes together;
process r of n takes the videos r, r + n, ... of each batch. A loss is a sum over points divided by a normaliser that
all processes share, so the summed gradients are the gradient of the whole batch: n processes make the same update as
one, except that each draws its own dropout and drop path. torch's DistributedDataParallel is not used, because it only
hooks into `forward` while self-training calls the steps below `forward` directly.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")

_scratch: list[tempfile.TemporaryDirectory] = []  # deleted when the process ends


def start() -> None:
    """Joins the process group. Processes other than the main one (rank 0) print nothing and log warnings only.

    Raises:
        ValueError: this machine has GPUs, but fewer than processes.
    """
    if dist.is_initialized():
        return
    if torch.cuda.is_available():
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise ValueError(
                f"torchrun --nproc-per-node={os.environ['LOCAL_WORLD_SIZE']}: this machine has {gpus} GPUs"
            )
        torch.cuda.set_device(local)
    # Optimizers import torch._dynamo. An import after `init_process_group` keeps the group alive beyond
    # `destroy_process_group`; its threads then request the GIL during interpreter shutdown, and the process aborts.
    importlib.import_module("torch._dynamo")
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    atexit.register(dist.destroy_process_group)
    if not is_main():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (stays open until the process ends)
        for name in ("libs", "actionformer_nt"):
            for handler in logging.getLogger(name).handlers:
                handler.setLevel(logging.WARNING)


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    return rank() == 0


def share(items: Sequence[T]) -> Sequence[T]:
    """Every n-th item from this process' rank on, for n processes."""
    return items[rank() :: world_size()]


def own_folder(folder: Path) -> Path:
    """`folder` in the main process, a temporary folder in the others."""
    if is_main():
        return folder
    _scratch.append(tempfile.TemporaryDirectory())
    return Path(_scratch[-1].name)


def from_main(value: T) -> T:
    """Returns the main process' value in every process."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: T) -> list[T]:
    """The values of all processes, in the order of their ranks."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather_shares(items: Sequence[T]) -> list[T]:
    """Merges per-item results, computed by each process for its `share` of a list, into the order of that list."""
    if world_size() == 1:
        return list(items)
    parts = gather(list(items))
    return [parts[i % len(parts)][i // len(parts)] for i in range(sum(map(len, parts)))]


def total(values: dict[str, float]) -> dict[str, float]:
    """Sums every value over the processes. All processes must pass the same keys."""
    if world_size() == 1:
        return values
    sums = torch.tensor([float(value) for value in values.values()], dtype=torch.float64)
    dist.all_reduce(sums)
    return dict(zip(values, sums.tolist(), strict=True))


def total_count(count: int) -> int:
    return int(total({"": count})[""])


def in_any(flag: bool) -> bool:
    """Whether `flag` is true in any process. The result is the same in all processes."""
    return flag if world_size() == 1 else total({"": float(flag)})[""] > 0


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces every gradient by its sum over the processes; one that some process has not counts as zero there."""
    if world_size() == 1:
        return
    used = [p for p in parameters if p.requires_grad]
    present = torch.tensor([p.grad is not None for p in used], dtype=torch.uint8, device=used[0].device)
    dist.all_reduce(present, op=dist.ReduceOp.MAX)
    used = [p for p, some in zip(used, present.tolist(), strict=True) if some]
    flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in used])
    dist.all_reduce(flat)
    for p, grad in zip(used, flat.split([p.numel() for p in used]), strict=True):
        p.grad = grad.view_as(p)


def parts_of_mean(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Divides losses by the number of processes, so that their sum over the processes is the mean."""
    return {name: loss / world_size() for name, loss in losses.items()}
