"""Prints what the pages of this folder say about the five-draw studies of ActionFormer and no table of a study has: the
table of README.md, and the differences to `target` by draw. From the repository's root:

    python docs/results/intervals.py
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from actionformer_nt.study.plan import load_study
from actionformer_nt.study.statistics import PairedDifference, detectable_effect, paired_difference
from actionformer_nt.study.table import collect
from libs.core.markdown import markdown_table

Scores = Mapping[tuple, float]  # (fold, seed) -> average mAP in percent
SETTINGS = (
    ("HAPT, 1 labeled recording", "hapt", 0.025),
    ("HAPT, 2 labeled recordings", "hapt", 0.05),
    ("50 Salads, 4 labeled recordings", "salads50", 0.1),
)
METHODS = ("labeled_only", "nt_negative", "nt")


def scores(study: str, ratio: float) -> dict[str, Scores]:
    """Of every method without a parameter; `study` is the stem of a file in docs/results/earlier/."""
    found = collect(load_study(f"docs/results/earlier/{study}.yaml"))
    return {method: runs for (method, value, r), runs in found.items() if r == ratio and value is None}


def text(difference: PairedDifference) -> str:
    low, high = difference.interval
    return f"{difference.mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def table() -> list[str]:
    """Differences to `target`, and the power of the comparison with `nt`."""
    columns = ["to `target`", "pairs", "labels only", "`nt_negative`", "`nt`"]
    columns += ["sd of `nt`", "detectable", "pairs for 1.0"]
    rows = []
    for name, study, ratio in SETTINGS:
        of_method = scores(study, ratio)
        found = [paired_difference(of_method[method], of_method["target"]) for method in METHODS]
        nt = found[-1]
        enough = next(n for n in count(2) if detectable_effect(std=nt.std, pairs=n) <= 1)
        rows.append([name, nt.pairs, *map(text, found), f"{nt.std:.2f}", f"{nt.detectable_effect:.2f}", enough])
    return markdown_table(columns, rows).split("\n")


def by_draw() -> list[str]:
    lines = []
    for name, study, ratio in SETTINGS:
        of_method = scores(study, ratio)
        for method in METHODS:
            differences = [of_method[method][key] - of_method["target"][key] for key in sorted(of_method["target"])]
            lines.append(f"{name}, {method}: " + ", ".join(f"{d:+.2f}" for d in differences))
    return lines


def three_draws() -> list[str]:
    """HAPT with two labeled recordings: what was run on three draws alone, to `target` there. No intervals."""
    target = scores("hapt", 0.05)["target"]
    others = scores("hapt_methods", 0.05)
    found = {method: others[method] for method in ("complementary", "soft", "oracle_class")}
    soft = collect(load_study("docs/results/earlier/hapt_soft.yaml"))
    found["soft, temperature 1"] = soft["soft", 1.0, 0.05]
    return [
        f"{method}: " + ", ".join(f"{of_method[key] - target[key]:+.2f}" for key in sorted(of_method))
        for method, of_method in found.items()
    ]


if __name__ == "__main__":
    for title, lines in (
        ("Five draws", table()),
        ("Differences to target by draw", by_draw()),
        ("HAPT, 2 labeled recordings, three draws: differences to target", three_draws()),
    ):
        print(f"{title}\n\n" + "\n".join(lines) + "\n")
