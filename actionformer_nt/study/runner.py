"""Executes the runs of a study that have no result yet, several at a time.

Every run writes one JSON file under `<output>/results`. Runs with a result are not repeated, interrupted runs are
resumed. Runs of one ratio, fold and seed share their burn-in, which the `labeled_only` run makes.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from actionformer_nt.methods import LABELED_ONLY, needs_truth
from actionformer_nt.protocol.splits import check_split, read_hidden, read_split
from libs.core import resolve_config
from libs.core.interrupts import StopRequest, stop_requests
from libs.core.lock import locked
from libs.core.threads import available_cores

from .job import Job
from .plan import Run, Study, digest, is_stale, label_of

logger = logging.getLogger(__name__)

POLL = 0.1  # seconds between checks of the running processes


class RunsFailedError(RuntimeError):
    """Some runs of a study failed; the other runs are done."""


def run_missing(
    study: Study, *, processes: int = 1, diagnostic: bool = False, progress: bool = True,
    methods: Sequence[str] | None = None, folds: Sequence[int] | None = None,
) -> None:  # fmt: skip
    """Executes the runs without a result, `processes` at a time; these share the cores and the GPUs. If the study is
    stopped, its runs write a checkpoint and end; the next call resumes them.

    Args:
        methods, folds: only runs of these, and the burn-ins that they need; None: of all.

    Raises:
        RunsFailedError: some runs failed; names them, their logs and the last line of each log. All other runs are
            finished first.
        ValueError: another study runs in the output folder; a method or fold is not in the study.
    """
    if not diagnostic and (names := [name for name in study.file.methods if needs_truth(name)]):
        raise ValueError(f"method {names[0]} uses hidden labels: run the study with --diagnostic")
    _check_methods(study)
    _check_splits(study)
    missing = _runs_to_execute(study, _chosen(study, methods, folds))
    logger.info("study %s: %d of %d runs are to be made", study.path, len(missing), len(study.runs()))
    if not missing:
        return
    with locked(study.output, "study.lock"), stop_requests() as stop:
        (study.output / "results").mkdir(exist_ok=True)
        _run_all(study, missing, Slots(study, processes), stop, diagnostic=diagnostic, progress=progress)


def _check_methods(study: Study) -> None:
    """Raises ValueError if the configuration does not fit a method, before any run."""
    from actionformer_nt.self_training.setup import check_config

    for run in {(run.method, str(run.value)): run for run in study.runs()}.values():
        source = f"{study.path}, run {run.name}"
        try:
            check_config(resolve_config(study.config(run), source=source), diagnostic=True)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None


def _check_splits(study: Study) -> None:
    """Raises ValueError or FileNotFoundError if the annotations or the split lack something that a run needs."""
    for run in study.runs():
        raw = study.config(run)
        split = raw["semi_cfg"]["split"]
        labels = read_split(split["file"], split["ratio"], split["fold"])
        config = resolve_config(raw, source=f"{study.path}, run {run.name}")
        check_split(config, read_hidden(config["dataset"]["json_file"], labels), labels)


def _run_all(
    study: Study, missing: list[Run], slots: Slots, stop: StopRequest, *, diagnostic: bool, progress: bool
) -> None:
    """Executes `missing`. A run whose burn-in is not there yet waits for it, and comes next then, so that folds are
    finished one after another."""
    waiting = [run for run in missing if study.waits(run)]
    ready = [run for run in missing if run not in waiting]
    ready.sort(key=lambda run: run.method == LABELED_ONLY)  # folds that were begun come first
    failed: list[str] = []
    active: dict[subprocess.Popen, tuple[Run, int]] = {}
    with tqdm(total=len(missing), unit="run", leave=False, disable=None if progress else True) as bar:
        try:
            while (ready or active) and not stop:
                while ready and slots.free:
                    run, slot = ready.pop(0), slots.free.pop(0)
                    active[_start(study, run, slots.environment(slot), diagnostic)] = run, slot
                time.sleep(POLL)
                for process in [p for p in active if p.poll() is not None]:
                    run, slot = active.pop(process)
                    slots.free.append(slot)
                    bar.update()
                    if process.returncode != 0:
                        status = f"exit status {process.returncode}"
                        failed.append(f"{_log_file(study, run)} ({status}): {_last_line(study, run)}")
                if released := [run for run in waiting if not study.waits(run)]:
                    waiting = [run for run in waiting if run not in released]
                    ready = released + ready
        finally:
            _end(list(active))
    if stop:
        logger.warning("study stopped; the same call goes on")
        raise stop.exception()
    if failed:
        suffix = f"; {len(waiting)} runs that start from their burn-in were not made" if waiting else ""
        raise RunsFailedError("\n  ".join([f"{len(failed)} of {len(missing)} runs failed{suffix}", *failed]))


class Slots:
    """The resources of parallel runs: each slot has a share of the cores and, if the study trains on GPUs, a GPU of its
    own as far as there are enough.

    Attributes:
        free: indices of unused slots.
    """

    def __init__(self, study: Study, processes: int) -> None:
        self.free = list(range(processes))
        self.threads = max(available_cores() // processes, 1)
        device = resolve_config(study.raw, source=study.path)["devices"][0]
        self.gpus = visible_gpus() if device.startswith("cuda") and processes > 1 else []

    def environment(self, slot: int) -> dict[str, str]:
        """Environment variables of a run. Numbers of threads that the user has set are kept."""
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


def _last_line(study: Study, run: Run) -> str:
    """The last line of a run's log."""
    lines = _log_file(study, run).read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else "no output"


def _chosen(study: Study, methods: Sequence[str] | None, folds: Sequence[int] | None) -> list[Run]:
    """The runs of these methods and folds."""
    runs = study.runs()
    known = {run.method for run in runs}
    if unknown := [name for name in methods or [] if name not in known]:
        raise ValueError(f"--methods: {unknown}: {study.path} has {sorted(known)}")
    if strange := [fold for fold in folds or [] if fold not in study.file.folds]:
        raise ValueError(f"--folds: {strange}: {study.path} has {study.file.folds}")
    return [run for run in runs if (methods is None or run.method in methods) and (folds is None or run.fold in folds)]


def _runs_to_execute(study: Study, chosen: Sequence[Run]) -> list[Run]:
    """The chosen runs without a result, and the `labeled_only` runs whose burn-in file these need and which is
    missing."""
    missing = [run for run in chosen if not _is_done(study, run)]
    need = [study.maker(run) for run in missing if study.waits(run)]
    return [run for run in study.runs() if run in missing or run in need]


def _is_done(study: Study, run: Run) -> bool:
    """Whether a run has a result. Raises ValueError if the result is of another configuration."""
    path = study.result_file(run)
    if not path.is_file():
        return False
    if is_stale(study, run):
        raise ValueError(
            f"{path} was made with another configuration than the study has now: choose another output (a key of the "
            "study file), or remove the file"
        )
    return True


def _start(study: Study, run: Run, environment: dict[str, str], diagnostic: bool) -> subprocess.Popen:
    """Starts a run in a process of its own. The process gets no Ctrl-C from the terminal; it notices the end of this
    process because its standard input closes then."""
    described = asdict(run) | ({} if run.value is None else {"label": label_of(run.value)})
    job: Job = {
        "config": study.config(run), "folder": str(study.output / "runs" / run.name), "run": described,
        "result": str(study.result_file(run)), "diagnostic": diagnostic, "hash": digest(study.config(run)),
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
    """Makes processes write a checkpoint and end, and waits for them."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()
