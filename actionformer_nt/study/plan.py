"""Studies: the same training for a grid of methods, ratios, folds, seeds and values of one parameter. `study_table`
makes a table of their results.

Every run leaves one JSON file under `<output>/results`; a run that has one is not run again, and one that was
interrupted goes on. Runs of one ratio, fold and seed share their burn-in, which the `labeled_only` run makes.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError
from tqdm import tqdm

from actionformer_nt.methods import LABELED_ONLY, ORACLE, check_method
from actionformer_nt.protocol.splits import check_split, read_hidden, read_split
from libs.core import read_yaml, resolve_config, set_key, set_keys
from libs.core.files import load_json, write_text
from libs.core.interrupts import StopRequest, stop_requests
from libs.core.lock import locked
from libs.core.schema import Count, Section
from libs.core.threads import available_cores

logger = logging.getLogger(__name__)

POLL = 0.1  # seconds from one look at the runs to the next


class RunsFailedError(RuntimeError):
    """Some runs of a study ended with an error; the others are done."""


class Parameter(Section):
    """A key of which every value is a run of every method."""

    name: str
    """Dotted key of the configuration."""
    values: list[Any]
    """Every value is a run of every method."""


class StudyFile(Section):
    """What a study's YAML file may hold."""

    base: str
    """Configuration with `semi_cfg`."""
    output: str
    """Folder of results, runs and tables; one study at a time writes there."""
    methods: Annotated[list[str], Field(min_length=1)]
    """What is compared. `labeled_only` is run in any case, since it makes the burn-in."""
    ratios: Annotated[list[float], Field(min_length=1)]
    """Shares of labeled videos."""
    folds: Annotated[list[int], Field(min_length=1)] = [0, 1, 2, 3, 4]
    """Folds of the split file."""
    seeds: Annotated[list[int], Field(min_length=1)] = [0]
    """Values of `init_rand_seed`."""
    parameter: Parameter | None = None
    """A key of the configuration to vary."""
    baseline: str = "target"
    """Method that the others are compared with."""
    report: str = "student"
    """Whose mAP is compared: `student` or `teacher`."""
    set: dict[str, Any] = {}
    """Further keys of the configuration, dotted, the same in all runs."""
    expected_hours: float | None = None
    """For the reader: on one GPU, or as the file says."""
    min_pairs: Count = 5
    """Paired runs from which on an interval is given."""


@dataclass(frozen=True)
class Run:
    """One training run and its evaluation; `name` is that of its folder and of its result file."""

    method: str
    ratio: float
    fold: int
    seed: int
    value: Any = None  # of the parameter

    @property
    def name(self) -> str:
        value = "" if self.value is None else f"_p{self.value}"
        return f"{self.method}_r{self.ratio:g}_f{self.fold}_s{self.seed}{value}"


@dataclass(frozen=True)
class Study:
    """A study file, read and checked by `load_study`."""

    path: str
    file: StudyFile
    raw: dict[str, Any]  # the base configuration, overrides applied

    @property
    def output(self) -> Path:
        return Path(self.file.output)

    def runs(self) -> list[Run]:
        """All runs; `labeled_only` first, since it makes the burn-in of the others."""
        grid = [(r, f, s) for r in self.file.ratios for f in self.file.folds for s in self.file.seeds]
        values = self.file.parameter.values if self.file.parameter else [None]
        first = [Run(LABELED_ONLY, *key) for key in grid]
        others = [m for m in self.file.methods if m != LABELED_ONLY]
        return first + [Run(m, *key, value) for key in grid for m in others for value in values]

    def config(self, run: Run) -> dict[str, Any]:
        """The raw configuration of a run."""
        raw = copy.deepcopy(self.raw)
        set_key(raw, "init_rand_seed", run.seed)
        for key, value in (("method", run.method), ("split.ratio", run.ratio), ("split.fold", run.fold)):
            set_key(raw, f"semi_cfg.{key}", value)
        if run.value is not None and self.file.parameter is not None:
            set_key(raw, self.file.parameter.name, run.value)
        if run.method != LABELED_ONLY:
            set_key(raw, "semi_cfg.burn_in_checkpoint", str(self.burn_in(run)))
        return raw

    def burn_in(self, run: Run) -> Path:
        """The checkpoint from which a run starts."""
        return self.output / "runs" / Run(LABELED_ONLY, run.ratio, run.fold, run.seed).name / "burn_in.pth.tar"

    def result_file(self, run: Run) -> Path:
        return self.output / "results" / f"{run.name}.json"


