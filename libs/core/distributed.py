"""Several processes that train and evaluate together, started by torchrun: one device each, on one machine or more.

Every function is the identity in a process of its own. `loader.batch_size` is that of all processes together; each
takes every n-th video of a batch. Losses are sums over a normaliser that all share: the gradients of a batch are the
sum of those of its parts, and n processes do what one does with the same batch (dropout and drop path draw their own
numbers in each). torch's DistributedDataParallel is not used: it watches `forward` alone, and self-training calls the
network's steps one by one.
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

_scratch: list[tempfile.TemporaryDirectory] = []  # lives as long as the process


def start() -> None:
    """Joins the other processes. All but the main one (rank 0) fall silent, apart from warnings and errors.

    Raises:
        ValueError: more processes on this machine than GPUs, where there are GPUs.
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
    # An optimizer imports torch._dynamo; done after the next line, this keeps the group alive when it is destroyed. Its
    # threads then ask for the interpreter's lock while that shuts down, and the process aborts.
    importlib.import_module("torch._dynamo")
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    atexit.register(dist.destroy_process_group)
    if not is_main():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)
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
    """This process' part of what all do together."""
    return items[rank() :: world_size()]


def own_folder(folder: Path) -> Path:
    """`folder` in the main process; in the others one that is thrown away."""
    if is_main():
        return folder
    _scratch.append(tempfile.TemporaryDirectory())
    return Path(_scratch[-1].name)


def from_main(value: T) -> T:
    """The main process' value, in all."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: T) -> list[T]:
    """The values of all processes, by rank."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def gather_shares(items: Sequence[T]) -> list[T]:
    """What all processes made of their `share` of some items, in the order of these."""
    if world_size() == 1:
        return list(items)
    parts = gather(list(items))
    return [parts[i % len(parts)][i // len(parts)] for i in range(sum(map(len, parts)))]


def total(values: dict[str, float]) -> dict[str, float]:
    """Sums over the processes, of the same keys in all."""
    if world_size() == 1:
        return values
    sums = torch.tensor([float(value) for value in values.values()], dtype=torch.float64)
    dist.all_reduce(sums)
    return dict(zip(values, sums.tolist(), strict=True))


def total_count(count: int) -> int:
    return int(total({"": count})[""])


def in_any(flag: bool) -> bool:
    """Whether it is true in any process: all of them stop together, or none."""
    return flag if world_size() == 1 else total({"": float(flag)})[""] > 0


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Gradients summed over the processes; one that a process lacks counts as zero."""
    if world_size() == 1:
        return
    used = [p for p in parameters if p.requires_grad]
    flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in used])
    dist.all_reduce(flat)
    for p, grad in zip(used, flat.split([p.numel() for p in used]), strict=True):
        p.grad = grad.view_as(p)


def parts_of_mean(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Losses that are means, as parts of the sum over the processes: each process weighs the same."""
    return {name: loss / world_size() for name, loss in losses.items()}
