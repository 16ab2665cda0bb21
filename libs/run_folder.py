"""The folder of a run: what it holds, and how it is written.

`config.yaml` (resolved), `classes.json` (class name -> id), `run.json` (an entry per start: seed, commit, command,
versions), `log.txt`, `metrics.jsonl` (a record an epoch, or every so many iterations), `logs/` (TensorBoard),
`epoch_NNN.pth.tar` and `last.pth.tar`. An evaluation adds its detections, metrics and table, and `ground_truth.json`; a
semi-supervised run `samples/`; `predict --threshold auto` the thresholds of a checkpoint.
"""

from __future__ import annotations

import json
import logging
import platform
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from libs.core import dump_config
from libs.core.config import DERIVED_SECTIONS
from libs.core.files import load_json
from libs.utils.checkpoint import find_checkpoint

logger = logging.getLogger(__name__)

LAST = "last.pth.tar"
CONFIG = "config.yaml"
CLASSES = "classes.json"
GROUND_TRUTH = "ground_truth.json"  # of the videos that an evaluation looked at, an annotation file
SAMPLES = "samples"  # folder of what a semi-supervised run samples on its way


def folder_of_run(config: dict[str, Any], config_path: str | Path, output: str | None) -> Path:
    """output_folder / <name of the config file>_<output, or the time>."""
    name = output or time.strftime("%Y-%m-%d_%H-%M-%S")
    return Path(config["output_folder"]) / f"{Path(config_path).stem}_{name}"


def resume_point(path: str | Path) -> Path:
    """The checkpoint to go on from: a file itself, or the newest in a run folder."""
    last = Path(path) / LAST
    return last if last.is_file() else find_checkpoint(path)


def prepare_folder(folder: str | Path, *, resume: str | Path | None = None, overwrite: bool = False) -> Path:
    """Makes a run folder that can be written to.

    Raises:
        ValueError: it holds a run already; OSError: it cannot be written (names it).
    """
    folder = Path(folder)
    check_writable(folder)
    if resume is None and not overwrite and list(folder.glob("*.pth.tar")):
        raise ValueError(
            f"{folder} already holds a run: go on with --resume {folder}, choose another --output, or --overwrite it"
        )
    return folder


def check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"output folder {folder} cannot be written: {error.strerror}") from None


def clear_folder(folder: Path) -> None:
    """Removes what an earlier run and its evaluations left in a run folder."""
    names = (
        "*.pth.tar",
        "*_detections.json",
        "*_metrics.json",
        "*_per_class.csv",
        "*_thresholds.json",
        "metrics.jsonl",
        "log.txt",
        "run.json",
        GROUND_TRUTH,
    )
    for old in [path for name in names for path in folder.glob(name)]:
        old.unlink()
    for name in ("logs", SAMPLES):
        shutil.rmtree(folder / name, ignore_errors=True)


def stem_of_results(checkpoint: Path, weights: str) -> Path:
    """Beginning of the path of everything that is made with a checkpoint."""
    return checkpoint.parent / f"{checkpoint.name.removesuffix('.pth.tar')}_{weights}"


def read_classes(folder: Path) -> dict[int, str] | None:
    """Class id -> name of a run; None where the folder does not say."""
    path = folder / CLASSES
    return {i: name for name, i in load_json(path).items()} if path.is_file() else None


def write_run_info(config: dict[str, Any], folder: Path, *, names: dict[int, str]) -> None:
    """`config.yaml`, `classes.json` (from id -> name), and `run.json`: a list with an entry for each start of the
    run."""
    (folder / CLASSES).write_text(json.dumps({name: i for i, name in names.items()}, indent=1) + "\n", encoding="utf-8")
    path, old = folder / "run.json", folder / CONFIG
    before = old.read_text(encoding="utf-8") if old.is_file() else None
    dump_config(config, old)
    starts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    if starts and before != old.read_text(encoding="utf-8"):
        logger.warning("%s: the configuration differs from that of the last start and replaces it", folder)
    info = {
        "command": shlex.join(sys.argv),
        "seed": config["init_rand_seed"],
        "commit": source_commit(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    path.write_text(json.dumps([*starts, info], indent=2) + "\n", encoding="utf-8")


def source_commit() -> str | None:
    """Commit of the checkout that this file lies in, with "+changes" where files differ from it."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not some other repository around an installed copy
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def write_hyper_parameters(folder: Path, config: dict[str, Any], name: str, metrics: dict[str, float]) -> None:
    """An entry in TensorBoard's table of hyper-parameters: the values of a configuration and what came out, under
    `logs/<name>`. A folder that is not a run's stays without."""
    logs = folder / "logs"
    if not logs.is_dir():
        return
    shutil.rmtree(logs / name, ignore_errors=True)  # of an earlier evaluation
    with SummaryWriter(str(logs / name)) as writer:
        for summary in hparams(_flatten(config), metrics):
            writer.file_writer.add_summary(summary)
        for metric, value in metrics.items():
            writer.add_scalar(metric, value)


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys -> numbers and strings."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            if not (prefix == "model." and key in DERIVED_SECTIONS):
                flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return flat


class RunLog:
    """Everything a training run writes while it runs: TensorBoard, `metrics.jsonl` and `log.txt`.

    Args:
        key: what a record counts, "epoch" or "iteration".
        start: records up to here are kept from before an interruption.
        purge_step: TensorBoard's steps from here on are written again.
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
            package.setLevel(min(package.getEffectiveLevel(), logging.INFO))  # the file has every line, quiet or not
        return self

    def __exit__(self, *_: Any) -> None:
        self.writer.close()
        for package, level in zip(self.loggers, self.old_levels, strict=True):
            package.removeHandler(self.handler)
            package.setLevel(level)
        self.handler.close()

    def record(self, values: dict[str, Any]) -> None:
        with open(self.metrics_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def format_time_left(began: float, done: int, total: int) -> str:
    """hh:mm:ss until `total` steps are done, of which `done` took the time since `began` (perf_counter)."""
    left = (time.perf_counter() - began) / max(done, 1) * (total - done)
    return time.strftime("%H:%M:%S", time.gmtime(left))
