"""Prints what the pages of this folder say about differences between methods and no table of a study has: the second
table of README.md, HAPT's two settings together, comparisons over three folds, differences by fold, shares of a gap.
From the repository's root:

    python docs/results/intervals.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from actionformer_nt.study.plan import load_study
from actionformer_nt.study.statistics import PairedDifference, detectable_effect, paired_difference
from actionformer_nt.study.table import collect
from libs.core.markdown import markdown_table

Scores = Mapping[tuple, float]  # (fold, seed), or (ratio, fold, seed) -> average mAP in percent
SETTINGS = (
    ("HAPT, 1 labeled recording", "hapt", 0.025),
    ("HAPT, 2 labeled recordings", "hapt", 0.05),
    ("50 Salads, 4 labeled recordings", "salads50", 0.1),
    ("SPOT, HAPT, 2 labeled recordings", "spot_hapt", 0.05),
    ("SPOT, 50 Salads, 4 labeled recordings", "spot_salads50", 0.1),
)
METHODS = ("labeled_only", "nt_negative", "nt")


def scores(study: str, ratio: float) -> dict[str, Scores]:
    """Of every method without a parameter; `study` is the stem of a file in configs/study/."""
    found = collect(load_study(f"configs/study/{study}.yaml"))
    return {method: runs for (method, value, r), runs in found.items() if r == ratio and value is None}


def settings() -> dict[str, dict[str, Scores]]:
    """Name -> method -> scores; the last one is HAPT's two settings together."""
    found = {name: scores(study, ratio) for name, study, ratio in SETTINGS}
    both: dict[str, dict[tuple, float]] = {method: {} for method in (*METHODS, "target")}
    for name, study, ratio in SETTINGS:
        for method in both if study == "hapt" else ():
            both[method] |= {(ratio, *key): score for key, score in found[name][method].items()}
    return found | {"HAPT, both together": both}


def text(difference: PairedDifference) -> str:
    low, high = difference.interval
    return f"{difference.mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def table() -> list[str]:
    """Differences to `target`, and the power of the comparison with `nt`."""
    columns = ["to `target`", "pairs", "labels only", "`nt_negative`", "`nt`"]
    columns += ["sd of `nt`", "detectable", "pairs for 1.0"]
    rows = []
    for name, of_method in settings().items():
        found = [paired_difference(of_method[method], of_method["target"]) for method in METHODS]
        nt = found[-1]
        enough = next(n for n in count(2) if detectable_effect(std=nt.std, pairs=n) <= 1)
        rows.append([name, nt.pairs, *map(text, found), f"{nt.std:.2f}", f"{nt.detectable_effect:.2f}", enough])
    return markdown_table(columns, rows).split("\n")


def by_fold() -> list[str]:
    lines = []
    for name, study, ratio in SETTINGS:
        of_method = scores(study, ratio)
        for method in METHODS:
            differences = [of_method[method][key] - of_method["target"][key] for key in sorted(of_method["target"])]
            lines.append(f"{name}, {method}: " + ", ".join(f"{d:+.2f}" for d in differences))
    return lines


def three_folds() -> list[str]:
    """HAPT with two labeled recordings: what was run on the first three folds alone, to `target` there."""
    hapt = scores("hapt", 0.05)
    others = scores("hapt_methods", 0.05)
    found = {method: others[method] for method in ("complementary", "soft", "oracle_class")}
    folds = {key: hapt["target"][key] for key in found["soft"]}
    soft = collect(load_study("configs/study/hapt_soft.yaml"))["soft", 1.0, 0.05]
    lines = []
    for method, of_method in (found | {"nt": hapt["nt"], "soft, temperature 1": soft}).items():
        differences = ", ".join(f"{of_method[key] - folds[key]:+.2f}" for key in sorted(folds))
        lines.append(f"{method}: {text(paired_difference(of_method, folds))}; by fold {differences}")
    return lines


def shares() -> list[str]:
    """How much of a gap self-training closes, in percent."""
    lines = []
    hapt = scores("hapt", 0.025)
    oracle = paired_difference(scores("hapt_headroom", 0.025)["oracle_class"], hapt["target"]).mean
    for method in ("nt_negative", "nt"):
        share = paired_difference(hapt[method], hapt["target"]).mean / oracle
        lines.append(f"HAPT, 1 labeled recording, {method}: {share:.1%} of the gap from target to the true classes")
    salads = scores("salads50", 0.1)
    path = Path("docs/results/salads50/results/labeled_only_r1_f0_s0.json")
    full = 100 * json.loads(path.read_text(encoding="utf-8"))["student"]["average_mAP"]
    labels = sum(salads["labeled_only"].values()) / len(salads["labeled_only"])
    for method in ("target", "nt_negative", "nt"):
        gain = paired_difference(salads[method], salads["labeled_only"]).mean
        lines.append(f"50 Salads, {method}: {gain / (full - labels):.1%} of the gap from labels only to all labels")
    return lines


if __name__ == "__main__":
    for title, lines in (
        ("All studies", table()),
        ("Differences to target by fold", by_fold()),
        ("HAPT, 2 labeled recordings, three folds: differences to target", three_folds()),
        ("Shares of a gap", shares()),
    ):
        print(f"{title}\n\n" + "\n".join(lines) + "\n")
