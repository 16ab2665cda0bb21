"""Evaluate a checkpoint on the test split of its configuration."""

from __future__ import annotations

import argparse
from typing import Any

from .options import add_absent_labels, add_overrides

EXAMPLE = "actionformer-nt eval configs/thumos_i3d.yaml ckpt/thumos_i3d_reproduce --weights raw"
SEVERAL_PROCESSES = True  # may be started by torchrun


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    add_absent_labels(parser)
    add_overrides(parser)


def run(args: argparse.Namespace) -> None:
    from libs.core import load_config
    from libs.evaluation.run import evaluate

    config = load_config(args.config, overrides=args.set)
    own: dict[str, Any] = {}
    if "semi_cfg" in config:
        from actionformer_nt.protocol.split_record import read_tested
        from actionformer_nt.protocol.splits import split_of, tested_note

        if (split := split_of(config)).test is not None:
            own = {"annotations": read_tested(config, split, args.ckpt), "noted": tested_note(split)}
    evaluation = evaluate(
        config, args.ckpt, epoch=args.epoch, topk=args.topk, weights=args.weights,
        save_only=args.saveonly, absent_labels=args.absent_labels, progress=not args.quiet, **own,
    )  # fmt: skip
    for kind, path in evaluation.files.items():
        print(f"{kind}: {path}")
