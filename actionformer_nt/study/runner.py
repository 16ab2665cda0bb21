"""Makes the runs of a study that have no result yet, several at a time.

Every run leaves one JSON file under `<output>/results`; a run that has one is not made again, and one that was
interrupted goes on. Runs of one ratio, fold and seed share their burn-in, which the `labeled_only` run makes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from actionformer_nt.methods import LABELED_ONLY, ORACLE
from actionformer_nt.protocol.splits import check_split, read_hidden, read_split
from libs.core import resolve_config
from libs.core.files import load_json
from libs.core.interrupts import StopRequest, stop_requests
from libs.core.lock import locked
from libs.core.threads import available_cores

from .job import Job
from .plan import RawConfig, Run, Study

logger = logging.getLogger(__name__)

POLL = 0.1  # seconds from one look at the runs to the next


class RunsFailedError(RuntimeError):
    """Some runs of a study ended with an error; the others are done."""


def run_missing(study: Study, *, processes: int = 1, diagnostic: bool = False, progress: bool = True) -> None:
    """Runs what has no result yet, `processes` at a time, the cores and the GPUs divided among them. When the study is
    ended, its runs write a checkpoint and end, too; the next call goes on with them.

    Raises:
        RunsFailedError: some runs failed; names them, their last words and their logs. The others are finished first.
        ValueError: another study runs in the output folder.
    """
    if ORACLE in study.file.methods and not diagnostic:
        raise ValueError(f"method {ORACLE} uses hidden labels: run the study with --diagnostic")
    _check_splits(study)
    missing = _to_run(study)
    logger.info("study %s: %d of %d runs are to be made", study.path, len(missing), len(study.runs()))
    if not missing:
        return
    with locked(study.output, "study.lock"), stop_requests() as stop:
        (study.output / "results").mkdir(exist_ok=True)
        _run_all(study, missing, Slots(study, processes), stop, diagnostic=diagnostic, progress=progress)


def _check_splits(study: Study) -> None:
    """Raises ValueError or FileNotFoundError where the annotations or the split lack what some run asks for."""
    for run in study.runs():
        raw = study.config(run)
        split = raw["semi_cfg"]["split"]
        labels = read_split(split["file"], split["ratio"], split["fold"])
        config = resolve_config(raw, source=f"{study.path}, run {run.name}")
        check_split(config, read_hidden(config["dataset"]["json_file"], labels), labels)


def _run_all(
    study: Study, missing: list[Run], slots: Slots, stop: StopRequest, *, diagnostic: bool, progress: bool
) -> None:
    makers = {(run.ratio, run.fold, run.seed) for run in missing if run.method == LABELED_ONLY}
    waiting = [run for run in missing if run.method != LABELED_ONLY and (run.ratio, run.fold, run.seed) in makers]
    ready = [run for run in missing if run not in waiting]
    failed: list[str] = []
    dropped = 0
    going: dict[subprocess.Popen, tuple[Run, int]] = {}
    with tqdm(total=len(missing), unit="run", leave=False, disable=None if progress else True) as bar:
        try:
            while (ready or going) and not stop:
                while ready and slots.free:
                    run, slot = ready.pop(0), slots.free.pop(0)
                    going[_start(study, run, slots.environment(slot), diagnostic)] = run, slot
                time.sleep(POLL)
                for process in [p for p in going if p.poll() is not None]:
                    run, slot = going.pop(process)
                    slots.free.append(slot)
                    bar.update()
                    followers = [r for r in waiting if (r.ratio, r.fold, r.seed) == (run.ratio, run.fold, run.seed)]
                    if run.method == LABELED_ONLY and process.returncode == 0:  # its burn-in is there: finish this fold
                        ready = followers + ready
                    if process.returncode != 0:
                        status = f"exit status {process.returncode}"
                        failed.append(f"{_log_file(study, run)} ({status}): {_last_words(study, run)}")
                        dropped += len(followers) if run.method == LABELED_ONLY else 0
        finally:
            _end(list(going))
    if stop:
        logger.warning("study stopped; the same call goes on")
        raise stop.exception()
    if failed:
        more = f"; {dropped} runs that start from their burn-in were not made" if dropped else ""
        raise RunsFailedError("\n  ".join([f"{len(failed)} of {len(missing)} runs failed{more}", *failed]))


class Slots:
    """What each of the runs at a time may use: its share of the cores and, where the study trains on GPUs, a GPU of its
    own, as far as there are enough.

    Attributes:
        free: numbers of the slots that no run has.
    """

    def __init__(self, study: Study, processes: int) -> None:
        self.free = list(range(processes))
        self.threads = max(available_cores() // processes, 1)
        device = resolve_config(study.raw, source=study.path)["devices"][0]
        self.gpus = visible_gpus() if device.startswith("cuda") and processes > 1 else []

    def environment(self, slot: int) -> dict[str, str]:
        """Variables of a run; what the user has set of the threads holds."""
        threads = str(self.threads)
        environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads} | os.environ
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        return environment


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def _log_file(study: Study, run: Run) -> Path:
    return study.output / "runs" / f"{run.name}.log"


def _last_words(study: Study, run: Run) -> str:
    lines = _log_file(study, run).read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else "no output"


def _to_run(study: Study) -> list[Run]:
    """Runs without a result, and those `labeled_only` ones whose burn-in such a run needs and does not find."""
    missing = [run for run in study.runs() if not _is_done(study, run)]
    need = {
        (run.ratio, run.fold, run.seed)
        for run in missing
        if run.method != LABELED_ONLY and not study.burn_in(run).is_file()
    }
    return [
        run
        for run in study.runs()
        if run in missing or (run.method == LABELED_ONLY and (run.ratio, run.fold, run.seed) in need)
    ]


def _digest(raw: RawConfig) -> str:
    return hashlib.sha256(json.dumps(raw, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _is_done(study: Study, run: Run) -> bool:
    """Raises where a result was made with another configuration."""
    path = study.result_file(run)
    if not path.is_file():
        return False
    if load_json(path)["config_hash"] != _digest(study.config(run)):
        raise ValueError(
            f"{path} was made with another configuration than the study has now: choose another output, or remove it"
        )
    return True


def _start(study: Study, run: Run, environment: dict[str, str], diagnostic: bool) -> subprocess.Popen:
    """Starts a run in a process of its own. Its standard input stays open as long as this process lives, by which it
    notices the end of the study, whatever ends it; the terminal's Ctrl-C does not reach it."""
    job: Job = {
        "config": study.config(run), "folder": str(study.output / "runs" / run.name), "run": asdict(run),
        "result": str(study.result_file(run)), "diagnostic": diagnostic, "hash": _digest(study.config(run)),
        "own_gpu": environment.get("CUDA_VISIBLE_DEVICES") != os.environ.get("CUDA_VISIBLE_DEVICES"),
    }  # fmt: skip
    log = _log_file(study, run)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "actionformer_nt.study.job"],
            stdin=subprocess.PIPE, text=True, encoding="utf-8", env=environment, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps(job) + "\n")
    process.stdin.flush()
    return process


def _end(processes: list[subprocess.Popen]) -> None:
    """Asks runs to write a checkpoint and end, and waits for them."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()
