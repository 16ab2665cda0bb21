"""Each CPU kernel of our own by itself: the network with all of them against the network with all but this one.

    python benchmarks/cpu_kernels.py [--rounds 9] [--threads 1] [--kernels NAME ...] [--output NAME]

Writes docs/benchmarks/cpu_kernels.{md,json}. `ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2` in the environment make
a processor with AVX-512 do with AVX2. Both networks run in one process, on the same weights, features and random
numbers, one after the other and in alternating order; a round gives one ratio of their CPU times. "training" computes
losses and gradients of two videos, "inference" detections of one video.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import libs  # noqa: F401 # isort: skip (before torch, for how OpenMP's threads wait)
import torch
from model_worker import make_video, seeded_weights
from models import ROOT, machine, write

from libs.core import load_config
from libs.modeling import cpu, heads, make_meta_arch

SIZES = {  # configuration, steps of the videos, runs that are timed together: in training, in inference
    "demo": ("demo.yaml", [576, 640], 4, 8),
    "THUMOS14": ("thumos_i3d.yaml", [1000, 1159], 1, 2),
}
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
PACKED = "packed heads"  # no kernel, but measured here too
NAMES = {
    "winograd": "Winograd's convolution",
    "depthwise": "depthwise convolution by shifts",
    "few_channels": "few channels by one product",
    "block_attention": "block attention, forward only",
    "block_attention_training": "block attention with its own backward",
    PACKED: "heads on the packed pyramid",
}
ONLY = {"block_attention": "inference", "block_attention_training": "training"}  # where else a kernel does not run


def level_by_level(tower: Any, feats: list, masks: list, last: Any) -> list:
    """What `_Tower.run` computes on the packed pyramid."""
    found = []
    for x, mask in zip(feats, masks, strict=True):
        for conv, norm in zip(tower.head, tower.norm, strict=True):
            x = torch.relu(norm(conv(x, mask)[0]))
        found.append(last(x, mask)[0])
    return found


@contextmanager
def without(name: str) -> Iterator[None]:
    """Turns off one kernel, or the packing."""
    if name == PACKED:
        with mock.patch.object(heads._Tower, "run", level_by_level):
            yield
    else:
        with mock.patch.object(cpu, "enabled", cpu.KERNELS - {name}):
            yield


def make_runs(size: str) -> dict[str, Callable[[], None]]:
    """Training and inference of the model of this size, on random features."""
    config_file, lengths, times_training, times_inference = SIZES[size]
    config = load_config(ROOT / "configs" / config_file)
    torch.manual_seed(0)
    model = make_meta_arch(config["model_name"], **config["model"])
    seeded_weights(model)
    videos = [make_video(n, config["dataset"]["input_dim"], i, True) for i, n in enumerate(lengths)]

    def training() -> None:
        model.train()
        torch.manual_seed(0)
        for _ in range(times_training):
            model.zero_grad(set_to_none=True)
            model(videos)["final_loss"].backward()

    def inference() -> None:
        model.eval()
        for _ in range(times_inference):
            model(videos[1:])

    return {"training": training, "inference": inference}


def seconds(run: Callable[[], None]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def ratios_of(run: Callable[[], None], name: str, rounds: int) -> list[float]:
    """CPU time without the kernel over CPU time with it, once a round; above 1 the kernel saves time."""
    found = []
    for i in range(-1, rounds):  # the first round warms up
        times: dict[bool, float] = {}
        for kept in (True, False) if i % 2 else (False, True):
            if kept:
                times[kept] = seconds(run)
            else:
                with without(name):
                    times[kept] = seconds(run)
        found.append(times[False] / times[True])
    return found[1:]


def cell(ratios: list[float]) -> str:
    low, _, high = statistics.quantiles(ratios, n=4)
    return f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kernels", nargs="*", default=list(NAMES), choices=list(NAMES), help="measure only these")
    parser.add_argument("--output", default="cpu_kernels", help="name of the files in docs/benchmarks")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cpu.enabled = cpu.KERNELS

    found: dict[str, dict[str, list[float]]] = {name: {} for name in args.kernels}
    for size in SIZES:
        for what, run in make_runs(size).items():
            for name in args.kernels:
                if ONLY.get(name, what) == what:
                    found[name][f"{size}, {what}"] = ratios_of(run, name, args.rounds)
                    print(name, size, what, cell(found[name][f"{size}, {what}"]), flush=True)
    settings = [f"{name}={os.environ[name]}" for name in LIMITS if name in os.environ]
    environment = f" with `{' '.join(settings)}`" if settings else ""
    columns = [f"{size}, {what}" for size in SIZES for what in ("training", "inference")]
    rows = [
        f"| {NAMES[name]} | " + " | ".join(cell(own[c]) if c in own else "" for c in columns) + " |"
        for name, own in found.items()
    ]
    lines = [
        "# CPU kernels, each by itself", "",
        "CPU time without the kernel over CPU time with it: above 1 the kernel saves time. Median of "
        f"{args.rounds} alternations on the same inputs in one process, with the quartiles; {machine(args.threads)}.",
        "",
        "| kernel | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|", *rows, "",
        f"Made by `{shlex.join(['python', 'benchmarks/cpu_kernels.py', *sys.argv[1:]])}`{environment}.",
    ]  # fmt: skip
    write(args.output, lines, {"machine": machine(args.threads), "ratios": found})


if __name__ == "__main__":
    main()
