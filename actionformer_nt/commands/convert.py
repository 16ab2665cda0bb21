"""Make an annotation file from those of EPIC-Kitchens-100 or Ego4D.

The format is recognized by the files' content. What was dropped or changed is counted on stderr, with the first places.
"""

from __future__ import annotations

import argparse
import logging
import os

EXAMPLE = "actionformer-nt convert moments_train.json moments_val.json data/ego4d/annotations/ego4d.json"
PLACES = 3  # shown for each reason

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="IN", help="annotation files as they are published")
    parser.add_argument("out", metavar="OUT", help="annotation file to write")
    parser.add_argument("--from", dest="source", metavar="FORMAT", default=None, help="epic or ego4d")
    parser.add_argument("--label", choices=("verb", "noun"), default=None, help="epic: the class of an action")
    parser.add_argument(
        "--classes", default=None, metavar="FILE",
        help="names of the classes; epic: EPIC_100_verb_classes.csv or EPIC_100_noun_classes.csv; ego4d: a name a "
        "line, for ids other than those in alphabetical order",
    )  # fmt: skip
    parser.add_argument(
        "--grid", type=int, default=None,
        help="ego4d: frames from one feature of the whole video to the next, 16 by default; 0: features begin with "
        "the clip",
    )  # fmt: skip
    parser.add_argument("--log", default=None, metavar="FILE", help="list all that was dropped or changed here")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")


def run(args: argparse.Namespace) -> None:
    from libs.datasets.annotations import read_annotations
    from libs.datasets.convert import Options, convert, write_annotations, write_notes

    if os.path.exists(args.out) and not args.overwrite:
        raise ValueError(f"{args.out}, the last argument, is there already; name another file or add --overwrite")
    if any(os.path.exists(args.out) and os.path.samefile(args.out, path) for path in args.inputs):
        raise ValueError(f"{args.out}: an input and the file to write, which is the last argument")
    options = Options(label=args.label, classes=args.classes, grid=args.grid)
    result = convert(args.inputs, source_format=args.source, options=options)
    for reason, notes in result.reasons().items():
        places = [f"{note.where}: {note.value}" for note in notes[:PLACES]] + ["..."] * (len(notes) > PLACES)
        logger.warning("%d time%s: %s: %s", len(notes), "s" * (len(notes) > 1), reason, "; ".join(places))
    if args.log:
        write_notes(args.log, result.notes)
    write_annotations(args.out, result.database)

    annotations = read_annotations(args.out)
    events = sum(len(video.events) for video in annotations.videos)
    print(f"{args.out}: {len(annotations.videos)} videos, {events} events, {len(annotations.label_ids)} classes")
    for subset in dict.fromkeys(video.subset for video in annotations.videos):
        videos = annotations.of_subsets([subset])
        print(f"  {subset}: {len(videos)} videos, {sum(len(video.events) for video in videos)} events")
