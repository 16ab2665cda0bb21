"""Synthetic data sets in ActionFormer's format, for demonstrations and tests. THE DATA ARE MADE UP: features are drawn
from random prototypes, no video was ever seen, and results on them say nothing about real benchmarks.

The features imitate clip features. Each class has a prototype; the prototypes of one group of classes are similar, so
that these classes are confused. Each video has its own style (gain and shift per channel). The background is a mixture
that partly resembles actions. Each step averages the frames of its window, so that boundaries blur, and the windows of
neighbouring steps overlap.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

import joblib
import numpy as np
from tqdm import tqdm

from libs.core.files import load_json
from libs.core.seeding import derive_seed

from .annotations import Video, read_annotations
from .entries import EventEntry, VideoEntry


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Parameters of a synthetic data set.

    Attributes:
        num_train, num_test: number of videos.
        num_classes: number of action classes; consecutive groups of `group_size` classes are similar.
        channels: feature channels.
        difficulty: 0 (prototypes stand out) to 1 (prototypes barely exceed the noise).
        duration: shortest and longest video in seconds.
        fps, feat_stride, num_frames: timing of the features, as in a configuration.
        background_share: largest share of an action's prototype in hard background.
    """

    num_train: int = 40
    num_test: int = 20
    num_classes: int = 8
    group_size: int = 2
    channels: int = 64
    difficulty: float = 0.4
    duration: tuple[float, float] = (40.0, 80.0)
    fps: float = 30.0
    feat_stride: int = 4
    num_frames: int = 16
    background_share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.difficulty <= 1:
            raise ValueError(f"difficulty {self.difficulty}: expected a number from 0 to 1")
        for name in ("num_train", "num_test", "num_classes", "group_size", "channels", "feat_stride", "num_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least 1")
        low, high = self.duration
        if not 1.0 <= low <= high:
            raise ValueError(f"duration {self.duration}: expected 1 <= shortest <= longest, in seconds")


class Simulated(TypedDict):
    """What `simulate` returns."""

    json_file: str
    feat_folder: str
    num_classes: int
    splits: list[str]
    videos: int


