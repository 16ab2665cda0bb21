"""One run of a study, in a process of its own: `python -m actionformer_nt.study.job`.

The first line of standard input describes the run as JSON. When standard input closes, the study has ended, and the run
ends too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TypedDict

from libs.core import resolve_config
from libs.core.files import write_text

from .plan import RawConfig


def _end_with_parent() -> None:
    """Waits until standard input closes, then sends SIGTERM to this process, which writes a checkpoint and ends."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


class Job(TypedDict):
    """The description of a run that the runner sends to the run's process."""

    config: RawConfig
    folder: str  # run folder
    run: dict[str, object]  # the fields of `plan.Run`, and the label of its value
    result: str  # result file to write
    diagnostic: bool
    hash: str  # hash of the raw configuration
    own_gpu: bool  # whether CUDA_VISIBLE_DEVICES names a GPU for this run alone


def run_job(job: Job) -> None:
    """Trains or resumes a run, evaluates it and writes the result file."""
    from actionformer_nt import run as semi_run
    from actionformer_nt.protocol.splits import split_of
    from libs.training import run_folder

    began = time.perf_counter()
    folder = Path(job["folder"])
    config = resolve_config(job["config"], source=job["folder"])
    if job["own_gpu"] and config["devices"][0].startswith("cuda"):
        config["devices"] = ["cuda:0"]  # the only visible GPU
    resume = folder if list(folder.glob("*.pth.tar")) else None  # it may have ended right after the burn-in
    semi_run.train(config, folder, resume=resume, diagnostic=job["diagnostic"], progress=False)
    result: dict[str, object] = {"run": job["run"], "config_hash": job["hash"], "commit": run_folder.source_commit()}
    for name, evaluation in semi_run.evaluate(config, folder, progress=False).items():
        numbers = evaluation.result
        assert numbers is not None  # None only with save_only
        result[name] = {
            "average_mAP": numbers.average_mAP,
            "mAP": numbers.mAP.tolist(),
            "tiou": numbers.tiou.tolist(),
        }
    if (tested := split_of(config).test) is not None:
        listed = "\n".join(sorted(tested)).encode()
        result["tested"] = {"videos": len(tested), "sha256": hashlib.sha256(listed).hexdigest()[:16]}
    last = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    result |= {"last_metrics": last, "seconds": round(time.perf_counter() - began, 1), "config": job["config"]}
    write_text(job["result"], json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    description = sys.stdin.readline()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    run_job(json.loads(description))
