"""Evaluate a result file against annotations."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .options import add_absent_labels, parse_tiou

EXAMPLE = "actionformer-nt evaluate results.json --annotations thumos14.json --split test --tiou 0.3:0.7:0.1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", help="detections: ActivityNet's result JSON, or a table (.csv, .tsv)")
    parser.add_argument("--annotations", required=True, help="annotation JSON")
    parser.add_argument(
        "--split", required=True, nargs="+", action="extend", help="subsets of the annotations, such as test"
    )
    parser.add_argument("--tiou", default="0.3:0.7:0.1", help="thresholds: START:STOP:STEP (STOP included) or a,b,c")
    parser.add_argument("--per-class", action="store_true", help="also print AP per class")
    parser.add_argument("--json", type=Path, default=None, help="write everything here as JSON")
    parser.add_argument("--csv", type=Path, default=None, help="write the per-class table here as CSV")
    add_absent_labels(parser)


def run(args: argparse.Namespace) -> None:
    from libs.datasets.labels import names_of
    from libs.evaluation.anet_detection import ANETdetection
    from libs.evaluation.tables import format_result, result_to_dict, write_table

    evaluator = ANETdetection(
        args.annotations, args.split, tiou_thresholds=parse_tiou(args.tiou), absent_labels=args.absent_labels
    )
    result = evaluator.evaluate_all(args.results)
    names = names_of(evaluator.label_ids)
    title = f"{evaluator.dataset_name} {', '.join(args.split)}"
    print(format_result(result, title=title, label_names=names if args.per_class else None))
    if args.json:
        args.json.write_text(json.dumps(result_to_dict(result, names), indent=1) + "\n", encoding="utf-8")
    if args.csv:
        write_table(args.csv, result, names)
