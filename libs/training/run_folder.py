"""The folder of a run: what it holds, and how it is written.

`config.yaml` (resolved), `classes.json` (class name -> id), `run.json` (an entry per start: seed, commit, command,
versions, data), `log.txt`, `metrics.jsonl` (a record an epoch, or every so many iterations), `logs/` (TensorBoard),
`epoch_NNN.pth.tar` and `last.pth.tar`. An evaluation adds its detections, metrics and table, and `ground_truth.json`; a
semi-supervised run `samples/`; `predict --threshold auto` the thresholds of a checkpoint. `run.lock` is held by the
process that trains; the system frees it when that process ends, however it ends.
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
GROUND_TRUTH = "ground_truth.json"  # of the videos that an evaluation looked at, an annotation file
LOCK = "run.lock"
SAMPLES = "samples"  # folder of what a semi-supervised run samples on its way


def folder_of_run(config: Config, config_path: str | Path, output: str | None) -> Path:
    """output_folder / <name of the config file>_<output, or the time>."""
    name = output or time.strftime("%Y-%m-%d_%H-%M-%S")
    return Path(config["output_folder"]) / f"{Path(config_path).stem}_{name}"


def resume_point(path: str | Path) -> Path:
    """The checkpoint to go on from: a file itself, or the newest in a run folder."""
    last = Path(path) / LAST
    return last if last.is_file() else find_checkpoint(path)


def check_folder(folder: str | Path, *, resume: str | Path | None = None, overwrite: bool = False) -> None:
    """Whether a run may use this folder. Nothing is made yet: a mistake that shows later leaves no empty folder.

    Raises:
        ValueError: it holds a run already; OSError: it cannot be written (names it).
    """
    folder = Path(folder)
    check_writable(folder)
    if resume is None and not overwrite and list(folder.glob("*.pth.tar")):
        raise ValueError(
            f"{folder} already holds a run: go on with --resume {folder}, choose another --output, or --overwrite it"
        )


def check_writable(folder: Path) -> None:
    """Raises OSError where a folder, or the nearest one above it that exists, cannot be written."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OSError(f"output folder {folder} cannot be written: {error.strerror}") from None


def results_folder(checkpoint: Path) -> Path:
    """Where what is made with a checkpoint file goes: beside it or, where that folder is read-only, into one of its
    name below the current folder, with a warning."""
    try:
        check_writable(checkpoint.parent)
        return checkpoint.parent
    except OSError as error:
        instead = unwritable_instead(checkpoint)
        check_writable(instead)
        instead.mkdir(exist_ok=True)
        logger.warning("%s; results go to %s", error, instead)
        return instead


def unwritable_instead(checkpoint: Path) -> Path:
    """The folder that stands in for a read-only one, see `results_folder`."""
    return Path.cwd() / f"{checkpoint.resolve().parent.name}_results"


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
        CLASSES,
        "*" + GROUND_TRUTH,
    )
    for old in [path for name in names for path in folder.glob(name)]:
        old.unlink()
    for name in ("logs", SAMPLES):
        shutil.rmtree(folder / name, ignore_errors=True)


def stem_of_results(checkpoint: Path, weights: str, *, data: str = "", folder: Path | None = None) -> Path:
    """Beginning of the path of everything that is made with a checkpoint.

    Args:
        data: see `name_of_other_data`.
        folder: instead of the checkpoint's, see `results_folder`.
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
    """`config.yaml`, `classes.json` (class name -> id), and `run.json`: a list with an entry for each start of the run.

    Args:
        data: what `describe_data` says of the training data.
        resumed: the folder of the run that goes on; None: a new run, whose classes replace those of one that never came
            to a checkpoint.

    Raises:
        ValueError: the folder is of a run with other classes.
    """
    known = read_label_ids(folder) if resumed is not None and (folder / CLASSES).is_file() else None
    if known is None:
        write_text(folder / CLASSES, json.dumps(label_ids, indent=1) + "\n")
    else:
        check_classes(label_ids, known, what="the training data", source=str(folder / CLASSES))
    path, old = folder / "run.json", folder / CONFIG
    before = old.read_text(encoding="utf-8") if old.is_file() else None
    dump_config(config, old)
    starts = load_json(path) if path.is_file() else []
    if starts and before != old.read_text(encoding="utf-8"):
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
    """Commit of the checkout that this file lies in, with "+changes" where files differ from it."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not some other repository around an installed copy
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