def simulate(
    out: str | Path, spec: Simulation, *, annotations: str | Path | None = None, jobs: int = 1, progress: bool = False
) -> Simulated:
    """Writes `annotations.json`, `features/*.npy` (float16, T x C) and `simulation.json` into `out`.

    Args:
        annotations: take classes, subsets, videos and events from this file instead of drawing them.
        jobs: number of processes.

    Returns:
        Paths and sizes of the data set.
    """
    out = Path(out)
    if annotations is None:
        database = {"version": "simulated", "database": _draw_database(spec)}
    else:
        if not read_annotations(annotations).label_ids:
            raise ValueError(f"{annotations}: no events in it")
        database = load_json(annotations)
    (out / "features").mkdir(parents=True, exist_ok=True)
    json_file = out / "annotations.json"
    json_file.write_text(json.dumps(database), encoding="utf-8")
    parsed = read_annotations(json_file)
    num_classes = max(parsed.label_ids.values()) + 1
    prototypes = _prototypes(spec, num_classes)
    folder = out.absolute()  # absolute, since reused joblib processes keep an old working directory
    work = (joblib.delayed(_write_video)(folder, video, prototypes, spec) for video in parsed.videos)
    for _ in tqdm(
        joblib.Parallel(n_jobs=jobs, return_as="generator")(work),
        total=len(parsed.videos), desc="simulating", unit="video", leave=False, disable=None if progress else True,
    ):  # fmt: skip
        pass
    facts: Simulated = {
        "json_file": str(json_file),
        "feat_folder": str(out / "features"),
        "num_classes": num_classes,
        "splits": sorted({video.subset for video in parsed.videos}),
        "videos": len(parsed.videos),
    }
    source = annotations and str(annotations)
    record = {"synthetic": True, "spec": asdict(spec), "annotations": source, **facts}
    (out / "simulation.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return facts


def _draw_database(spec: Simulation) -> dict[str, VideoEntry]:
    """Videos with random durations and events."""
    rng = np.random.default_rng(derive_seed(spec.seed, "events"))
    database: dict[str, VideoEntry] = {}
    for subset, count in (("training", spec.num_train), ("test", spec.num_test)):
        for i in range(count):
            duration = round(float(rng.uniform(*spec.duration)), 2)
            database[f"video_{subset}_{i:04d}"] = {
                "subset": subset,
                "duration": duration,
                "fps": spec.fps,
                "annotations": _draw_events(spec, duration, i, rng),
            }
    return database


def _draw_events(spec: Simulation, duration: float, number: int, rng: np.random.Generator) -> list[EventEntry]:
    """Consecutive events with pauses; about 70 % are of the video's main class, as in sports videos."""
    main = number % spec.num_classes  # so that every class has a video
    events: list[EventEntry] = []
    time = float(rng.uniform(1.0, 4.0))
    while True:
        length = float(np.clip(rng.lognormal(np.log(4.0), 0.6), 0.8, 20.0))
        if time + length > duration - 0.5:
            break
        label = main if rng.random() < 0.7 else int(rng.integers(spec.num_classes))
        segment = [round(time, 2), round(time + length, 2)]
        events.append({"label": f"action_{label:02d}", "label_id": label, "segment": segment})
        time += length + float(rng.exponential(3.0)) + 0.5
    return events


def _prototypes(spec: Simulation, num_classes: int) -> dict[str, np.ndarray]:
    """Unit prototypes of classes (num_classes, C) and of background scenes (8, C)."""
    rng = np.random.default_rng(derive_seed(spec.seed, "prototypes"))
    num_groups = -(-num_classes // spec.group_size)
    group = rng.standard_normal((num_groups, spec.channels))
    individual = rng.standard_normal((num_classes, spec.channels))
    shared = 0.6 + 0.3 * spec.difficulty
    action = shared * group[np.arange(num_classes) // spec.group_size] + (1 - shared**2) ** 0.5 * individual
    scene = rng.standard_normal((8, spec.channels))
    return {
        name: table / np.linalg.norm(table, axis=1, keepdims=True)
        for name, table in (("action", action), ("scene", scene))
    }


def _write_video(out: Path, video: Video, prototypes: dict[str, np.ndarray], spec: Simulation) -> None:
    """Draws the features of a video and writes them as float16 (T, C)."""
    rng = np.random.default_rng(derive_seed(spec.seed, video.id, "features"))
    fps = video.fps or spec.fps
    duration = video.duration or max((event.end for event in video.events), default=10.0) + 2.0
    steps = max(int((duration * fps - spec.num_frames) // spec.feat_stride) + 1, 4)
    share = _action_share(video, len(prototypes["action"]), steps, fps, spec)  # (T, K)
    signal = 1.6 - 1.1 * spec.difficulty
    noise = 0.06 + 0.1 * spec.difficulty
    background = (1 - share.max(axis=1, keepdims=True)).clip(min=0)
    hard = (
        _smooth(rng, steps, len(prototypes["action"])) * spec.background_share
    )  # hard background: weak action prototypes
    feats = signal * (share + background * hard) @ prototypes["action"]
    feats += 0.5 * background * (_smooth(rng, steps, len(prototypes["scene"])) @ prototypes["scene"])
    feats *= rng.uniform(0.7, 1.3, size=(1, spec.channels))  # the video's style: gain and shift per channel
    feats += 0.12 * rng.standard_normal((1, spec.channels))
    window = max(spec.num_frames // spec.feat_stride, 1)
    white = rng.standard_normal((steps + window - 1, spec.channels))
    totals = np.cumsum(np.vstack([np.zeros((1, spec.channels)), white]), axis=0)
    feats += noise * (totals[window:] - totals[:-window]) / window**0.5  # overlapping windows share their noise
    np.save(out / "features" / f"{video.id}.npy", feats.astype(np.float16))


def _action_share(video: Video, num_classes: int, steps: int, fps: float, spec: Simulation) -> np.ndarray:
    """(T, K) share of each step's window that events of each class cover."""
    start = np.arange(steps) * spec.feat_stride / fps
    end = start + spec.num_frames / fps
    share = np.zeros((steps, num_classes))
    for event in video.events:
        inside = (np.minimum(end, event.end) - np.maximum(start, event.start)).clip(min=0) / (end - start)
        share[:, event.label_id] = np.maximum(share[:, event.label_id], inside)
    return share


def _smooth(rng: np.random.Generator, steps: int, count: int) -> np.ndarray:
    """(T, count) non-negative weights that change over a few seconds; each row sums to at most 1."""
    knots = rng.dirichlet(np.full(count, 0.3), size=max(steps // 40, 2))
    at = np.linspace(0, len(knots) - 1, steps)
    return np.stack([np.interp(at, np.arange(len(knots)), knots[:, j]) for j in range(count)], axis=1)
