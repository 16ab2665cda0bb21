"""Error diagnosis of the detections that were released with ActionFormer for THUMOS14.

    python benchmarks/thumos14_diagnosis.py --data DATA

Writes docs/results/thumos14_diagnosis.{md,json}. The ranges of length, coverage and instances are DETAD's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from libs.core.markdown import markdown_table
from libs.datasets.annotations import read_annotations
from libs.evaluation.anet_detection import ANETdetection
from libs.evaluation.detections import read_results
from libs.evaluation.diagnosis import BINS, LOW, PROFILE, diagnose
from libs.evaluation.tables import DiagnosisNumbers, RangeOfEvents, diagnosis_to_dict
from libs.training.run_folder import source_commit

ROOT = Path(__file__).resolve().parent.parent
TIOU = np.linspace(0.3, 0.7, 5)
SIZES = ("XS", "S", "M", "L", "XL")
AT = 2  # index of the threshold that is shown in detail


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder that holds thumos14/")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    args = parser.parse_args()
    annotations = read_annotations(args.data / "thumos14/annotations/thumos14.json")
    evaluator = ANETdetection(annotations.path, "test", TIOU, annotations=annotations)
    detections = read_results(args.data / "thumos14/predictions/actionformer_thumos14_i3d.json", annotations.label_ids)
    durations = {video.id: video.duration for video in annotations.videos}
    diagnosis = diagnosis_to_dict(
        diagnose(evaluator.ground_truth, detections, tiou=TIOU, durations=durations, bins=BINS["thumos"])
    )
    args.out.mkdir(parents=True, exist_ok=True)
    record = {"commit": source_commit(), "diagnosis": diagnosis}
    (args.out / "thumos14_diagnosis.json").write_text(json.dumps(record, indent=1) + "\n")
    (args.out / "thumos14_diagnosis.md").write_text(describe(diagnosis))


def describe(diagnosis: DiagnosisNumbers) -> str:
    thresholds = [f"{t:.1f}" for t in diagnosis["tiou"]]
    wrong = np.array([row["count"] for row in diagnosis["false_positives"]])  # (kinds, T)
    gain = np.array([row["gain"] for row in diagnosis["false_positives"]])
    missed = np.array([row["count"] for row in diagnosis["misses"]])
    top = np.array(diagnosis["profile"])[AT]  # (PROFILE, kinds + 1); last: correct
    kinds = [row["kind"] for row in diagnosis["false_positives"]]

    def rows(names: list[str], values: np.ndarray, form: str) -> list[list[str]]:
        return [[name, *map(form.format, row)] for name, row in zip(names, values, strict=True)]

    gains = np.column_stack([gain, gain.mean(axis=1)])
    scores = [*diagnosis["mAP"], float(np.mean(diagnosis["mAP"]))]
    lines = [
        "# Errors of the released ActionFormer detections on THUMOS14", "",
        f"{diagnosis['detections']:,} detections in the 212 test videos, {diagnosis['events']:,} events. "
        f"The kinds of error are those of `libs/evaluation/diagnosis.py`, in the manner of DETAD (Alwassel et al., "
        f"ECCV 2018): they part all false positives, and a detection that overlaps no event by {LOW:g} is background. "
        f"At each threshold the errors at that threshold are counted and fixed. "
        f"`python benchmarks/thumos14_diagnosis.py --data DATA` makes this page; all numbers are in "
        f"`thumos14_diagnosis.json`.", "",
        "## Gain in mAP from fixing one kind", "",
        "mAP in percent and, below it, the points that it would gain without the false positives of one kind.", "",
        markdown_table(
            ["tIoU", *thresholds, "average"],
            [["mAP", *(f"{100 * s:.2f}" for s in scores)], *rows(kinds, 100 * gains, "+{:.2f}")],
        ), "",
        "## False positives", "", markdown_table(["tIoU", *thresholds], rows(kinds, wrong, "{:,}")), "",
        f"Most of them have low scores. Among the best k·G detections of each class, G its number of events, at tIoU "
        f"{thresholds[AT]}, in percent:", "",
        markdown_table(
            ["k", *kinds, "correct"],
            rows([str(k + 1) for k in range(PROFILE)], 100 * top / top.sum(axis=1, keepdims=True), "{:.1f}"),
        ), "",
        "## Missed events", "",
        markdown_table(["tIoU", *thresholds], rows([row["kind"] for row in diagnosis["misses"]], missed, "{:,}")), "",
        f"In percent of the events of a range, at tIoU {thresholds[AT]} and, in the last column, at {thresholds[-1]}; "
        "`length` in seconds, `coverage` the share of the video, `instances` the events of the class in the video:", "",
        markdown_table(["", "range", "events", "missed", "missed at the highest tIoU"], by_range(diagnosis["groups"])),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def by_range(groups: dict[str, list[RangeOfEvents]]) -> list[list[str]]:
    """One row per range of each property: number of events, and share of missed events."""
    rows = []
    for name, ranges in groups.items():
        for size, row in zip(SIZES, ranges, strict=False):
            span = f"> {row['low']:g}" if row["high"] is None else f"{row['low']:g} – {row['high']:g}"
            share = [f"{100 * row['missed'][t] / row['events']:.1f}" if row["events"] else "" for t in (AT, -1)]
            rows.append([f"{name} {size}", span, f"{row['events']:,}", *share])
    return rows


if __name__ == "__main__":
    main()