def load_study(path: str | os.PathLike, *, overrides: Sequence[str] = ()) -> Study:
    """Reads a study file; `overrides` are KEY=VALUE strings for the base configuration.

    Raises:
        ValueError: names the key that is wrong, in the study or in the configuration.
    """
    try:
        file = StudyFile.model_validate(read_yaml(path))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ValueError(f"{path}: " + "; ".join(lines)) from None
    for method in [*file.methods, file.baseline]:
        check_method(method)
    if file.report not in ("student", "teacher"):
        raise ValueError(f"{path}: report: '{file.report}' is neither 'student' nor 'teacher'")
    raw = read_yaml(file.base)
    own = {"init_rand_seed", "semi_cfg.method", "semi_cfg.split.ratio", "semi_cfg.split.fold"}
    own |= {"semi_cfg.burn_in_checkpoint"} | ({file.parameter.name} if file.parameter else set())
    for key in [*file.set, *(text.split("=", 1)[0] for text in overrides)]:
        if key in own:
            raise ValueError(f"{path}: '{key}' cannot be overridden, the study itself sets it for every run")
    for key, value in file.set.items():
        set_key(raw, key, value)
    set_keys(raw, overrides)
    study = Study(str(path), file, raw)
    for run in study.runs():
        resolve_config(study.config(run), source=f"{path}, run {run.name}")
    return study


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


def _digest(raw: dict[str, Any]) -> str:
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
    job = {
        "config": study.config(run), "folder": str(study.output / "runs" / run.name), "run": asdict(run),
        "result": str(study.result_file(run)), "diagnostic": diagnostic, "hash": _digest(study.config(run)),
        "own_gpu": environment.get("CUDA_VISIBLE_DEVICES") != os.environ.get("CUDA_VISIBLE_DEVICES"),
    }  # fmt: skip
    log = _log_file(study, run)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "actionformer_nt.study.plan"],
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


def _end_with_parent() -> None:
    """Ends this process, by way of a checkpoint, when the study that has started it is gone."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def run_job(job: dict[str, Any]) -> None:
    """One run, in a process of its own: trains or goes on, evaluates, writes the result."""
    from actionformer_nt import run as semi_run
    from libs.training import run_folder

    began = time.perf_counter()
    folder = Path(job["folder"])
    config = resolve_config(job["config"], source=job["folder"])
    if job["own_gpu"] and config["devices"][0].startswith("cuda"):
        config["devices"] = ["cuda:0"]  # the only one that it sees
    resume = folder if (folder / run_folder.LAST).is_file() else None
    semi_run.train(config, folder, resume=resume, diagnostic=job["diagnostic"], progress=False)
    result = {"run": job["run"], "config_hash": job["hash"], "commit": run_folder.source_commit()}
    for name, evaluation in semi_run.evaluate(config, folder, progress=False).items():
        found = evaluation.result
        assert found is not None  # it was not asked to save alone
        result[name] = {
            "average_mAP": found.average_mAP,
            "mAP": found.mAP.tolist(),
            "tiou": found.tiou.tolist(),
        }
    last = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    result |= {"last_metrics": last, "seconds": round(time.perf_counter() - began, 1), "config": job["config"]}
    write_text(job["result"], json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    description = sys.stdin.readline()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    run_job(json.loads(description))
