"""Speed of the evaluator against the peer's on the same detections, alternating in one run.

    python benchmarks/evaluate.py --annotations A.json --results R.json --split test [--repeats 5] [--scale 1 22]
        [--many-classes B.json]

Writes docs/benchmarks/evaluate.{md,json}. Times exclude reading: both evaluators are built before and get the same
columns. `--scale` repeats the videos that many times under new names, to show how the time grows. `--many-classes`
draws 200 detections (jittered events, half of them of another class) for each validation video of ActivityNet's
annotations, and evaluates 212 videos and all videos.
"""

from __future__ import annotations

import argparse
import json
import pickle
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from peer import PEER, ROOT, peer_python

from libs.core.markdown import markdown_table
from libs.datasets.annotations import Video, read_annotations
from libs.evaluation.anet_detection import ANETdetection
from libs.evaluation.average_precision import GroundTruth, evaluate_detections, ground_truth
from libs.evaluation.detections import Detections, make_detections, read_results

OUT = ROOT / "docs" / "benchmarks"

# Runs in the peer's environment: one evaluation per line on stdin, its time and numbers on stdout.
TIOU = np.linspace(0.3, 0.7, 5)
PEER_SCRIPT = """
import json, pickle, sys, time
import numpy as np
from actionformer.utils.metrics import ANETdetection
job = pickle.load(open(sys.argv[1], "rb"))
evaluator = ANETdetection(job["annotations"], job["split"], tiou_thresholds=np.array(job["tiou"]))
print("ready", flush=True)
for _ in sys.stdin:
    began = time.perf_counter()
    mean, average, _ = evaluator.evaluate(job["predictions"], verbose=False)
    print(json.dumps([time.perf_counter() - began, list(map(float, mean)), float(average)]), flush=True)
"""


def repeat_videos(truth: GroundTruth, detections: Detections, times: int) -> tuple[GroundTruth, Detections]:
    """The same split repeated `times` times, under new names."""

    def rename(ids: np.ndarray) -> np.ndarray:
        return np.concatenate([np.array([f"{i}-{name}" for name in ids], dtype=object) for i in range(times)])

    tiled = [np.tile(column, times) for column in detections[1:]]
    start, end, label = (np.tile(column, times) for column in truth[1:4])
    ids = rename(truth.video_id)
    return GroundTruth(ids, start, end, label, frozenset(ids), 0), Detections(rename(detections.video_id), *tiled)


def draw_detections(videos: list[Video], *, per_video: int = 200, seed: int = 0) -> Detections:
    """Random detections: jittered events of each video, half of them with another class."""
    rng = np.random.default_rng(seed)
    classes = 1 + max(event.label_id for video in videos for event in video.events)
    columns = []
    for video in videos:
        events = np.array([(e.start, e.end, e.label_id) for e in video.events])[
            rng.integers(len(video.events), size=per_video)
        ]
        length = (events[:, 1] - events[:, 0])[:, None]
        times = events[:, :2] + length * rng.normal(0, 0.2, (per_video, 2))
        label = np.where(rng.random(per_video) < 0.5, events[:, 2], rng.integers(classes, size=per_video)).astype(int)
        columns.append((times.min(1), times.max(1), label, rng.random(per_video)))
    ids = np.repeat(np.array([video.id for video in videos], dtype=object), per_video)
    return make_detections(ids, *(np.concatenate(column) for column in zip(*columns, strict=True)))


