"""The table of a study: means over folds and seeds, and paired differences to the baseline."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from typing_extensions import NotRequired

from actionformer_nt.methods import needs_truth
from libs.core.files import load_json
from libs.core.markdown import markdown_table

from .plan import Study, is_stale, label_of
from .statistics import DETECTABLE, INTERVAL, SIGN_FLIP, PairedDifference, holm, paired_difference

Scores = Mapping[tuple[int, int], float]  # (fold, seed) -> average mAP in percent


def collect(study: Study) -> dict[tuple[str, object, float], dict[tuple[int, int], float]]:
    """(method, label of the parameter value, ratio) -> (fold, seed) -> average mAP in percent, of the finished runs."""
    scores: dict[tuple[str, object, float], dict[tuple[int, int], float]] = {}
    for run in study.runs():
        path = study.result_file(run)
        if path.is_file() and (run.method in study.file.methods):
            score = 100 * load_json(path)[study.file.report]["average_mAP"]
            scores.setdefault((run.method, label_of(run.value), run.ratio), {})[run.fold, run.seed] = score
    return scores


class Row(TypedDict):
    """All runs of one method, parameter value and ratio; average mAP in percent."""

    method: str
    value: object  # label of the parameter's value, see `label_of`; None: no parameter
    ratio: float
    runs: int
    mean: float
    std: float | None  # None: only one run
    scores: dict[str, float]  # fold and seed -> score
    difference: NotRequired[dict[str, object]]  # `PairedDifference` to the baseline; absent: the baseline itself
    by_group: NotRequired[dict[str, object]]  # the same over means of the folds with the same test videos


def tested_groups(study: Study) -> dict[tuple[float, int], str]:
    """(ratio, fold) -> name of the fold's own test videos, of the finished runs; empty if the split file names none."""
    groups = {}
    for run in study.runs():
        path = study.result_file(run)
        if path.is_file() and (tested := load_json(path).get("tested")):
            groups[run.ratio, run.fold] = str(tested["sha256"])
    return groups


def group_means(scores: Scores, groups: Mapping[int, str], other: Scores) -> dict[str, float]:
    """Group of folds -> mean score over the runs that `other` has too."""
    members: dict[str, list[float]] = defaultdict(list)
    for key, score in scores.items():
        if key in other:
            members[groups[key[0]]].append(score)
    return {group: float(np.mean(values)) for group, values in members.items()}


def _difference(scores: Mapping[Any, float], baseline: Mapping[Any, float], min_pairs: int) -> PairedDifference:
    """The paired difference; without interval and p if there are too few pairs to trust them."""
    difference = paired_difference(scores, baseline)
    return difference if difference.pairs >= min_pairs else replace(difference, interval=None, p=None)


def _rows(study: Study) -> list[Row]:
    """The rows of the table, with Holm's correction over the methods of one ratio and parameter value."""
    rows = list(_single_rows(study))
    families: dict[tuple[float, str], dict[int, float]] = defaultdict(dict)  # p by number of the row
    for number, row in enumerate(rows):
        p = row.get("difference", {}).get("p")
        if isinstance(p, float) and not needs_truth(row["method"]):  # a diagnostic is no hypothesis
            of_baseline = row["method"] == study.file.baseline  # then the hypotheses are values of the parameter
            families[row["ratio"], "" if of_baseline else str(row["value"])][number] = p
    for family in families.values():
        for number, adjusted in holm(family).items():
            rows[number]["difference"]["holm_p"] = adjusted
    return rows


def _single_rows(study: Study) -> Iterator[Row]:
    """The rows of the table, with the difference to the baseline at the same parameter value, or without a
    parameter."""
    collected, tested = collect(study), tested_groups(study)
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
        if method == study.file.baseline:
            reference = label_of(study.file.parameter.reference) if study.file.parameter else None
            baseline = None if reference in (None, value) else collected.get((method, reference, ratio))
        if baseline:
            row["difference"] = asdict(_difference(scores, baseline, study.file.min_pairs))
            groups = {fold: group for (share, fold), group in tested.items() if share == ratio}
            if len(set(groups.values())) > 1 and {fold for fold, _ in scores} <= groups.keys():
                ours, theirs = group_means(scores, groups, baseline), group_means(baseline, groups, scores)
                row["by_group"] = asdict(_difference(ours, theirs, study.file.min_pairs))
        yield row


