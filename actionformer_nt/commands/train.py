"""Train a detector."""

from __future__ import annotations

import argparse

from .options import add_overrides

EXAMPLE = "actionformer-nt train configs/thumos_i3d.yaml --output reproduce --set train_cfg.droppath=0.2"
SEVERAL_PROCESSES = True  # may be started by torchrun

WHEN_STOPPED = "the run goes on from its last checkpoint with --resume"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="YAML configuration")
    parser.add_argument(
        "-p", "--print-freq", type=int, default=10, help="iterations between entries of TensorBoard and of -v"
    )
    parser.add_argument("-c", "--ckpt-freq", type=int, default=5, help="epochs between numbered checkpoints")
    parser.add_argument("--output", default=None, help="name of the run (default: the time)")
    parser.add_argument("--resume", default=None, help="checkpoint or run folder to go on from")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in the output folder")
    add_overrides(parser)


def run(args: argparse.Namespace) -> None:
    from actionformer_nt.run import evaluate, train
    from libs.core import distributed, load_config
    from libs.training import run_folder

    config = load_config(args.config, overrides=args.set)
    folder = distributed.from_main(run_folder.folder_of_run(config, args.config, args.output))
    if args.resume and args.output is None:
        folder = run_folder.resume_point(args.resume).parent
    train(
        config, folder, resume=args.resume, overwrite=args.overwrite,
        print_freq=args.print_freq, ckpt_freq=args.ckpt_freq, progress=not args.quiet,
    )  # fmt: skip
    if "semi_cfg" in config:
        for name, evaluation in evaluate(config, folder, progress=not args.quiet).items():
            print(f"{name}: " + ", ".join(str(path) for path in evaluation.files.values()))
