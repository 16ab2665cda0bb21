"""Make one page of what run folders hold."""

from __future__ import annotations

import argparse

EXAMPLE = "actionformer-nt report ckpt/first ckpt/second --out report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder")
    parser.add_argument("--out", default="report.html", help="page to write")
    parser.add_argument("--videos", type=int, default=200, help="timelines, at most, of each run and subset")


def run(args: argparse.Namespace) -> None:
    from actionformer_nt.report import write_report

    print(write_report(args.runs, args.out, videos=args.videos))
