"""Run a grid of methods, ratios, folds and seeds, and compare."""

from __future__ import annotations

import argparse

from .options import add_overrides, positive

EXAMPLE = "actionformer-nt study configs/study/hapt.yaml --processes 2"

WHEN_STOPPED = "the same command goes on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", help="YAML file of the study")
    parser.add_argument(
        "--processes",
        type=positive,
        default=1,
        help="runs at a time; the cores are shared among them, unless OMP_NUM_THREADS is set",
    )
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="make only the runs of these methods now")
    parser.add_argument("--folds", nargs="+", type=int, metavar="FOLD", help="make only the runs of these folds now")
    add_overrides(parser)
    parser.add_argument("--diagnostic", action="store_true", help="allow methods that use hidden labels")
    parser.add_argument(
        "--observations", action="store_true", help="also print where the true class is among the teacher's classes"
    )
    parser.add_argument("--table-only", action="store_true", help="run nothing, make the table of what is there")


def run(args: argparse.Namespace) -> None:
    from actionformer_nt.study.observations import observations
    from actionformer_nt.study.plan import load_study
    from actionformer_nt.study.runner import run_missing
    from actionformer_nt.study.table import write_table

    study = load_study(args.study, overrides=args.set)
    if not args.table_only:
        run_missing(
            study, processes=args.processes, diagnostic=args.diagnostic, progress=not args.quiet,
            methods=args.methods, folds=args.folds,
        )  # fmt: skip
    print(write_table(study))
    if args.observations:
        print(observations(study))
