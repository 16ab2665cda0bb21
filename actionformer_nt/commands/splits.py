"""Choose which training videos may show their labels."""

from __future__ import annotations

import argparse

from .options import parse_numbers, positive

EXAMPLE = "actionformer-nt splits thumos14.json --subset validation --out configs/splits/thumos14.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("annotations", help="annotation JSON; its labels are read here and nowhere else")
    parser.add_argument("--subset", required=True, nargs="+", action="extend", help="training subsets")
    parser.add_argument("--out", required=True, help="split file to write")
    parser.add_argument("--kind", choices=("stratified", "uniform"), default="stratified", help="how videos are drawn")
    parser.add_argument("--ratios", default="0.1,0.2,0.4,0.6", help="labeled shares that must be possible")
    parser.add_argument("--folds", type=positive, default=5, help="draws")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument(
        "--published",
        default=None,
        help="take this JSON list {labeled: [ids], unlabeled: [ids]} instead; without unlabeled: all others",
    )
    parser.add_argument(
        "--marked", action="store_true", help='take the marks in the file instead: all but those with "labeled": false'
    )


def run(args: argparse.Namespace) -> None:
    from actionformer_nt.protocol import splits
    from libs.core.files import load_json
    from libs.datasets.annotations import read_annotations

    annotations = read_annotations(args.annotations)
    if args.published and args.marked:
        raise ValueError("--published and --marked: give one of them")
    if args.published:
        content = splits.published_split(annotations, args.subset, load_json(args.published), args.published)
    elif args.marked:
        content = splits.marked_split(annotations, args.subset)
    else:
        ratios = parse_numbers(args.ratios, "--ratios")
        content = splits.make_splits(
            annotations, args.subset, kind=args.kind, ratios=ratios, folds=args.folds, seed=args.seed
        )
    splits.write_splits(args.out, content)
    print(f"{args.out}: {content['kind']}, {len(content['videos'])} videos, hash {content['hash']}")
    for ratio in content["ratios"]:
        for fold in range(len(content["orders"])):
            split = splits.read_split(args.out, ratio, fold)
            missing = splits.unlabeled_classes(annotations, split)
            note = f", no video of {', '.join(missing)}" if missing else ""
            print(f"  ratio {ratio:.4g}, fold {fold}: {len(split.labeled)} labeled videos{note}")
