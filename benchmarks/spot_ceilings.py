"""Upper bounds of the mAP that SPOT's representation can reach, and the mAP of fixed windows without learning.

    python benchmarks/spot_ceilings.py --data DATA [--scores FILE | --speed VIDEOS]

Writes docs/results/spot_ceilings.{md,json}. No features are needed. Ceilings: class and mask scores made from the
ground truth go through the whole inference (`Spot.detect`: decoding, windows, NMS) and the evaluator; next to them the
ground truth itself, moved to the snippet grid, evaluated directly. The control: nine fixed windows in every video, with
the classes and scores of `--scores` (a JSON file, video -> class name -> score; only printed) or, without it, with the
true classes. Every video of the ground truth counts. `--speed` times the inference after the network on random scores.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from actionformer_nt.spot.meta_arch import Spot
from actionformer_nt.spot.network import SpotOutput
from actionformer_nt.spot.targets import quantise, to_segments
from libs.core.files import load_json
from libs.core.markdown import markdown_table
from libs.core.schema import TestSection, TrainSection
from libs.core.types import TestConfig, TrainConfig
from libs.datasets.annotations import Annotations, duplicate_mask, read_annotations
from libs.datasets.labels import names_of
from libs.datasets.presets import PRESETS
from libs.datasets.video import VideoItem
from libs.evaluation.anet_detection import ANETdetection
from libs.evaluation.average_precision import EvaluationResult
from libs.evaluation.detections import Detections, concatenate, make_detections
from libs.training.run_folder import source_commit

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "results"
SURE = 40.0  # logit of a certain prediction
WINDOWS = [(0, 1), (0.05, 0.95), (0.1, 0.9), (0, 0.8), (0.2, 1), (0.2, 0.8), (0, 0.5), (0.5, 1), (0.25, 0.75)]
WAYS = ["windows", "windows, on the grid", "rescaled", "rescaled, on the grid"]
SPEED_COLUMNS = ["seconds", "peak memory after a tenth of the videos", "after all"]
WEIGHTS = [1, 0.9, 0.8, 0.7, 0.7, 0.6, 0.5, 0.5, 0.4]

INTRODUCTION = """Class scores (one-hot per snippet) and masks are made from the ground truth and go through the whole
inference: decoding, windows, NMS, evaluator. Next to it, the ground truth itself with its ends moved to the nearest
snippet borders, evaluated directly. tIoU .5 to .95 on ActivityNet, .3 to .7 on THUMOS14."""

EXPLANATION = """ActivityNet loses nothing in the inference; what the inference proposes beside the true segments
finds a few more events. On THUMOS14, one class per snippet costs most: every CliffDiving event is annotated as Diving
too, with the same times, and the lower class id, CliffDiving, gets the snippets. CricketBowling and CricketShot (64
pairs) and ThrowDiscus and Shotput (3) overlap in part and cost about a point of their classes at most. Eight events
are longer than a window. What the ground truth on the grid lacks to the last column are events where a video has no
I3D features any more, most of them of HammerThrow; no detector on these features finds them. The classes in which the
inference and the ground truth on the grid differ:"""

CONTROL = """Nine fixed windows in every video of ActivityNet's validation set, each with the video's classes. With true
video labels, and every ground-truth video counted, this gives the row below. With a published score file under the
protocol of SPOT's public code, which drops videos by their hidden labels and scores only predicted ones, such windows
reach 33.5. `--scores FILE` evaluates any file of class scores per video under the protocol used here."""


class Split:
    """The videos of a split, with events on the grid of their features."""

    def __init__(self, annotations: Annotations, subset: str, preset: str) -> None:
        self.annotations, self.subset, self.tiou = annotations, subset, PRESETS[preset].tiou
        self.videos = annotations.of_subsets([subset])
        self.names = names_of(annotations.label_ids)

    def items(self, *, rescale_to: int | None = None, lengths: dict[str, int] | None = None) -> Iterator[VideoItem]:
        """Videos like those of the data set; `feats` is (1, L) without content.

        Args:
            rescale_to: length of all videos in steps.
            lengths: video id -> steps of I3D features, 16 frames every 4 at 30 fps; used without `rescale_to`.
        """
        for video in self.videos:
            assert video.duration is not None
            events = np.array(video.events, dtype=np.float64).reshape(-1, 3)
            events = events[duplicate_mask(*events.T)]
            if rescale_to is not None:
                fps, length, stride, frames = 1.0, rescale_to, video.duration / rescale_to, video.duration / rescale_to
            else:
                assert lengths is not None
                fps, length, stride, frames = 30.0, lengths[video.id], 4.0, 16.0
            segments = events[:, :2] * fps / stride - 0.5 * frames / stride
            yield {
                "video_id": video.id, "feats": torch.zeros(1, length), "fps": fps, "duration": video.duration,
                "feat_stride": stride, "feat_num_frames": frames,
                "segments": torch.from_numpy(segments), "labels": torch.from_numpy(events[:, 2].astype(np.int64)),
            }  # fmt: skip

    def evaluate(self, detections: Detections) -> EvaluationResult:
        evaluator = ANETdetection(
            self.annotations.path, self.subset, tiou_thresholds=self.tiou, annotations=self.annotations,
            absent_labels="drop",
        )  # fmt: skip
        return evaluator.evaluate_all(detections)


def make_model(num_classes: int, num_steps: int, sigma: float) -> Spot:
    test = TestSection(pre_nms_topk=2000, min_score=0.001, max_seg_num=1000, nms_sigma=sigma)
    return Spot(
        input_dim=1, num_classes=num_classes, max_seq_len=num_steps,
        train_cfg=cast(TrainConfig, TrainSection().model_dump()),
        test_cfg=cast(TestConfig, test.model_dump()), n_head=1, mask_dims=[1],
    ).eval()  # fmt: skip


@torch.no_grad()
def oracle(split: Split, model: Spot, **grid: Any) -> EvaluationResult:
    """mAP of class and mask scores made from the ground truth, through the whole inference."""
    parts = []
    for item in split.items(**grid):
        pairs = []
        for batch in model.batches([item]):
            targets = model.targets(batch, [item])
            logits = SURE * torch.nn.functional.one_hot(targets.classes, model.num_classes + 1).float()
            masks = SURE * (2 * targets.masks.float() - 1)
            pairs.append((batch, SpotOutput(logits, masks, batch.feats.transpose(1, 2), batch.mask[:, 0])))
        (detections,) = model.detect(pairs, [item])
        parts.append(as_rows(item["video_id"], detections["segments"], detections["labels"], detections["scores"]))
    return split.evaluate(concatenate(parts))


def quantised(split: Split, *, beyond: bool = False, **grid: Any) -> EvaluationResult:
    """mAP of the ground truth with every event moved to the nearest snippet borders. Classes may overlap, and events
    may be longer than a window.

    Args:
        beyond: keep events after the end of the features (up to the annotated duration).
    """
    parts = []
    for item in split.items(**grid):
        assert item["segments"] is not None and item["labels"] is not None
        ranges, on_grid = quantise(item["segments"], 10**6 if beyond else item["feats"].shape[1])
        steps = to_segments(ranges[on_grid]).double()
        seconds = (steps * item["feat_stride"] + 0.5 * item["feat_num_frames"]) / item["fps"]
        seconds, labels = seconds.clamp(0, item["duration"]), item["labels"][on_grid]
        parts.append(as_rows(item["video_id"], seconds, labels, torch.ones(len(labels))))
    return split.evaluate(concatenate(parts))


def fixed_windows(split: Split, scores: dict[str, dict[str, float]] | None) -> EvaluationResult:
    """mAP of nine fixed windows per video and class, without learning."""
    ids = split.annotations.label_ids
    parts = []
    for video in split.videos:
        if scores is None:
            classes = {event.label_id: 1.0 for event in video.events}
        else:
            given = scores.get(video.id, scores.get(f"v_{video.id}", {}))
            if unknown := sorted(set(given) - set(ids)):
                raise ValueError(
                    f"scores: video '{video.id}': {unknown[:3]} are no classes of {split.annotations.path}"
                )
            classes = {ids[name]: float(score) for name, score in given.items()}
        for label, score in classes.items():
            assert video.duration is not None
            segments = torch.tensor(WINDOWS).double() * video.duration
            parts.append(
                as_rows(video.id, segments, torch.full((len(segments),), label), score * torch.tensor(WEIGHTS))
            )
    return split.evaluate(concatenate(parts))


def as_rows(video_id: str, segments: torch.Tensor, labels: torch.Tensor, scores: torch.Tensor) -> Detections:
    return make_detections([video_id] * len(scores), segments[:, 0], segments[:, 1], labels, scores)


def percent(result: EvaluationResult) -> dict[str, Any]:
    return {
        "average_mAP": round(100 * result.average_mAP, 2),
        "mAP": {f"{t:.2f}": round(100 * float(m), 2) for t, m in zip(result.tiou, result.mAP, strict=True)},
        "videos_without_predictions": result.counts["videos_without_predictions"],
    }


def speed(count: int) -> dict[str, Any]:
    """Seconds for `count` videos with 100 x 100 masks and 200 classes, noise or smooth scores with two actions, and the
    peak memory (MiB) after a tenth of them and after all. The detections of all videos are kept."""
    model = make_model(200, 100, 0.6)
    video: VideoItem = {
        "video_id": "v", "feats": torch.zeros(1, 100), "segments": None, "labels": None,
        "fps": 1.0, "duration": 100.0, "feat_stride": 1.0, "feat_num_frames": 1.0,
    }  # fmt: skip
    (batch,) = model.batches([video])
    generator = torch.Generator().manual_seed(0)
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "videos": count}
    for kind in ("smooth", "noise"):
        seconds, kept, peaks = 0.0, [], []
        for i in range(count):
            output = random_output(kind, batch.mask[:, 0], generator)
            began = time.perf_counter()
            kept.append(model.detect([(batch, output)], [video]))
            seconds += time.perf_counter() - began
            if i + 1 in (max(count // 10, 1), count):
                peaks.append(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
        result[kind] = {"seconds": round(seconds, 1), "peak_mib": peaks}
    return result


def random_output(kind: str, mask: torch.Tensor, generator: torch.Generator) -> SpotOutput:
    logits = torch.randn(1, 100, 201, generator=generator)
    masks = torch.randn(1, 100, 100, generator=generator)
    if kind == "smooth":
        logits = 2 * torch.nn.functional.avg_pool1d(logits.transpose(1, 2), 5, 1, 2).transpose(1, 2)
        masks = 9 * torch.nn.functional.avg_pool2d(masks, 9, 1, 4)
        logits[..., -1] += 3
        for begin in torch.randint(0, 80, (2,), generator=generator).tolist():
            logits[0, begin : begin + 15, begin] += 6
            masks[0, begin : begin + 15] -= 2
            masks[0, begin : begin + 15, begin : begin + 15] += 5
    return SpotOutput(logits, masks, logits, mask)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder that holds anet13/ and thumos14/")
    parser.add_argument("--scores", type=Path, help="JSON: video -> class name -> score, for the fixed windows")
    parser.add_argument("--speed", type=int, metavar="VIDEOS", help="only print time and memory of the post-processing")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    if args.speed:
        print(json.dumps(speed(args.speed)))
        return
    anet = Split(read_annotations(args.data / "anet13/annotations/anet13.json"), "validation", "anet")
    if args.scores is not None:
        print(json.dumps(percent(fixed_windows(anet, load_json(args.scores))), indent=1))
        return
    thumos = Split(read_annotations(args.data / "thumos14/annotations/thumos14.json"), "test", "thumos")
    lengths = load_json(args.data / "thumos14/annotations/i3d_feature_lengths.json")
    cases = {
        "ActivityNet 1.3 validation, T = 100": (anet, make_model(200, 100, 0.6), {"rescale_to": 100}),
        "THUMOS14 test, windows of T = 256, 50 % overlap": (thumos, make_model(20, 256, 0.4), {"lengths": lengths}),
        "THUMOS14 test, rescaled to T = 256": (thumos, make_model(20, 256, 0.4), {"rescale_to": 256}),
    }
    record: dict[str, Any] = {"commit": source_commit(), "ceilings": {}, "fixed_windows": {}}
    for name, (split, model, grid) in cases.items():
        through, direct = oracle(split, model, **grid), quantised(split, **grid)
        record["ceilings"][name] = {
            "inference": percent(through),
            "quantised": percent(direct),
            "quantised_beyond_features": percent(quantised(split, beyond=True, **grid)) if "lengths" in grid else None,
            "per_class": {
                split.names[int(c)]: [round(100 * float(r.ap[:, k].mean()), 2) for r in (through, direct)]
                for k, c in enumerate(through.label)
            },
        }
        print(name, percent(through)["average_mAP"], percent(direct)["average_mAP"], flush=True)
    record["fixed_windows"] = percent(fixed_windows(anet, None))
    record["speed"] = speed(4728)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "spot_ceilings.json").write_text(json.dumps(record, indent=1) + "\n")
    (args.out / "spot_ceilings.md").write_text(describe(record))


def describe(record: dict[str, Any]) -> str:
    ceilings, windows = record["ceilings"], record["fixed_windows"]
    windowed, rescaled = (list(ceilings.values())[k]["per_class"] for k in (1, 2))
    kinds = ("inference", "quantised", "quantised_beyond_features")
    reached = [
        [name, *(f"{of_case[kind]['average_mAP']:.2f}" if of_case[kind] else "" for kind in kinds)]
        for name, of_case in ceilings.items()
    ]
    classes = [
        [name, *(f"{ap:.2f}" for ap in (*windowed[name], *rescaled[name]))]
        for name in windowed
        if any(abs(per_class[name][0] - per_class[name][1]) >= 0.005 for per_class in (windowed, rescaled))
    ]
    control = ["true video labels", *(f"{score:.2f}" for score in (windows["average_mAP"], *windows["mAP"].values()))]
    speeds = record["speed"]
    seconds = [
        [name, f"{speeds[kind]['seconds']:.0f}", *(f"{peak:,} MiB" for peak in speeds[kind]["peak_mib"])]
        for kind, name in (("smooth", "smooth, two actions a video"), ("noise", "noise"))
    ]
    return "\n".join([
        "# SPOT: what its representation can reach", "", INTRODUCTION, "",
        markdown_table(
            ["average mAP", "through the inference", "ground truth on the grid", "the same, also past the features"],
            reached,
        ), "", EXPLANATION, "",
        markdown_table(["AP of the class", *WAYS], classes), "",
        "## No learning", "", CONTROL, "", markdown_table(["", "average", *windows["mAP"]], [control]), "",
        "## Speed", "",
        f"Inference after the network, 100 x 100 masks, 200 classes, one video at a time, {speeds['threads']} threads, "
        f"{speeds['videos']:,} videos:", "",
        markdown_table(["random scores", *SPEED_COLUMNS], seconds), "",
        "Made by `python benchmarks/spot_ceilings.py --data DATA`; all figures are in `spot_ceilings.json`.", "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
