"""Write a synthetic data set."""

from __future__ import annotations

import argparse

EXAMPLE = "actionformer-nt simulate data/toy --num-train 40 --num-test 20"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="folder to write to")
    parser.add_argument("--annotations", default=None, help="take videos and events from this file")
    for name, kind, value, text in (
        ("num-train", int, 40, "training videos"),
        ("num-test", int, 20, "test videos"),
        ("num-classes", int, 8, "actions"),
        ("channels", int, 64, "of the features"),
        ("difficulty", float, 0.4, "0 (easy) to 1 (hard)"),
        ("seed", int, 0, "of everything that is drawn"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=value, help=text)
    parser.add_argument("--jobs", type=int, default=2, help="processes")


def run(args: argparse.Namespace) -> None:
    from libs.datasets.simulate import Simulation, simulate

    spec = Simulation(
        num_train=args.num_train, num_test=args.num_test, num_classes=args.num_classes,
        channels=args.channels, difficulty=args.difficulty, seed=args.seed,
    )  # fmt: skip
    facts = simulate(args.out, spec, annotations=args.annotations, jobs=args.jobs, progress=not args.quiet)
    print(f"synthetic data set of {facts['videos']} videos, {facts['num_classes']} classes, subsets {facts['splits']}")
    print(f"json_file: {facts['json_file']}\nfeat_folder: {facts['feat_folder']}")
