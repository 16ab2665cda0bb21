"""Shared by the benchmarks of the network: workers of both packages, lengths of real videos, and the count of
operations."""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from peer import PEER, ROOT, peer_python

CONFIG = ROOT / "configs" / "thumos_i3d.yaml"
OUT = ROOT / "docs" / "benchmarks"
NAMES = {"peer": PEER, "ours": "this project"}


class Worker:
    """A process with the model of one side ("ours" or "peer")."""

    def __init__(self, side: str, *, threads: int, config: Path = CONFIG) -> None:
        python, package = (sys.executable, "libs") if side == "ours" else (str(peer_python()), "actionformer")
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT) if side == "ours" else ""}
        command = [python, str(ROOT / "benchmarks" / "model_worker.py"), package, str(config), str(threads)]
        self.process = subprocess.Popen(
            command, env=environment, cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        self.jobs, self.results = self.process.stdin, self.process.stdout
        self._read("ready")

    def _read(self, expected: str | None = None) -> str:
        line = self.results.readline().strip()
        if not line or (expected and line != expected):
            raise RuntimeError(f"the worker {self.process.args!r} ended or said '{line}'")
        return line

    def run(self, what: str, lengths: list[int]) -> dict[str, Any]:
        """`what`: "train", "infer" or "peak". Seconds are of the process on all its cores."""
        self.jobs.write(json.dumps({"what": what, "lengths": lengths}) + "\n")
        self.jobs.flush()
        result: dict[str, Any] = json.loads(self._read())
        return result

    def close(self) -> None:
        self.jobs.close()
        self.process.wait()


def read_lengths(path: str, split: str) -> list[int]:
    """Number of steps of each "test" or "validation" video."""
    return [steps for name, steps in sorted(json.loads(Path(path).read_text()).items()) if split in name]


def sample(lengths: list[int], count: int) -> list[int]:
    return random.Random(0).sample(lengths, min(count, len(lengths)))


def network_operations(steps: int) -> float:
    """Floating-point operations of the network of `thumos_i3d.yaml` on `steps` steps, without padding, with direct
    convolutions: embedding, 2 + 5 blocks (12 matrices of 512 x 512 per step, 3 convolutions per channel, a window of
    19), and two heads on all levels."""
    d, levels = 512, sum(2.0**-level for level in range(6))
    embedding = 3 * 2048 * d + 3 * d * d
    blocks = (1 + levels) * (12 * d * d + 3 * 3 * d + 2 * 19 * d)
    heads = levels * (4 * 3 * d * d + 3 * d * 22)
    return 2.0 * steps * (embedding + blocks + heads)


def peak_rate(worker: Worker) -> float:
    """Operations per second of a large matrix product, the best of three."""
    return max(20 * 2 * 2048**3 / worker.run("peak", [])["seconds"] for _ in range(3))


def ratio_text(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def machine(threads: int) -> str:
    import torch

    name = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}, {threads} thread(s), torch {torch.__version__}"


def write(name: str, lines: list[str], record: dict[str, Any]) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.md").write_text("\n".join([*lines, ""]))
    (OUT / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    print("\n".join(lines))
