"""Check annotations, feature files and the split file against a configuration.

Prints one table of what is wrong, lengths of events against the pyramid, and settings that would suit them. Exit status
4 where there are errors.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .options import add_overrides

EXAMPLE = "actionformer-nt check-data configs/gtea.yaml --full"
FOUND_ERRORS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="YAML configuration")
    parser.add_argument("--full", action="store_true", help="read all features, not only the files' headers")
    parser.add_argument("--no-features", action="store_true", help="check the annotations alone")
    parser.add_argument("--jobs", type=int, default=4, help="files at a time")
    parser.add_argument("--json", type=Path, default=None, help="write everything here, with every place")
    add_overrides(parser)


def run(args: argparse.Namespace) -> int:
    from libs.core import load_config
    from libs.datasets.checks import check_data

    config = load_config(args.config, overrides=args.set)
    check = check_data(config, features=not args.no_features, full=args.full, jobs=args.jobs, progress=not args.quiet)
    if "semi_cfg" in config:
        from actionformer_nt.self_training.checks import check_semi

        check_semi(config, check.findings)
    print(check.format())
    if args.json:
        args.json.write_text(json.dumps(check.to_dict(), indent=1) + "\n", encoding="utf-8")
    return FOUND_ERRORS if check.findings.count("error") else 0
