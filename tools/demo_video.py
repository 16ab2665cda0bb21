"""The demonstration of `make demo VIDEO=1`: from video files to detections in a video that was not trained on.

python tools/demo_video.py

Makes small videos of a square that rests, slides or circles; the two motions are the actions. Then calls the commands
that a user calls, and prints each: extract, check-data, train, predict. The network that makes the features has random
weights, since a demonstration should need no download; features of trained weights are far better.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd

from actionformer_nt.commands.main import main, tool
from libs.core.extras import need
from libs.core.files import write_text

FOLDER = Path("demo/video")
HEIGHT, WIDTH, SIDE = 96, 128, 18  # pixels, of the picture and of the square
RATE = 25  # frames per second
SECONDS, VIDEOS, TESTED = 20, 10, 2
CONFIG, RUN = "configs/demo_video.yaml", FOLDER / "runs/demo_video_first"
PRESET = "--preset i3d-rgb --random-weights 0"
Event = tuple[float, float, str]  # start and end in seconds, class


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(_: argparse.Namespace) -> int:
    """Makes the videos and calls the commands; returns the exit status of the first that fails, or 0."""
    new = make_data()
    print(f"{FOLDER}/videos: {VIDEOS} videos of {SECONDS} s; {FOLDER}/annotations.json: their events")
    commands = [
        f"extract {FOLDER}/videos {FOLDER}/features {PRESET} --window 9 --stride 8 --fps 12.5",
        f"check-data {CONFIG}",
        f"train {CONFIG} --output first --overwrite",
        f"eval {CONFIG} {RUN}",
        f"predict {CONFIG} {RUN} {FOLDER}/new.mp4 --threshold 0.3 --overlay --out {FOLDER}/predictions",
    ]
    for command in commands:
        print(f"\n$ actionformer-nt {command}", flush=True)
        if status := main(shlex.split(command)):
            return status
    found = pd.read_csv(FOLDER / "predictions" / "predictions.csv").sort_values("start")
    print(f"\nwhat happens in new.mp4: {as_text(new)}")
    print(f"what was found:          {as_text(zip(found['start'], found['end'], found['label'], strict=True))}")
    print(f"to look at:              {FOLDER}/predictions/new_overlay.mp4, new.png, new.srt")
    return 0


def as_text(events: Iterable[Event]) -> str:
    """Events in one line."""
    return ", ".join(f"{name} {start:.1f}-{end:.1f} s" for start, end, name in events)


def make_data(*, videos: int = VIDEOS, seconds: float = SECONDS) -> list[Event]:
    """Writes the videos, their annotations, and one more video, whose events are returned."""
    (FOLDER / "videos").mkdir(parents=True, exist_ok=True)
    database = {}
    for k in range(videos):
        events = make_video(FOLDER / "videos" / f"video{k}.mp4", seed=k, seconds=seconds)
        database[f"video{k}"] = {
            "subset": "test" if k >= videos - TESTED else "training",
            "annotations": [{"segment": [start, end], "label": name} for start, end, name in events],
        }
    write_text(FOLDER / "annotations.json", json.dumps({"database": database}, indent=1) + "\n")
    return make_video(FOLDER / "new.mp4", seed=videos, seconds=seconds)


def make_video(path: Path, *, seed: int, seconds: float) -> list[Event]:
    """Writes a video; returns its events."""
    av = need("av", extra="video", what="the demonstration")
    rng = np.random.default_rng(seed)
    events = random_events(rng, seconds)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for image in pictures(events, rng, seconds):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return events


def random_events(rng: np.random.Generator, seconds: float) -> list[Event]:
    """Events of 2.5 to 5 s with pauses of 1.5 to 3 s."""
    events: list[Event] = []
    start = rng.uniform(1, 2)
    while (end := start + rng.uniform(2.5, 5)) < seconds - 1:
        events.append((round(start, 2), round(end, 2), ["slide", "circle"][rng.integers(2)]))
        start = end + rng.uniform(1.5, 3)
    return events


def pictures(events: list[Event], rng: np.random.Generator, seconds: float) -> Iterator[np.ndarray]:
    """The frames, (HEIGHT, WIDTH, 3) uint8."""
    ground = rng.integers(30, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for k in range(round(seconds * RATE)):
        time = float(Fraction(k, RATE))
        down, right = next((place(name, time - start) for start, end, name in events if start <= time < end), (0, 0))
        top, left = round((HEIGHT - SIDE) / 2 + down), round((WIDTH - SIDE) / 2 + right)
        picture = ground.copy()
        picture[top : top + SIDE, left : left + SIDE] = 230
        yield picture


def place(name: str, seconds: float) -> tuple[float, float]:
    """Where the square is after the start of an event, in pixels down and to the right of the middle."""
    if name == "slide":
        return 0, 45 * np.sin(2 * np.pi * seconds)
    angle = 2 * np.pi * seconds / 1.6
    return 28 * np.sin(angle), 28 * (np.cos(angle) - 1)


if __name__ == "__main__":
    sys.exit(tool(sys.modules[__name__]))
