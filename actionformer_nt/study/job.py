"""One run of a study, in a process of its own: `python -m actionformer_nt.study.job`.

The first line of its standard input describes the run as JSON; at the end of the input, the study is gone and the run
ends, too.
"""

from __future__ import annotations

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
    """Ends this process, by way of a checkpoint, when the study that has started it is gone."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


class Job(TypedDict):
    """What the runner tells the process of a run."""

    config: RawConfig
    folder: str  # of the run
    run: dict[str, object]  # the fields of `plan.Run`
    result: str  # file to write
    diagnostic: bool
    hash: str  # of the raw configuration
    own_gpu: bool  # whether the process sees one GPU alone


def run_job(job: Job) -> None:
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
    result: dict[str, object] = {"run": job["run"], "config_hash": job["hash"], "commit": run_folder.source_commit()}
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