def seconds_of(truth: GroundTruth, detections: Detections, tiou: np.ndarray) -> float:
    """Seconds of an evaluation, the median of three."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        evaluate_detections(truth, detections, tiou=tiou)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def against_peer(ours: ANETdetection, detections: Detections, args: argparse.Namespace) -> list[tuple[float, float]]:
    """Seconds of the peer and ours, alternating; their mAP must agree."""
    python = peer_python()
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.pkl"
        columns = {name: column.tolist() for name, column in detections.as_dict().items()}
        for name in ("t-start", "t-end", "score"):
            columns[name] = np.array(columns[name])
        columns["label"] = np.array(columns["label"])
        job.write_bytes(
            pickle.dumps(
                {"annotations": args.annotations, "split": args.split, "tiou": TIOU.tolist(), "predictions": columns}
            )
        )
        command = [str(python), "-c", PEER_SCRIPT, str(job)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
            assert peer.stdin is not None and peer.stdout is not None
            assert peer.stdout.readline().strip() == "ready"
            pairs = []
            for _ in range(args.repeats):
                peer.stdin.write("go\n")
                peer.stdin.flush()
                peer_seconds, peer_map, _ = json.loads(peer.stdout.readline())
                began = time.perf_counter()
                mean, _, _ = ours.evaluate(detections, verbose=False)
                pairs.append((peer_seconds, time.perf_counter() - began))
                np.testing.assert_allclose(mean, peer_map, atol=1e-9)
                print(f"peer {pairs[-1][0]:.2f} s, ours {1000 * pairs[-1][1]:.1f} ms", flush=True)
            peer.stdin.close()
    return pairs


def growth_of(
    ours: ANETdetection, detections: Detections, args: argparse.Namespace
) -> list[tuple[str, int, int, float]]:
    """(title, videos, detections, seconds) for the repeated split and for many classes."""
    growth = []
    for times in args.scale:
        truth, many = repeat_videos(ours.ground_truth, detections, times)
        growth.append(("THUMOS14's detections", len(truth.videos), len(many.score), seconds_of(truth, many, TIOU)))
    if args.many_classes:
        every = [video for video in read_annotations(args.many_classes).of_subsets(["validation"]) if video.events]
        for videos in (every[:212], every):
            truth, drawn = ground_truth(videos), draw_detections(videos)
            title = f"ActivityNet's events, {len(np.unique(truth.label))} classes, drawn detections"
            growth.append((title, len(truth.videos), len(drawn.score), seconds_of(truth, drawn, TIOU)))
    return growth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--results", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scale", type=int, nargs="*", default=[1, 22])
    parser.add_argument("--many-classes", default=None, metavar="ANNOTATIONS", help="of ActivityNet 1.3")
    args = parser.parse_args()

    ours = ANETdetection(args.annotations, args.split, tiou_thresholds=TIOU)
    detections = read_results(args.results, ours.label_ids)
    pairs = against_peer(ours, detections, args)
    growth = growth_of(ours, detections, args)
    ratios = sorted(p / o for p, o in pairs)
    record = {
        "peer": PEER, "ratio_median": statistics.median(ratios), "ratios": ratios, "seconds_peer_and_ours": pairs,
        "growth": growth, "machine": f"{platform.processor() or platform.machine()}, {len(pairs)} repeats",
    }  # fmt: skip
    lines = [
        "# Evaluation",
        "",
        f"{len(detections.score):,} detections of {len(set(detections.video_id))} videos, 5 thresholds, against {PEER} "
        f"(alternating, {args.repeats} repeats, equal mAP to 1e-9):",
        "",
        markdown_table(
            ["", "seconds (median)"],
            [
                (PEER, f"{statistics.median(p for p, _ in pairs):.2f}"),
                ("this project", f"{statistics.median(o for _, o in pairs):.4f}"),
                ("ratio", f"{record['ratio_median']:.0f} ({ratios[0]:.0f} to {ratios[-1]:.0f})"),
            ],
        ),
        "",
        "How the time grows:",
        "",
        markdown_table(
            ["", "videos with events", "detections", "seconds"],
            [(title, f"{videos:,}", f"{count:,}", f"{seconds:.3f}") for title, videos, count, seconds in growth],
        ),
        "",
        "Made by `python benchmarks/evaluate.py --annotations thumos14.json --results actionformer_thumos14_i3d.json "
        f"--split {args.split} --repeats {args.repeats}{' --many-classes anet13.json' if args.many_classes else ''}`.",
        "",
    ]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "evaluate.md").write_text("\n".join(lines))
    (OUT / "evaluate.json").write_text(json.dumps(record, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
