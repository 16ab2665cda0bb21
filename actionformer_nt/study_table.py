"""The table of a study: means over folds and seeds, and paired differences to the baseline."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .study import Study

BOOTSTRAP = 10_000


def collect(study: Study) -> dict[tuple[str, Any, float], dict[tuple[int, int], float]]:
    """(method, parameter value, ratio) -> (fold, seed) -> average mAP in percent, of the runs that are there."""
    found: dict[tuple[str, Any, float], dict[tuple[int, int], float]] = {}
    for run in study.runs():
        path = study.result_file(run)
        if path.is_file() and (run.method in study.file.methods):
            score = 100 * json.loads(path.read_text(encoding="utf-8"))[study.file.report]["average_mAP"]
            found.setdefault((run.method, run.value, run.ratio), {})[run.fold, run.seed] = score
    return found


def paired_difference(
    scores: dict[tuple[int, int], float], baseline: dict[tuple[int, int], float], *, seed: int = 0
) -> tuple[float, float, float, int]:
    """Mean of the differences over the runs that both have, a 95 % bootstrap interval of it, and their number."""
    keys = sorted(scores.keys() & baseline.keys())
    difference = np.array([scores[key] - baseline[key] for key in keys])
    if not len(difference):
        return math.nan, math.nan, math.nan, 0
    rng = np.random.default_rng(seed)
    means = difference[rng.integers(0, len(difference), (BOOTSTRAP, len(difference)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(difference.mean()), float(low), float(high), len(difference)


def _rows(study: Study) -> Iterator[dict[str, Any]]:
    found = collect(study)
    for (method, value, ratio), scores in found.items():
        numbers = np.array(list(scores.values()))
        row = {
            "method": method, "value": value, "ratio": ratio, "runs": len(numbers), "mean": float(numbers.mean()),
            "std": float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
            "scores": {f"fold {f}, seed {s}": score for (f, s), score in scores.items()},
        }  # fmt: skip
        baseline = found.get((study.file.baseline, value, ratio)) or found.get((study.file.baseline, None, ratio))
        if baseline and method != study.file.baseline:
            mean, low, high, pairs = paired_difference(scores, baseline)
            enough = pairs >= study.file.min_pairs
            row["difference"] = {"mean": mean, "pairs": pairs, "interval": [low, high] if enough else None}
        yield row


def write_table(study: Study) -> str:
    """Writes a table as JSON and Markdown into the output folder, named like the study file, and returns the text of
    the latter. Studies that share an output folder share its runs."""
    rows = list(_rows(study))
    total = len(study.runs())
    done = sum(study.result_file(run).is_file() for run in study.runs())
    parameter = study.file.parameter
    external = study.config(study.runs()[0]).get("test_cfg", {}).get("ext_score_file")
    lines = [
        f"Average mAP (%) of the {study.file.report}, mean ± std over folds and seeds; difference to "
        f"`{study.file.baseline}` over paired runs, with a 95 % bootstrap interval. {done} of {total} runs."
        + (f" With external scores: {external}." if external else ""),
        "",
        f"| ratio | method |{f' {parameter.name} |' if parameter else ''} runs | average mAP | difference |",
        "|---|---|" + ("---|" if parameter else "") + "---|---|---|",
    ]
    for row in sorted(rows, key=lambda r: (r["ratio"], study.file.methods.index(r["method"]), str(r["value"]))):
        std = "" if row["std"] is None else f" ± {row['std']:.2f}"
        difference = ""
        if "difference" in row and row["difference"]["pairs"]:
            difference = f"{row['difference']['mean']:+.2f}"
            if row["difference"]["interval"]:
                low, high = row["difference"]["interval"]
                difference += f" [{low:+.2f}, {high:+.2f}]"
        cell = f" {row['value'] if row['value'] is not None else ''} |" if parameter else ""
        lines.append(
            f"| {row['ratio']:g} | {row['method']} |{cell} {row['runs']} | {row['mean']:.2f}{std} | {difference} |"
        )
    text = "\n".join(lines) + "\n"
    study.output.mkdir(parents=True, exist_ok=True)
    stem = study.output / Path(study.path).stem
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    stem.with_suffix(".json").write_text(
        json.dumps({"study": study.path, "rows": rows}, indent=1) + "\n", encoding="utf-8"
    )
    return text
