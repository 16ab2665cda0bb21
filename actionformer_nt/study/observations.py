"""The two observations of the paper's section III-B, as the finished runs of a study measured them with hidden labels:
where the true class is among the teacher's classes if the top class is wrong, and how rarely it is among the negative
classes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from actionformer_nt.methods import LABELED_ONLY
from libs.core.files import load_json
from libs.core.markdown import markdown_table

from .plan import Study, label_of

KEYS = {
    "target_accuracy": "target is right",
    "truth_among_positives_when_wrong": "of the wrong: positive",
    "truth_among_negatives": "of the wrong: negative",
    "rank_1": "rank 1",
    "rank_2": "rank 2",
    "rank_3": "rank 3",
    "rank_4_to_5": "rank 4 to 5",
    "rank_6_up": "rank 6 and up",
}  # curve `hidden/*` -> column


def observations(study: Study) -> str:
    """Markdown: means and standard deviations over the runs, in percent, of the curves `hidden/*` in the last record of
    each run; and in plain words which runs or curves are missing."""
    values: dict[tuple[float, str, str], dict[str, list[float]]] = {}
    done: dict[tuple[float, str, str], int] = defaultdict(int)
    for run in study.runs():
        path = study.result_file(run)
        if run.method == LABELED_ONLY or not path.is_file():
            continue
        row = run.ratio, run.method, "" if run.value is None else str(label_of(run.value))
        done[row] += 1
        for key, number in _recorded(load_json(path).get("last_metrics", {})).items():
            values.setdefault(row, {}).setdefault(key, []).append(100 * number)
    lines = [
        "Where the true class is in the teacher's distribution, for the pseudo labels on a true event in the last "
        "record of the runs (with stored pseudo labels: those of the last round). Shares (%), mean ± std over folds "
        "and seeds. Right and ranks: of all; *of the wrong*: of those whose target is not the true class.",
        "",
    ]
    if not done:
        return f"No finished run of `{study.path}` has self-training.\n"
    rows = [row for row in done if row in values]
    if rows:
        used = [key for key in KEYS if any(key in values[row] for row in rows)]
        cells = [
            [f"{ratio:g}", f"{method} {value}".strip(), done[ratio, method, value]]
            + [_cell(values[ratio, method, value].get(key, [])) for key in used]
            for ratio, method, value in rows
        ]
        lines += [markdown_table(["ratio", "method", "runs", *(KEYS[key] for key in used)], cells), ""]
    lines += _missing(done, values)
    return "\n".join(lines).rstrip() + "\n"


def _recorded(last: Mapping[str, float]) -> dict[str, float]:
    """The shares of one run that its last record has; NaN for shares of the wrong targets if every target is right."""
    found = {key: last[f"hidden/{key}"] for key in KEYS if last.get(f"hidden/{key}") is not None}
    wrong = 1 - found.get("target_accuracy", math.nan)
    if "truth_among_negatives" in found:  # recorded as a share of all
        found["truth_among_negatives"] /= wrong or math.nan
    if wrong == 0:
        found.setdefault("truth_among_positives_when_wrong", math.nan)
    return found


def _cell(numbers: Sequence[float]) -> str:
    numbers = [number for number in numbers if not math.isnan(number)]
    if not numbers:
        return ""
    return f"{np.mean(numbers):.1f}" + (f" ± {np.std(numbers, ddof=1):.1f}" if len(numbers) > 1 else "")


def _missing(
    done: dict[tuple[float, str, str], int], values: dict[tuple[float, str, str], dict[str, list[float]]]
) -> list[str]:
    """What the finished runs did not record."""
    lines = []
    for row, runs in done.items():
        ratio, method, value = row
        name = f"{method} {value}".strip()
        without = {key: runs - len(values.get(row, {}).get(key, [])) for key in KEYS}
        if all(count == runs for count in without.values()):
            lines.append(
                f"`{name}` at ratio {ratio:g}: no curve `hidden/*` in the last record of {runs} runs; they "
                "need semi_cfg.log_hidden: true before the run, and pseudo labels on true events."
            )
        elif missing := [f"hidden/{key} ({count} of {runs} runs)" for key, count in without.items() if count]:
            lines.append(f"`{name}` at ratio {ratio:g}: not recorded: {', '.join(missing)}.")
    return lines
