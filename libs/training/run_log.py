"""Logs of a training run: TensorBoard, `metrics.jsonl` and `log.txt`."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from libs.core.config import DERIVED_SECTIONS
from libs.core.types import Config


def write_hyper_parameters(folder: Path, config: Config, name: str, metrics: dict[str, float], *, step: int) -> None:
    """Adds an entry to TensorBoard's table of hyper-parameters, in `logs/<name>`. Does nothing without a `logs` folder.

    Args:
        config: values of the hyper-parameters.
        metrics: results at `step` (epoch or iteration).
    """
    logs = folder / "logs"
    if not logs.is_dir():
        return
    shutil.rmtree(logs / name, ignore_errors=True)  # the entry of an earlier evaluation
    with SummaryWriter(str(logs / name)) as writer:
        for summary in hparams(_flatten(config), metrics):
            writer.file_writer.add_summary(summary)
        for metric, value in metrics.items():
            writer.add_scalar(metric, value, step)


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Nested dict -> flat dict with dotted keys; other values than numbers and strings become strings."""
    flat: dict[str, bool | int | float | str] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            if not (prefix == "model." and key in DERIVED_SECTIONS):
                flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return flat


class RunLog:
    """Opens the logs of a training run: TensorBoard, `metrics.jsonl` and `log.txt`.

    Args:
        key: unit of the records, "epoch" or "iteration".
        start: epoch or iteration from which the run continues; later records of an interrupted run are deleted.
        purge_step: TensorBoard hides earlier entries from this step on.
    """

    def __init__(self, folder: Path, *, key: str, start: int, purge_step: int) -> None:
        self.writer = SummaryWriter(str(folder / "logs"), purge_step=purge_step)
        self.metrics_path = folder / "metrics.jsonl"
        lines = self.metrics_path.read_text(encoding="utf-8").splitlines() if self.metrics_path.is_file() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)[key] <= start]
        self.metrics_path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self.handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self.loggers = [logging.getLogger(name) for name in ("libs", "actionformer_nt")]

    def __enter__(self) -> RunLog:
        self.old_levels = [package.level for package in self.loggers]
        for package in self.loggers:
            package.addHandler(self.handler)
            # `log.txt` has INFO lines even with --quiet
            package.setLevel(min(package.getEffectiveLevel(), logging.INFO))
        return self

    def __exit__(self, *_: Any) -> None:
        self.writer.close()
        for package, level in zip(self.loggers, self.old_levels, strict=True):
            package.removeHandler(self.handler)
            package.setLevel(level)
        self.handler.close()

    def record(self, values: Mapping[str, object]) -> None:
        """Appends a line to `metrics.jsonl`."""
        with open(self.metrics_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def format_time_left(began: float, done: int, total: int) -> str:
    """Remaining time as hh:mm:ss, if `done` of `total` steps took the time since `began` (`time.perf_counter`)."""
    left = (time.perf_counter() - began) / max(done, 1) * (total - done)
    return time.strftime("%H:%M:%S", time.gmtime(left))
