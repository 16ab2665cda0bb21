"""Speed of extraction on CPUs, against the loop that a user would write; and its memory.

    python benchmarks/extraction.py [--repeats 3] [--threads 2]

Writes docs/benchmarks/extraction.{md,json}. Videos are made by the program: 340 x 256, H.264, 30 frames per second, a
key frame every 12 frames, noise that moves. Windows of 16 frames, a clip every 4. The loop seeks each clip,
decodes it, runs the network on it, and goes on to the next. Both see the same frames, and both have random weights; the
features are compared.
"""

from __future__ import annotations

import argparse
import copy
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from models import machine, ratio_text, write
from torch import Tensor

from libs.core.markdown import markdown_table
from libs.extraction.decode import VideoFile, at_rate
from libs.extraction.extract import extract
from libs.extraction.extractor import Extractor

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
PRESETS = ("s3d", "r2plus1d_18")
WINDOW, STRIDE, RATE = 16, 4, 30
LENGTHS = (10, 60, 300)  # seconds of the videos whose memory is measured


def make_video(path: Path, frames: int) -> Path:
    """Writes a video."""
    import av

    rng = np.random.default_rng(0)
    ground = rng.integers(0, 256, (256, 340, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.options = 340, 256, "yuv420p", {"g": "12"}
        for k in range(frames):
            picture = np.roll(ground, 3 * k, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@torch.no_grad()
def plain(path: Path, extractor: Extractor, network: torch.nn.Module, frames: int) -> Tensor:
    """The loop of a user: each clip by itself, with the network as torchvision has it."""
    rows = []
    for start in range(0, frames - WINDOW + 1, STRIDE):
        clip = torch.stack([extractor.transform(image) for image in clip_at(path, start)], dim=1)
        rows.append(network(clip[None]))
    return torch.cat(rows)


def clip_at(path: Path, start: int) -> Iterator[np.ndarray]:
    """The frames of one clip."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        container.seek(round(start / RATE / stream.time_base), stream=stream)
        count = 0
        for frame in container.decode(stream):
            if round(frame.time * RATE) >= start:
                yield frame.to_ndarray(format="rgb24")
                count += 1
            if count == WINDOW:
                return


def whole(path: Path, extractor: Extractor) -> Tensor:
    """This project's extraction."""
    with tempfile.TemporaryDirectory() as out:
        extract([str(path)], out, extractor)
        return torch.from_numpy(np.load(Path(out) / f"{path.stem}.npy"))


def alone(extractor: Extractor, clips: int) -> None:
    """The network on as many clips, in batches that are there already."""
    frame = extractor.transform(np.zeros((256, 340, 3), np.uint8))
    batch = torch.stack([torch.stack([frame] * WINDOW)] * extractor.batch)
    for _ in range(-(-clips // extractor.batch)):
        extractor(batch)


def seconds_of(call: Callable[..., T], *arguments: Any) -> tuple[float, T]:
    """The time of a call, and what it returns."""
    start = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - start, result


def times_of(path: Path, frames: int, name: str, repeats: int) -> dict[str, Any]:
    """Seconds of a preset: this project, the loop, and the network alone, in turn."""
    from libs.extraction.presets import make_extractor

    extractor = make_extractor(name, seed=0, window=WINDOW, stride=STRIDE)
    as_it_is = copy.deepcopy(extractor.network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    clips = (frames - WINDOW) // STRIDE + 1
    found: dict[str, Any] = {"preset": name, "clips": clips, "ours": [], "plain": [], "network": []}
    for _ in range(repeats):
        spent, ours = seconds_of(whole, path, extractor)
        found["ours"].append(spent)
        spent, other = seconds_of(plain, path, extractor, as_it_is, frames)
        found["plain"].append(spent)
        torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-3)
        spent, _ = seconds_of(alone, extractor, clips)
        found["network"].append(spent)
    return found


def decoding(path: Path, frames: int, extractor: Extractor) -> dict[str, float]:
    """Frames per second of decoding alone, and with the transform."""
    file = VideoFile(path)
    decoded, images = seconds_of(list[np.ndarray], at_rate(file.frames(), Fraction(RATE)))
    assert len(images) == frames
    both, _ = seconds_of(list[Tensor], extractor.frames(at_rate(file.frames(), Fraction(RATE))))
    return {"decoding": frames / decoded, "decoding and transform": frames / both}


class Mean(torch.nn.Module):
    """A network that costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, h, w) -> (B, 3)."""
        return clips.mean(dim=(2, 3, 4)) * self.scale


def memory(path: str) -> None:
    """Prints the peak memory of this process after an extraction, in MiB."""
    extractor = Extractor(
        name="mean", window=WINDOW, stride=STRIDE, channels=3, spatial="preset", network=Mean(), weights="random 0",
        transform=lambda image: torch.from_numpy(image).permute(2, 0, 1).float(),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        extract([path], out, extractor)
    status = Path("/proc/self/status").read_text()  # not getrusage, which counts the parent's memory too
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def main() -> None:
    """Measures and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    runpy.run_path(str(ROOT / "tests" / "extraction" / "operators.py"))["import_torchvision"]()
    from libs.extraction.presets import make_extractor

    with tempfile.TemporaryDirectory() as folder:
        path = make_video(Path(folder) / "v.mp4", args.frames)
        presets = [times_of(path, args.frames, name, args.repeats) for name in PRESETS]
        rates = {name: decoding(path, args.frames, make_extractor(name, seed=0)) for name in PRESETS}
        peaks = {}
        for seconds in LENGTHS:
            video = make_video(Path(folder) / f"m{seconds}.mp4", seconds * RATE)
            done = subprocess.run(
                [sys.executable, __file__, "--memory-of", str(video)], check=True, stdout=subprocess.PIPE, text=True
            )
            peaks[seconds] = float(done.stdout.split()[-1])
    write("extraction", page(presets, rates, peaks, args), {
        "machine": machine(args.threads), "presets": presets, "decoding": rates, "peak_mib": peaks,
    })  # fmt: skip


def page(presets: list[dict], rates: dict, peaks: dict[int, float], args: argparse.Namespace) -> list[str]:
    """The lines of the page."""
    rows = []
    for found in presets:
        ours, other, network = (found[key] for key in ("ours", "plain", "network"))
        rows.append(
            [
                found["preset"], f"{found['clips'] / statistics.median(ours):.2f}",
                f"{found['clips'] / statistics.median(other):.2f}",
                ratio_text([b / a for a, b in zip(ours, other, strict=True)]),
                ratio_text([b / a for a, b in zip(ours, network, strict=True)]),
                *(f"{rate:.0f}" for rate in rates[found["preset"]].values()),
            ]
        )  # fmt: skip
    titles = ["preset", "clips/s", "the loop", "times faster", "speed over the network's", "frames/s decoded",
              "and transformed"]  # fmt: skip
    return [
        "# Extraction", "",
        f"{machine(args.threads)}. Windows of {WINDOW} frames of 340 x 256, a clip every {STRIDE}; medians of "
        f"{args.repeats}, in turn (lowest and highest ratio). The loop seeks, decodes and computes one clip after the "
        "other with torchvision's network. The network's speed is that on batches in memory: at 1.00 decoding would "
        "cost nothing.",
        "", markdown_table(titles, rows), "",
        "Peak memory of a process that extracts a video of "
        + ", ".join(f"{seconds} s: {peak:.0f} MiB" for seconds, peak in peaks.items())
        + " (a network that costs nothing).",
        "",
        f"Made by `python benchmarks/extraction.py --repeats {args.repeats} --threads {args.threads} "
        f"--frames {args.frames}`.",
    ]  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory-of"]:
        memory(sys.argv[2])
    else:
        main()