def write_table(study: Study) -> str:
    """Writes the table as JSON and Markdown into the output folder, under the name of the study file, and returns the
    Markdown. Studies with the same output folder share runs."""
    rows = _rows(study)
    total = len(study.runs())
    done = sum(study.result_file(run).is_file() for run in study.runs())
    stale = sum(is_stale(study, run) for run in study.runs())
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
        f"{_baseline_name(study)} over pairs of runs with the same fold and seed, with a {INTERVAL}. "
        f"{done} of {total} runs."
        + (f" **{stale} of them were made with another configuration than the study has now.**" if stale else "")
        + "".join(
            f" `{method}` has a burn-in of its own: {json.dumps(study.file.per_method.get(method, {}))}."
            for method in study.file.own_burn_in
        )
        + (f" With external scores: {external}." if external else ""),
        "",
        markdown_table([*columns, "pairs", "sd", "detectable", "p", "Holm"], cells),
        "",
        f"Interval: {INTERVAL} of the mean difference, from {max(study.file.min_pairs, 2)} pairs on. "
        f"Sd: standard deviation of the differences. Detectable: {DETECTABLE}. p: sign-flip test, {SIGN_FLIP}. "
        f"Holm: p adjusted for all methods{'' if parameter is None else ' at one value, or all values,'} of one ratio.",
        *_group_table(rows, study.file.baseline),
        *(f"\n`{label}`: `{value}`" for label, value in _labeled_values(study).items()),
    ]
    text = "\n".join(lines) + "\n"
    study.output.mkdir(parents=True, exist_ok=True)
    stem = study.output / Path(study.path).stem
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    content: dict[str, object] = {"study": study.path, "interval": INTERVAL, "detectable_effect": DETECTABLE}
    content |= {"rows": rows} | ({"values": values} if (values := _labeled_values(study)) else {})
    stem.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return text


def _labeled_values(study: Study) -> dict[str, str]:
    """Label -> value as JSON, of the values of the parameter that have a label of their own."""
    values = study.file.parameter.values if study.file.parameter else []
    return {label_of(value): json.dumps(value) for value in values if label_of(value) is not value}


def _baseline_name(study: Study) -> str:
    parameter = study.file.parameter
    of_value = (
        f" (itself: to {parameter.name} = {label_of(parameter.reference)})"
        if parameter and parameter.reference is not None
        else ""
    )
    return f"`{study.file.baseline}`{of_value}"


def _difference_cells(difference: dict[str, Any] | None) -> list[str]:
    """The cells difference, pairs, sd, detectable, p and Holm; empty without a baseline or with too few pairs."""
    if difference is None:
        return [""] * 6
    mean, interval = difference["mean"], difference["interval"]
    cell = "" if mean is None else f"{mean:+.2f}"
    if interval:
        cell += f" [{interval[0]:+.2f}, {interval[1]:+.2f}]"
    sd, detectable = (
        "" if number is None else f"{number:.2f}" for number in (difference["std"], difference["detectable_effect"])
    )
    p, adjusted = (
        "" if (number := difference.get(key)) is None else f"{number:.3f}" if number >= 0.001 else f"{number:.1e}"
        for key in ("p", "holm_p")
    )
    return [cell, str(difference["pairs"]), sd, detectable, p, adjusted]


def _group_table(rows: list[Row], baseline: str) -> list[str]:
    """Lines with the differences over groups of folds with the same test videos; none without several such groups."""
    cells = []
    for row in rows:
        if "by_group" in row:
            value = "" if row["value"] is None else f" ({row['value']})"
            difference, groups, sd, *_ = _difference_cells(row["by_group"])
            cells.append([f"{row['ratio']:g}", row["method"] + value, difference, groups, sd])
    if not cells:
        return []
    return [
        "",
        f"Folds with the same test videos are not quite independent. Difference to `{baseline}` over the means of such "
        "groups of folds, for comparison:",
        "",
        markdown_table(["ratio", "method", "difference", "groups", "sd"], cells),
    ]
