"""Extract features of videos, one .npy and one sidecar .json for each.

Decodes with PyAV and runs a network over clips. The sidecar says how the features were made: preset, weights, frames
per second, window, stride. What is there already, with the same settings, is not made again, so an extraction that
ended early goes on. A video that cannot be read is listed in OUT/failed.csv, and the others are extracted.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import time
from fractions import Fraction
from pathlib import Path

from .options import positive

EXAMPLE = "actionformer-nt extract videos/ features/ --preset i3d-rgb --weights rgb_imagenet.pt"
SOME_FAILED = 5  # exit status
WHEN_STOPPED = "the same command goes on with the videos that are left"

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="video files, and folders of video files")
    parser.add_argument("out", metavar="OUT", help="folder to write to")
    parser.add_argument(
        "--preset", required=True,
        help="network: i3d-rgb, i3d-rgb-flow, tsp, r3d_18, r2plus1d_18, s3d, mvit_v2_s, swin3d_b, timm:NAME (an image "
        "network of timm, a row for each frame) or hf:ID (a video network of transformers)",
    )  # fmt: skip
    parser.add_argument(
        "--weights", default=None, metavar="FILE",
        help="weights of the network; without it torchvision, timm and transformers download theirs",
    )  # fmt: skip
    parser.add_argument("--flow-weights", metavar="FILE", help="i3d-rgb-flow: weights of the network of the flow")
    parser.add_argument(
        "--random-weights", type=int, default=None, metavar="SEED", help="weights of a seed, to try a pipeline"
    )
    parser.add_argument("--window", type=positive, default=None, help="frames of a clip (default: the preset's)")
    parser.add_argument(
        "--stride", type=positive, default=None, help="frames from clip to clip (default: the preset's)"
    )
    parser.add_argument(
        "--fps", type=_rate, default=None,
        help="frames per second: native or a number (default: the preset's; 15 for tsp, native for others)",
    )  # fmt: skip
    parser.add_argument(
        "--spatial", default=None, choices=("resize", "center", "tencrop"),
        help="i3d: whole frame, middle, or ten crops (default: resize)",
    )  # fmt: skip
    parser.add_argument(
        "--flow", default=None, choices=("raft", "tvl1", "dis"),
        help="i3d-rgb-flow: optical flow by RAFT (torchvision, for GPUs), TV-L1 (OpenCV, as published features have "
        "it; a second or more for each frame) or DIS (OpenCV, fast, other values) (default: raft)",
    )  # fmt: skip
    parser.add_argument(
        "--batch",
        type=positive,
        default=None,
        help="clips that go through the network at once (default: 2; on GPUs 16)",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        default=min(os.cpu_count() or 1, 4),
        help="threads that bring frames to the network's size",
    )
    parser.add_argument("--device", default=None, help="cpu, cuda:0, ... (default: a GPU if there is one)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"), help="of the network")
    parser.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N", help="only part I of N equal parts")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what was made otherwise, or not by an extraction"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the videos and what would be done")


def run(args: argparse.Namespace) -> int:
    from libs.extraction.extract import extract, output_rate
    from libs.extraction.output import OutputFolder, check_names
    from libs.extraction.presets import make_extractor
    from libs.training.run_folder import check_writable

    if Path(args.out).is_file():
        raise ValueError(f"{args.out}, the last argument, is a file; expected the folder to write to")
    check_writable(Path(args.out))
    videos = videos_of(args.videos)
    check_names(videos)
    part, parts = args.shard
    videos = videos[part - 1 :: parts]
    extractor = make_extractor(
        args.preset, weights=args.weights, flow_weights=args.flow_weights, window=args.window, stride=args.stride,
        spatial=args.spatial, flow=args.flow, seed=args.random_weights,
    ).on(_device(args.device), args.dtype)  # fmt: skip
    if args.dry_run:
        rate = output_rate(extractor, args.fps)
        there = OutputFolder(args.out, extractor.settings(), fps=rate, overwrite=args.overwrite).there(videos)
        for video in videos:
            print(f"{video}: {'is there' if video in there else 'would be extracted'}")
        return 0
    began = time.monotonic()
    found = extract(
        videos, args.out, extractor, fps=args.fps, batch=args.batch, workers=args.workers,
        overwrite=args.overwrite, progress=not args.quiet,
    )  # fmt: skip
    seconds = max(time.monotonic() - began, 1e-9)
    print(
        f"{args.out}: extracted {len(found.made)} of {len(videos)} videos ({found.frames} frames, "
        f"{found.frames / seconds:.0f} a second); there already: {len(found.there)}, failed: {len(found.failed)}"
        + (f", in work elsewhere: {len(found.elsewhere)}" if found.elsewhere else "")
    )
    if found.failed:
        print(f"{Path(args.out) / 'failed.csv'} says why")
    return SOME_FAILED if found.failed else 0


def _device(name: str | None) -> str:
    """The device of this name, or a GPU if there is one. Raises ValueError if there is no such device."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return name


def videos_of(paths: list[str]) -> list[str]:
    """The files among the paths, and all video files in the folders among them and below, by name.

    Raises:
        FileNotFoundError: a path that does not exist.
        ValueError: a folder without video files.
    """
    from libs.extraction.video_files import VIDEO_SUFFIXES, videos_below

    found = []
    for path in map(Path, paths):
        if path.is_dir():
            if not (inside := videos_below(path)):
                raise ValueError(
                    f"{path}: no video files in this folder; expected names that end in {', '.join(VIDEO_SUFFIXES)}"
                )
            found += inside
        elif path.exists():
            found.append(str(path))
        else:
            raise FileNotFoundError(f"video or folder not found: {path}")
    resolved = {os.path.realpath(path): path for path in reversed(found)}  # each file once, by its first name
    return [path for path in found if resolved[os.path.realpath(path)] == path]


def _rate(text: str) -> Fraction | str:
    """Argument type: frames per second, or native."""
    if text == "native":
        return text
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise argparse.ArgumentTypeError(f"'{text}' is neither native nor a number of frames per second such as 25")
    return rate


def _shard(text: str) -> tuple[int, int]:
    """Argument type: I/N."""
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if match is None or int(match[1]) > int(match[2]):
        raise argparse.ArgumentTypeError(f"'{text}' is not a part such as 2/8")
    return int(match[1]), int(match[2])
