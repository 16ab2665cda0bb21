"""The table of a study: means over folds and seeds, and paired differences to the baseline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from typing_extensions import NotRequired

from libs.core.files import load_json
from libs.core.markdown import markdown_table

from .plan import Study
from .statistics import DETECTABLE, INTERVAL, paired_difference


def collect(study: Study) -> dict[tuple[str, object, float], dict[tuple[int, int], float]]:
    """(method, parameter value, ratio) -> (fold, seed) -> average mAP in percent, of the finished runs."""
    scores: dict[tuple[str, object, float], dict[tuple[int, int], float]] = {}
    for run in study.runs():
        path = study.result_file(run)
        if path.is_file() and (run.method in study.file.methods):
            score = 100 * load_json(path)[study.file.report]["average_mAP"]
            scores.setdefault((run.method, run.value, run.ratio), {})[run.fold, run.seed] = score
    return scores


class Row(TypedDict):
    """All runs of one method, parameter value and ratio; average mAP in percent."""

    method: str
    value: object  # value of the parameter; None: no parameter
    ratio: float
    runs: int
    mean: float
    std: float | None  # None: only one run
    scores: dict[str, float]  # fold and seed -> score
    difference: NotRequired[dict[str, object]]  # `PairedDifference` to the baseline; absent: the baseline itself


def _rows(study: Study) -> Iterator[Row]:
    """The rows of the table, with the difference to the baseline at the same parameter value, or without a
    parameter."""
    collected = collect(study)
    for (method, value, ratio), scores in collected.items():
        numbers = np.array(list(scores.values()))
        row: Row = {
            "method": method, "value": value, "ratio": ratio, "runs": len(numbers), "mean": float(numbers.mean()),
            "std": float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
            "scores": {f"fold {f}, seed {s}": score for (f, s), score in scores.items()},
        }  # fmt: skip
        baseline = collected.get((study.file.baseline, value, ratio)) or collected.get(
            (study.file.baseline, None, ratio)
        )
        if baseline and method != study.file.baseline:
            difference = paired_difference(scores, baseline)
            if difference.pairs < study.file.min_pairs:  # too few pairs for a trustworthy interval
                difference = replace(difference, interval=None)
            row["difference"] = asdict(difference)
        yield row


def write_table(study: Study) -> str:
    """Writes the table as JSON and Markdown into the output folder, under the name of the study file, and returns the
    Markdown. Studies with the same output folder share runs."""
    rows = list(_rows(study))
    total = len(study.runs())
    done = sum(study.result_file(run).is_file() for run in study.runs())
    parameter = study.file.parameter
    external = study.config(study.runs()[0]).get("test_cfg", {}).get("ext_score_file")
    columns = ["ratio", "method", *([parameter.name] if parameter else []), "runs", "average mAP", "difference"]
    cells = []
    for row in sorted(rows, key=lambda r: (r["ratio"], study.file.methods.index(r["method"]), str(r["value"]))):
        std = "" if row["std"] is None else f" ± {row['std']:.2f}"
        value = [row["value"] if row["value"] is not None else ""] if parameter else []
        difference = _difference_cells(row.get("difference"))
        cells.append([f"{row['ratio']:g}", row["method"], *value, row["runs"], f"{row['mean']:.2f}{std}", *difference])
    lines = [
        f"Average mAP (%) of the {study.file.report}, mean ± std over folds and seeds; difference to "
        f"`{study.file.baseline}` over pairs of runs with the same fold and seed, with a {INTERVAL}. "
        f"{done} of {total} runs." + (f" With external scores: {external}." if external else ""),
        "",
        markdown_table([*columns, "pairs", "sd", "detectable"], cells),
        "",
        f"Interval: {INTERVAL} of the mean difference, from {max(study.file.min_pairs, 2)} pairs on. "
        f"Sd: standard deviation of the differences. Detectable: {DETECTABLE}.",
    ]
    text = "\n".join(lines) + "\n"
    study.output.mkdir(parents=True, exist_ok=True)
    stem = study.output / Path(study.path).stem
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    content = {"study": study.path, "interval": INTERVAL, "detectable_effect": DETECTABLE, "rows": rows}
    stem.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return text


def _difference_cells(difference: dict[str, Any] | None) -> list[str]:
    """The cells difference, pairs, sd and detectable; empty without a baseline or with too few pairs."""
    if difference is None:
        return ["", "", "", ""]
    mean, interval = difference["mean"], difference["interval"]
    cell = "" if mean is None else f"{mean:+.2f}"
    if interval:
        cell += f" [{interval[0]:+.2f}, {interval[1]:+.2f}]"
    sd, detectable = (
        "" if number is None else f"{number:.2f}" for number in (difference["std"], difference["detectable_effect"])
    )
    return [cell, str(difference["pairs"]), sd, detectable]
