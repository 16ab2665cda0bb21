"""The command `actionformer-nt`. Heavy imports happen inside the commands, so that `--help` is quick."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from pathlib import Path

USER_ERRORS = (ValueError, OSError)  # a mistake in what was given: one line, exit status 2
STOPPED = 3  # exit status where training stopped because the loss was not finite

EXAMPLES = {
    "train": "actionformer-nt train configs/thumos_i3d.yaml --output reproduce",
    "eval": "actionformer-nt eval configs/thumos_i3d.yaml ckpt/thumos_i3d_reproduce --weights raw",
    "evaluate": "actionformer-nt evaluate results.json --annotations thumos14.json --split test --tiou 0.3:0.7:0.1",
    "study": "actionformer-nt study configs/study/hapt.yaml --processes 2",
    "splits": "actionformer-nt splits thumos14.json --subset validation --out configs/splits/thumos14.json",
    "report": "actionformer-nt report ckpt/first ckpt/second --out report.html",
    "simulate": "actionformer-nt simulate data/toy --num-train 40 --num-test 20",
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="actionformer-nt", description="Temporal action localization with few labels."
    )
    _add_verbosity(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text, add in (
        ("train", "train a detector", add_train_arguments),
        ("eval", "evaluate a checkpoint on the test split of its configuration", add_eval_arguments),
        ("evaluate", "evaluate a result file against annotations", add_evaluate_arguments),
        ("report", "make one page of what run folders hold", add_report_arguments),
        ("simulate", "write a synthetic data set", add_simulate_arguments),
        ("study", "run a grid of methods, ratios, folds and seeds, and compare", add_study_arguments),
        ("splits", "choose which training videos may show their labels", add_splits_arguments),
    ):
        command = commands.add_parser(
            name, help=text, description=text, epilog=f"example: {EXAMPLES[name]}",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )  # fmt: skip
        add(command)
    return parser


def _add_verbosity(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="only warnings and results")
    parser.add_argument("-v", "--verbose", action="store_true", help="also a line every --print-freq iterations")


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="YAML configuration")
    parser.add_argument(
        "-p", "--print-freq", type=int, default=10, help="iterations between entries of TensorBoard and of -v"
    )
    parser.add_argument("-c", "--ckpt-freq", type=int, default=5, help="epochs between numbered checkpoints")
    parser.add_argument("--output", default=None, help="name of the run (default: the time)")
    parser.add_argument("--resume", default=None, help="checkpoint or run folder to go on from")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in the output folder")
    parser.set_defaults(run=run_train)


def add_eval_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="YAML configuration")
    parser.add_argument("ckpt", help="checkpoint, or folder of checkpoints")
    parser.add_argument("-epoch", "--epoch", type=int, default=-1, help="which epoch of the folder (default: the last)")
    parser.add_argument(
        "-t", "--topk", type=int, default=-1, help="detections per video (default: test_cfg.max_seg_num)"
    )
    parser.add_argument("--saveonly", action="store_true", help="write the detections, do not evaluate")
    parser.add_argument(
        "-p", "--print-freq", type=int, default=10, help="accepted for ActionFormer's sake; there is a bar"
    )
    parser.add_argument("--weights", choices=("ema", "raw"), default="ema", help="averaged or raw weights")
    _add_absent_labels(parser)
    parser.set_defaults(run=run_eval)


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", help="detections in ActivityNet's result format")
    parser.add_argument("--annotations", required=True, help="annotation JSON")
    parser.add_argument("--split", required=True, help="subset of the annotations, such as test")
    parser.add_argument("--tiou", default="0.3:0.7:0.1", help="thresholds: START:STOP:STEP (STOP included) or a,b,c")
    parser.add_argument("--per-class", action="store_true", help="also print AP per class")
    parser.add_argument("--json", type=Path, default=None, help="write everything here as JSON")
    parser.add_argument("--csv", type=Path, default=None, help="write the per-class table here as CSV")
    _add_absent_labels(parser)
    parser.set_defaults(run=run_evaluate)


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder")
    parser.add_argument("--out", default="report.html", help="page to write")
    parser.add_argument("--videos", type=int, default=200, help="timelines, at most, of each run and subset")
    parser.set_defaults(run=run_report)


def add_simulate_arguments(parser: argparse.ArgumentParser) -> None:
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
    parser.set_defaults(run=run_simulate)


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", help="YAML file of the study")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time; the cores are shared among them")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the base file"
    )
    parser.add_argument("--diagnostic", action="store_true", help="allow methods that use hidden labels")
    parser.add_argument("--table-only", action="store_true", help="run nothing, make the table of what is there")
    parser.set_defaults(run=run_study)


def add_splits_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("annotations", help="annotation JSON; its labels are read here and nowhere else")
    parser.add_argument("--subset", required=True, help="training subset")
    parser.add_argument("--out", required=True, help="split file to write")
    parser.add_argument("--kind", choices=("stratified", "uniform"), default="stratified", help="how videos are drawn")
    parser.add_argument("--ratios", default="0.1,0.2,0.4,0.6", help="labeled shares that must be possible")
    parser.add_argument("--folds", type=int, default=5, help="draws")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--published", default=None, help="take this list {labeled: [ids], unlabeled: [ids]} instead")
    parser.set_defaults(run=run_splits)


def _add_absent_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--absent-labels", choices=("reference", "drop"), default="reference",
        help="predicted labels that no event has: keep ActionFormer's numbering, in which they can land on another "
        "class, or drop them",
    )  # fmt: skip


def run_train(args: argparse.Namespace) -> None:
    from libs import engine, run_folder
    from libs.core import load_config

    config = load_config(args.config)
    folder = run_folder.folder_of_run(config, args.config, args.output)
    if args.resume and args.output is None:
        folder = run_folder.resume_point(args.resume).parent
    if "semi_cfg" in config:
        from actionformer_nt import trainer

        trainer.train(config, folder, resume=args.resume, overwrite=args.overwrite, progress=not args.quiet)
        for name, found in trainer.evaluate(config, folder, progress=not args.quiet).items():
            print(f"{name}: " + ", ".join(str(path) for path in found.files.values()))
        return
    engine.train(
        config, folder, resume=args.resume, overwrite=args.overwrite,
        print_freq=args.print_freq, ckpt_freq=args.ckpt_freq, progress=not args.quiet,
    )  # fmt: skip


def run_eval(args: argparse.Namespace) -> None:
    from libs import engine
    from libs.core import load_config

    found = engine.evaluate(
        load_config(args.config), args.ckpt, epoch=args.epoch, topk=args.topk, weights=args.weights,
        save_only=args.saveonly, absent_labels=args.absent_labels, progress=not args.quiet,
    )  # fmt: skip
    for what, path in found.files.items():
        print(f"{what}: {path}")


def run_evaluate(args: argparse.Namespace) -> None:
    from libs.utils.metrics import ANETdetection
    from libs.utils.report import format_result, result_to_dict, write_table

    evaluator = ANETdetection(
        args.annotations, args.split, tiou_thresholds=parse_tiou(args.tiou), absent_labels=args.absent_labels
    )
    evaluator.evaluate(args.results, verbose=False)
    names = {i: name for name, i in evaluator.label_ids.items()}
    title = f"{evaluator.dataset_name} {args.split}"
    print(format_result(evaluator.result, title=title, label_names=names if args.per_class else None))
    if args.json:
        args.json.write_text(json.dumps(result_to_dict(evaluator.result, names), indent=1) + "\n")
    if args.csv:
        write_table(args.csv, evaluator.result, names)


def run_report(args: argparse.Namespace) -> None:
    from actionformer_nt.report import write_report

    print(write_report(args.runs, args.out, videos=args.videos))


def run_study(args: argparse.Namespace) -> None:
    from actionformer_nt import study

    plan = study.load_study(args.study, overrides=args.set)
    if not args.table_only:
        study.run_missing(plan, processes=args.processes, diagnostic=args.diagnostic, progress=not args.quiet)
    print(study.write_table(plan))


def run_splits(args: argparse.Namespace) -> None:
    from actionformer_nt import splits
    from libs.utils.annotations import load_json, read_annotations

    annotations = read_annotations(args.annotations)
    if args.published:
        content = splits.published_split(annotations, [args.subset], load_json(args.published), args.published)
    else:
        ratios = parse_numbers(args.ratios, "--ratios")
        content = splits.make_splits(
            annotations, [args.subset], kind=args.kind, ratios=ratios, folds=args.folds, seed=args.seed
        )
    splits.write_splits(args.out, content)
    print(f"{args.out}: {content['kind']}, {len(content['videos'])} videos, hash {content['hash']}")
    for ratio in content["ratios"]:
        for fold in range(len(content["orders"])):
            split = splits.read_split(args.out, ratio, fold)
            missing = splits.unlabeled_classes(annotations, split)
            note = f", no video of {', '.join(missing)}" if missing else ""
            print(f"  ratio {ratio:.4g}, fold {fold}: {len(split.labeled)} labeled videos{note}")


def run_simulate(args: argparse.Namespace) -> None:
    from libs.datasets.simulate import Simulation, simulate

    spec = Simulation(
        num_train=args.num_train, num_test=args.num_test, num_classes=args.num_classes,
        channels=args.channels, difficulty=args.difficulty, seed=args.seed,
    )  # fmt: skip
    facts = simulate(args.out, spec, annotations=args.annotations, jobs=args.jobs, progress=not args.quiet)
    print(f"synthetic data set of {facts['videos']} videos, {facts['num_classes']} classes, subsets {facts['splits']}")
    print(f"json_file: {facts['json_file']}\nfeat_folder: {facts['feat_folder']}")


def parse_numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} '{text}': expected numbers such as 0.1,0.2") from None


def parse_tiou(text: str) -> list[float]:
    """ "0.3:0.7:0.1" (end included) or "0.3,0.5" -> thresholds."""
    try:
        if ":" not in text:
            return [float(part) for part in text.split(",")]
        start, stop, step = (float(part) for part in text.split(":"))
        count = math.floor((stop - start) / step + 1e-6) + 1
        if count < 1:
            raise ValueError
        return [round(start + i * step, 10) for i in range(count)]
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError(
            f"--tiou '{text}': expected START:STOP:STEP such as 0.3:0.7:0.1, or numbers such as 0.5,0.75"
        ) from None


def main(argv: list[str] | None = None) -> int:
    """Runs a command. Exit status: 0 done, 2 a mistake in what was given, 3 training diverged."""
    return call(build_parser(), argv)


def tool(add_arguments, description: str) -> int:
    """What a script in `tools/` is: one command on its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    _add_verbosity(parser)
    add_arguments(parser)
    return call(parser, None)


def call(parser: argparse.ArgumentParser, argv: list[str] | None) -> int:
    args = parser.parse_args(argv)
    level = logging.WARNING if args.quiet else logging.DEBUG if args.verbose else logging.INFO
    console = logging.StreamHandler()
    console.setLevel(level)
    console.setFormatter(logging.Formatter("%(message)s"))
    for name in ("libs", "actionformer_nt"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [console], False
        logger.setLevel(min(level, logging.INFO))
    try:
        args.run(args)
    except BrokenPipeError:  # whoever reads our output has seen enough
        sys.stderr.close()
        return 0
    except USER_ERRORS as error:
        if args.verbose:
            raise
        print(f"error: {_message(error)}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        from libs.utils.train_utils import NonFiniteLossError

        if not isinstance(error, NonFiniteLossError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        print("interrupted; a training run goes on with --resume and its folder", file=sys.stderr)
        return 130
    return 0


def _message(error: Exception) -> str:
    """The error's text; of one that a loader's worker passed on, without the worker's traceback."""
    text = str(error).rstrip()
    return text.splitlines()[-1].partition(": ")[2] if text.startswith("Caught ") else text


if __name__ == "__main__":
    sys.exit(main())
