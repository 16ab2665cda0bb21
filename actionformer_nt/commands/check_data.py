"""Check annotations, feature files and the split file against a configuration.

Prints one table of what is wrong, lengths of events against the pyramid, and settings that would suit them. Exit status
4 where there are errors.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from libs.core.types import Config

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


def _own_subsets(config: Config) -> dict[str, str] | None:
    """The subsets of a split with test videos of its own. `check_semi` reports a split that cannot be read."""
    if "semi_cfg" not in config:
        return None
    from actionformer_nt.protocol.splits import split_of

    try:
        return split_of(config).subsets
    except (ValueError, OSError):
        return None


def run(args: argparse.Namespace) -> int:
    from libs.core import load_config
    from libs.datasets.checks import check_data

    config = load_config(args.config, overrides=args.set)
    check = check_data(
        config, features=not args.no_features, full=args.full, jobs=args.jobs, progress=not args.quiet,
        own_subsets=_own_subsets(config),
    )  # fmt: skip
    if "semi_cfg" in config:
        from actionformer_nt.self_training.checks import check_semi

        check_semi(config, check.findings)
    print(check.format())
    if args.json:
        args.json.write_text(json.dumps(check.to_dict(), indent=1) + "\n", encoding="utf-8")
    return FOUND_ERRORS if check.findings.count("error") else 0
