"""Detect actions in feature files or videos that no annotation file knows of.

Writes predictions.json (ActivityNet's result format) and predictions.csv, and of every video subtitles (.srt) and a
picture of its timeline (.png).
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from .extract import SOME_FAILED
from .options import add_overrides

if TYPE_CHECKING:
    import pandas as pd

    from libs.core.types import Config
    from libs.datasets.annotations import Annotations
    from libs.evaluation.detections import Detections
    from libs.inference.predictor import Predictor

logger = logging.getLogger(__name__)

EXAMPLE = "actionformer-nt predict configs/demo.yaml demo/runs/demo_supervised my_video.npy --fps 30 --threshold auto"
FORMATS = ("json", "csv", "srt", "png")
ARRAYS = (".npy", ".npz", ".pt")  # ends of the names of feature files, which no other file in a folder of videos has
WRITTEN = ".written.json"  # in the output folder: names of the files that the last call wrote


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="YAML configuration; training leaves one in the run folder, config.yaml")
    parser.add_argument("ckpt", help="checkpoint, or folder of checkpoints")
    parser.add_argument(
        "features", nargs="+", metavar="FEATURES|VIDEO",
        help="feature files (.npy, .npz, .pt, .csv, .hdf5), videos, or folders of either; features of videos are made "
        "like those of training, as their sidecars say, in OUT/features",
    )  # fmt: skip
    parser.add_argument("--video-weights", metavar="FILE", help="weights of the network that made training's features")
    parser.add_argument("--flow-weights", metavar="FILE", help="and of that for the optical flow")
    parser.add_argument("--fps", type=float, help="frames per second of the videos (default: dataset.default_fps)")
    parser.add_argument("--feat-stride", type=float, help="frames from one feature to the next (default: dataset's)")
    parser.add_argument("--num-frames", type=float, help="frames that one feature looks at (default: dataset's)")
    parser.add_argument("--duration", type=float, help="seconds of the videos (default: until the features end)")
    parser.add_argument(
        "--threshold", type=parse_threshold, metavar="SCORE|auto",
        help="show detections from this score on; auto: per class the score of the best F1 on a labeled set, chosen "
        "once and kept beside the checkpoint (default: all detections, as mAP wants them)",
    )  # fmt: skip
    parser.add_argument(
        "--labeled-split",
        nargs="+",
        action="extend",
        metavar="SUBSET",
        help="labeled set of --threshold auto (default: val_split)",
    )
    parser.add_argument("--top-k", type=int, default=-1, help="detections per video (default: test_cfg.max_seg_num)")
    parser.add_argument(
        "--also-from", nargs="+", default=[], metavar="FOLDER",
        help="folders with further features of the same videos, whose channels follow",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder to write to")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS, help="what to write")
    parser.add_argument(
        "--overlay", action="store_true", help="write a copy of each video with its detections drawn in"
    )
    parser.add_argument("-epoch", "--epoch", type=int, default=-1, help="which epoch of the folder (default: the last)")
    parser.add_argument("--weights", choices=("ema", "raw"), default="ema", help="averaged or raw weights")
    add_overrides(parser)


def parse_threshold(text: str) -> float | str:
    if text == "auto":
        return text
    try:
        value = float(text)
        if not 0 <= value <= 1:
            raise ValueError
        return value
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a score from 0 to 1 nor auto") from None


def run(args: argparse.Namespace) -> int:
    from libs.core import load_config
    from libs.evaluation.detections import to_table
    from libs.inference.operating_point import choose_thresholds, stored_thresholds
    from libs.inference.predictor import Predictor
    from libs.inference.unannotated import Timing
    from libs.training.checkpoint import find_checkpoint
    from libs.training.run_folder import check_writable

    config = load_config(args.config, overrides=args.set)
    checkpoint = find_checkpoint(args.ckpt, args.epoch)
    check_writable(args.out)
    thresholds = None
    if args.threshold == "auto":
        chosen = {"weights": args.weights, "split": args.labeled_split}
        thresholds = stored_thresholds(config, checkpoint, **chosen)
        if thresholds is None:
            annotations, video_ids = _videos_for_thresholds(config, checkpoint.parent, args.labeled_split)
            thresholds = choose_thresholds(
                config,
                checkpoint,
                **chosen,
                annotations=annotations,
                video_ids=video_ids,
                progress=not args.quiet,
            )
    predictor = Predictor.from_checkpoint(
        checkpoint, config=config, weights=args.weights, topk=args.top_k, thresholds=thresholds
    )
    timing = Timing(args.fps, args.duration, args.feat_stride, args.num_frames)
    paths, files, failed = _with_features_of_videos(args, predictor)
    videos, detections = predictor.detect(paths, timing, more_folders=args.also_from, progress=not args.quiet)
    kept = predictor.keep(detections, args.threshold)
    print(f"{len(kept.score)} of {len(detections.score)} detections in {len(videos)} videos")
    _write(args, videos, kept, to_table(kept, predictor.names), predictor.names, checkpoint, files)
    if failed:
        print(f"{failed} videos could not be read: {args.out / 'features' / 'failed.csv'} says why")
    return SOME_FAILED if failed else 0


def _with_features_of_videos(
    args: argparse.Namespace, predictor: Predictor
) -> tuple[list[str | Path], dict[str, str], int]:
    """The given paths, features in the place of videos; the file of each video by its id; and the number of videos that
    could not be read."""
    from libs.datasets.features import files_below
    from libs.extraction.video_files import is_video, videos_below

    videos: list[str] = []
    paths: list[str | Path] = []
    for path in args.features:
        inside = [path] if is_video(path) else []
        if inside and not Path(path).exists():
            raise FileNotFoundError(f"video not found: {path}")
        if Path(path).is_dir():
            inside = videos_below(path)
            own = [Path(path, name) for name in files_below(path) if name.lower().endswith(ARRAYS)]
            if inside and any(args.out.resolve() not in file.resolve().parents for file in own):
                raise ValueError(
                    f"{path}: features and videos in one folder, such as {own[0]}: name those that are meant"
                )
        videos += inside
        paths += [] if inside else [path]
    if args.overlay and not videos:
        raise ValueError("--overlay: give videos, not their features")
    if not videos:
        return paths, {}, 0
    found, extraction = predictor.extract(
        list(dict.fromkeys(videos)), args.out / "features", weights=args.video_weights,
        flow_weights=args.flow_weights, progress=not args.quiet,
    )  # fmt: skip
    if not (found or paths):
        raise ValueError(f"no video could be read: {args.out / 'features' / 'failed.csv'} says why")
    prefix = predictor.config["dataset"]["file_prefix"] or ""
    files = {Path(video).stem.removeprefix(prefix): video for video in videos if video not in extraction.failed}
    return [*paths, *found], files, len(extraction.failed)


def _write(
    args: argparse.Namespace,
    videos: dict[str, float],
    kept: Detections,
    table: pd.DataFrame,
    names: dict[int, str],
    checkpoint: Path,
    files_of_videos: dict[str, str],
) -> None:
    """Writes result file and table of all videos, and of each subtitles, timeline and, if asked for, an overlay."""
    from tqdm import tqdm

    from libs.evaluation.detections import write_results
    from libs.extraction.video_files import OVERLAY
    from libs.inference.subtitles import to_srt

    out, formats = args.out, args.formats
    out.mkdir(parents=True, exist_ok=True)
    _remove_earlier(out)
    per_video = [kind for kind in ("srt", "png") if kind in formats]
    stems = {video: _inside(video) for video in videos}
    files = [f"predictions.{kind}" for kind in ("json", "csv") if kind in formats]
    overlays = {v: f"{stems[v]}{OVERLAY}.mp4" for v in videos if args.overlay and v in files_of_videos}
    _record_files(
        out, [*files, *(f"{stems[video]}.{kind}" for video in videos for kind in per_video), *overlays.values()]
    )
    if "json" in formats:
        provenance = {"checkpoint": str(checkpoint), "weights": args.weights, "threshold": args.threshold}
        write_results(out / "predictions.json", kept, names, videos=list(videos), provenance=provenance)
    if "csv" in formats:
        table.to_csv(out / "predictions.csv", index=False, float_format="%.4f", encoding="utf-8")
    if per_video or overlays:
        tables = dict(iter(table.groupby("video", sort=False)))
        for video in tqdm(videos, desc="writing", unit="video", leave=False, disable=True if args.quiet else None):
            rows = tables.get(video, table.iloc[:0])
            (out / stems[video]).parent.mkdir(parents=True, exist_ok=True)
            if "srt" in per_video:
                (out / f"{stems[video]}.srt").write_text(to_srt(rows), encoding="utf-8")
            if "png" in per_video:
                from libs.inference.timeline import save_timeline

                save_timeline(out / f"{stems[video]}.png", rows, title=video, duration=videos[video])
            if video in overlays:
                from libs.inference.overlay import write_overlay

                try:
                    write_overlay(out / overlays[video], files_of_videos[video], rows, duration=videos[video])
                except ValueError as error:  # the detections are there
                    logger.warning("no overlay: %s", error)
    kinds = [f"*.{kind}" for kind in per_video] + ["*_overlay.mp4"] * bool(overlays)
    print(f"{out}: {', '.join(files + kinds)}")


def _inside(video: str) -> str:
    """The id of a video as a relative path that cannot lead out of a folder."""
    return "/".join(part for part in video.split("/") if part not in ("", ".", "..")) or "video"


def _record_files(out: Path, files: list[str]) -> None:
    """Records the files that will be written, so that the next call can remove them."""
    from libs.core.files import write_text

    write_text(out / WRITTEN, json.dumps(files) + "\n")


def _remove_earlier(out: Path) -> None:
    """Removes the files of the last call, so that files of other videos do not remain beside the new ones."""
    from libs.core.files import load_json

    if not (out / WRITTEN).is_file():
        return
    names = load_json(out / WRITTEN)
    if not isinstance(names, list) or any(not isinstance(name, str) or name != _inside(name) for name in names):
        raise ValueError(f"{out / WRITTEN}: not the list of files that the call before has written: remove it")
    earlier = [out / name for name in names]
    for path in earlier:
        path.unlink(missing_ok=True)
    for folder in sorted({path.parent for path in earlier} - {out}, reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _videos_for_thresholds(
    config: Config, folder: Path, split: list[str] | None
) -> tuple[Annotations | None, frozenset[str] | None]:
    """Annotations and ids of the videos on which thresholds may be chosen. For a semi-supervised configuration, these
    are the videos whose labels training saw, and the videos of other subsets. (None, None): no restriction."""
    if "semi_cfg" not in config:
        return None, None
    from actionformer_nt.protocol.split_record import read_tested
    from actionformer_nt.protocol.splits import split_of
    from libs.training.run_identity import check_classes, read_label_ids

    labels = split_of(config)
    if known := read_label_ids(folder):
        check_classes(labels.label_ids, known, what=f"split {labels.source}", source=f"the run {folder}")
    annotations = read_tested(config, labels, folder)
    videos = annotations.of_subsets(split or config["val_split"])
    return annotations, frozenset(video.id for video in videos) - frozenset(labels.unlabeled)
