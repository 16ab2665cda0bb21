"""The run folder: its files, and how they are written.

* `config.yaml` (resolved), `classes.json` (class name -> id), `run.json` (per start: seed, commit, command, versions,
  data), `log.txt`, `metrics.jsonl` (a record per epoch or per `semi_cfg.log_every` iterations), `logs/` (TensorBoard);
* `epoch_NNN.pth.tar` and `last.pth.tar`; a semi-supervised run also writes `burn_in.pth.tar`, `samples/`,
  `pseudo_labels/` and `watch.json`;
* an evaluation adds detections, metrics, a table and `ground_truth.json`, `predict --threshold auto` thresholds.

The training process locks `run.lock`; the operating system releases the lock when the process ends.
"""

from __future__ import annotations

import json
import logging
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from libs.core import dump_config
from libs.core.files import load_json, write_text
from libs.core.types import Config

from .checkpoint import find_checkpoint
from .run_identity import CLASSES, CONFIG, TrainingData, check_classes, data_of_run, read_label_ids, tell_changed_data

logger = logging.getLogger(__name__)

LAST = "last.pth.tar"
BURN_IN = "burn_in.pth.tar"  # of a semi-supervised run
GROUND_TRUTH = "ground_truth.json"  # annotations of the evaluated videos
LOCK = "run.lock"
WATCH = "watch.json"  # comparison of pseudo labels with the labeled videos, of a semi-supervised run
SAMPLES = "samples"  # folder of the snapshots of a semi-supervised run
PSEUDO_LABELS = "pseudo_labels"  # folder of the stored pseudo labels of a semi-supervised run


def folder_of_run(config: Config, config_path: str | Path, output: str | None) -> Path:
    """`output_folder`/<name of the config file>_<`output`, or the current time if None>."""
    name = output or time.strftime("%Y-%m-%d_%H-%M-%S")
    return Path(config["output_folder"]) / f"{Path(config_path).stem}_{name}"


def resume_point(path: str | Path) -> Path:
    """The checkpoint to resume from: `path` if it is a file, else `last.pth.tar` or the newest one of a run folder. A
    run that was killed may have that of the end of its burn-in only."""
    found = [file for name in (LAST, BURN_IN) if (file := Path(path) / name).is_file()]
    return found[0] if found else find_checkpoint(path)


def check_folder(folder: str | Path, *, resume: str | Path | None = None, overwrite: bool = False) -> None:
    """Checks that a run may use this folder, without creating it.

    Raises:
        ValueError: the folder holds a run already, and neither `resume` nor `overwrite` is given.
        OSError: the folder cannot be written; names the folder.
    """
    folder = Path(folder)
    check_writable(folder)
    if resume is None and not overwrite and list(folder.glob("*.pth.tar")):
        raise ValueError(
            f"{folder} already holds a run: go on with --resume {folder}, choose another --output, or --overwrite it"
        )


def check_writable(folder: Path) -> None:
    """Raises OSError if `folder` or, where it does not exist yet, its nearest existing parent cannot be written."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OSError(f"output folder {folder} cannot be written: {error.strerror}") from None


def results_folder(checkpoint: Path) -> Path:
    """Folder for results of a checkpoint: the checkpoint's own or, with a warning, `unwritable_instead` if that is
    read-only.

    Raises:
        OSError: the current folder cannot be written either.
    """
    try:
        check_writable(checkpoint.parent)
        return checkpoint.parent
    except OSError as error:
        substitute = unwritable_instead(checkpoint)
        check_writable(substitute)
        substitute.mkdir(exist_ok=True)
        logger.warning("%s; results go to %s", error, substitute)
        return substitute


def unwritable_instead(checkpoint: Path) -> Path:
    """`<name of the run folder>_results` in the current folder, for results of a checkpoint in a read-only folder."""
    return Path.cwd() / f"{checkpoint.resolve().parent.name}_results"


def clear_folder(folder: Path) -> None:
    """Deletes the files of an earlier run and its evaluations from a run folder."""
    names = (
        "*.pth.tar",
        "*_detections.json",
        "*_metrics.json",
        "*_per_class.csv",
        "*_thresholds.json",
        "metrics.jsonl",
        WATCH,
        "log.txt",
        "run.json",
        CLASSES,
        "*" + GROUND_TRUTH,
    )
    for old in [path for name in names for path in folder.glob(name)]:
        old.unlink()
    for name in ("logs", SAMPLES, PSEUDO_LABELS):
        shutil.rmtree(folder / name, ignore_errors=True)


def stem_of_results(checkpoint: Path, weights: str, *, data: str = "", folder: Path | None = None) -> Path:
    """Common prefix of the paths of all results of a checkpoint.

    Args:
        weights: "ema" or "raw".
        data: see `name_of_other_data`.
        folder: see `results_folder`; None: the checkpoint's folder.
    """
    stem = f"{checkpoint.name.removesuffix('.pth.tar')}_{weights}"
    return (checkpoint.parent if folder is None else folder) / (stem + (f"_{data}" if data else ""))


def write_run_info(
    config: Config,
    folder: Path,
    *,
    label_ids: dict[str, int],
    data: TrainingData | None = None,
    resumed: Path | None = None,
) -> None:
    """Writes `config.yaml` and `classes.json`, and appends an entry for this start to `run.json`.

    Args:
        label_ids: class name -> id.
        data: training data, from `describe_data`.
        resumed: folder of the run to resume; None: a new run, which overwrites `classes.json`.

    Raises:
        ValueError: the run to resume has other classes.
    """
    known = read_label_ids(folder) if resumed is not None and (folder / CLASSES).is_file() else None
    if known is None:
        write_text(folder / CLASSES, json.dumps(label_ids, indent=1) + "\n")
    else:
        check_classes(label_ids, known, what="the training data", source=str(folder / CLASSES))
    path, old = folder / "run.json", folder / CONFIG
    old_text = old.read_text(encoding="utf-8") if old.is_file() else None
    dump_config(config, old)
    starts = load_json(path) if path.is_file() else []
    if starts and old_text != old.read_text(encoding="utf-8"):
        logger.warning("%s: the configuration differs from that of the last start and replaces it", folder)
    if resumed is not None:
        tell_changed_data(data_of_run(resumed), data or {}, resumed)
    info = {
        "command": shlex.join(sys.argv),
        "seed": config["init_rand_seed"],
        "commit": source_commit(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "data": data,
    }
    write_text(path, json.dumps([*starts, info], indent=2) + "\n")


def source_commit() -> str | None:
    """Git commit of this source tree, with "+changes" if tracked files differ; None outside a git checkout."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # fails for an installed copy inside another repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
