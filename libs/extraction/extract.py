"""Videos -> feature files with sidecars: batches over clips of several videos, decoding ahead of the network."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from libs.core.extras import need
from libs.datasets.sidecar import Sidecar, differences, read_sidecar, sidecar_path

from .clips import clips
from .decode import VideoFile, at_rate
from .extractor import Extractor
from .failures import Failures

logger = logging.getLogger(__name__)
T = TypeVar("T")
AHEAD = 64  # frames that are decoded ahead of the network
PRODUCER = "decoding"  # name of the thread that does so
PACKAGES = ("torch", "torchvision", "av")


@dataclass
class Extraction:
    """What became of the videos, by path."""

    made: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)  # with features of the same settings
    failed: dict[str, str] = field(default_factory=dict)  # reason
    frames: int = 0  # of the videos that were made


@dataclass
class _Video:
    """A video in work."""

    path: str
    features: Path
    fps: Fraction = Fraction(0)
    digest: str = ""
    frames: int = 0
    rows: list[Tensor] = field(default_factory=list)
    error: str | None = None


def extract(
    videos: Sequence[str], out: str | os.PathLike, extractor: Extractor, *, fps: Fraction | None = None, batch: int = 8,
    workers: int = 0, overwrite: bool = False, on_video: Callable[[str], object] = lambda path: None,
    progress: bool = False,
) -> Extraction:  # fmt: skip
    """Extracts features of videos into a folder: NAME.npy (N, C) float32 and its sidecar NAME.json.

    A video whose files are there already, with the same settings, is left as it is; so an extraction that ended early
    goes on. A video that cannot be read does not stop the others; it is listed in `failed.csv`.

    Args:
        fps: frames per second that the network sees; None: each video's own.
        batch: clips that go through the network at once, always as many, so that the features of a clip do not depend
            on the others.
        workers: threads that bring frames to the network's size, beside the one that decodes.
        overwrite: extract again what is there.
        on_video: called with the path of every video that was extracted or has failed.
        progress: show a bar of frames.

    Raises:
        ValueError: two videos have the same name, or features that are there have other settings.
    """
    out, result = Path(out), Extraction()
    failures = Failures(out)
    out.mkdir(parents=True, exist_ok=True)
    need("av", extra="video", what="decoding videos")
    check_names(videos)
    wanted = [_Video(path, features_of(path, out)) for path in videos]
    if not overwrite:
        result.there = [video.path for video in wanted if is_there(video.path, out, extractor, fps)]
        for path in result.there:
            failures.note(path, None)
        there = set(result.there)
        wanted = [video for video in wanted if video.path not in there]
    expected = sum(expected_frames(video.path, fps) for video in wanted) if progress else None
    with tqdm(total=expected, unit="frame", leave=False, disable=None if progress else True) as bar:
        for group in groups(_clips_of(wanted, extractor, fps, workers), batch):
            chosen = [(video, clip) for video, clip in group if clip is not None]
            if chosen:
                full = [clip for _, clip in chosen] + [chosen[-1][1]] * (batch - len(chosen))
                found = extractor(torch.stack(full))
                for (video, _), row in zip(chosen, found[: len(chosen)], strict=True):
                    video.rows.append(row)
                bar.update(len(chosen) * extractor.stride)
            for video in (video for video, clip in group if clip is None):
                _finish(video, extractor, result)
                failures.note(video.path, video.error)
                on_video(video.path)
    return result


def _clips_of(
    videos: Iterable[_Video], extractor: Extractor, fps: Fraction | None, workers: int
) -> Iterator[tuple[_Video, Tensor | None]]:
    """The clips of all videos one after another, and after those of each video None."""
    stream = ahead(_frames_of(videos, extractor, fps, workers), AHEAD)
    for video in videos:
        frames = (frame for frame in iter(lambda: next(stream), None))  # until the end of the video
        for clip in clips(frames, window=extractor.window, stride=extractor.stride):
            yield video, clip
        yield video, None


def _frames_of(
    videos: Iterable[_Video], extractor: Extractor, fps: Fraction | None, workers: int
) -> Iterator[Tensor | None]:
    """The frames of all videos as the network sees them, and after those of each video None. If a video cannot be read,
    it gets `error`, and its frames end early."""
    for video in videos:
        try:
            file = VideoFile(video.path)
            video.digest, video.fps = digest_of(video.path), fps or file.rate
            for frame in extractor.frames(at_rate(file.frames(), video.fps), workers=workers):
                video.frames += 1
                yield frame
        except (ValueError, OSError) as error:
            video.error = str(error)
        yield None


def groups(stream: Iterable[tuple[_Video, Tensor | None]], size: int) -> Iterator[list[tuple[_Video, Tensor | None]]]:
    """The stream in parts of `size` clips, and the rest; a part also has the ends of videos between and after them."""
    part: list[tuple[_Video, Tensor | None]] = []
    for video, clip in stream:
        if clip is not None and sum(c is not None for _, c in part) == size:
            yield part
            part = []
        part.append((video, clip))
    if part:
        yield part


def ahead(items: Iterable[T], size: int) -> Iterator[T]:
    """The same items, made in a thread that is at most `size` of them ahead. An exception there is raised here."""
    waiting: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(size)
    ended = threading.Event()

    def put(kind: str, item: T | BaseException | None) -> bool:
        while not ended.is_set():
            try:
                waiting.put((kind, item), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:  # handed over, whatever it is
            put("error", error)

    thread = threading.Thread(target=make, daemon=True, name=PRODUCER)
    thread.start()
    try:
        while True:
            kind, item = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(item, BaseException)
                raise item
            yield item  # type: ignore[misc]
    finally:
        ended.set()
        thread.join()


def _finish(video: _Video, extractor: Extractor, result: Extraction) -> None:
    """Writes features and sidecar of a video, or notes that it failed."""
    if video.error is not None:
        result.failed[video.path] = video.error
        logger.warning("%s", video.error)
        return
    features = torch.stack(video.rows).numpy().astype(np.float32)
    sidecar_path(video.features).unlink(missing_ok=True)  # of an earlier extraction: it comes back last
    part = video.features.with_name(f".{video.features.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            np.save(file, features)
        os.replace(part, video.features)
    finally:
        part.unlink(missing_ok=True)
    Sidecar(
        **extractor.settings(), video=Path(video.path).name, digest=video.digest, fps=float(video.fps),
        frames=video.frames, duration=float(video.frames / video.fps), rows=len(features), versions=versions(),
    ).write(sidecar_path(video.features))  # last: without it, the video is extracted again  # fmt: skip
    video.rows = []
    result.made.append(video.path)
    result.frames += video.frames


def versions() -> dict[str, str]:
    """Versions of the packages that decide the values."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def digest_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file's size, first and last 64 KiB: enough to tell videos apart."""
    size = os.path.getsize(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(1 << 16))
        file.seek(max(size - (1 << 16), 0))
        digest.update(file.read())
    return digest.hexdigest()


def expected_frames(video: str, fps: Fraction | None) -> int:
    """The number of frames that a video's header promises; 0 if it promises nothing."""
    try:
        file = VideoFile(video)
        return round((file.seconds or 0) * (fps or file.rate))
    except (ValueError, OSError):  # told when it is extracted
        return 0


def check_names(videos: Sequence[str]) -> None:
    """Raises ValueError if two videos would have one feature file."""
    names: dict[str, str] = {}
    for path in videos:
        name = Path(path).stem
        if name in names:
            raise ValueError(
                f"several videos have the name {name}, {names[name]} and {path}; their features would be one file"
            )
        names[name] = path


def features_of(video: str, out: str | os.PathLike) -> Path:
    """The feature file of a video."""
    return Path(out) / f"{Path(video).stem}.npy"


def is_there(video: str, out: str | os.PathLike, extractor: Extractor, fps: Fraction | None) -> bool:
    """Whether a video has features already. Raises ValueError if they have other settings."""
    features = features_of(video, out)
    path = sidecar_path(features)
    if not (features.is_file() and path.is_file()):
        return False
    found = read_sidecar(path)
    wanted = extractor.settings() | ({} if fps is None else {"fps": float(fps)})
    if os.path.isfile(video):
        if found.digest not in ("", digest_of(video)):
            raise ValueError(
                f"{features} is of another video called {found.video}: choose another folder, or --overwrite"
            )
        wanted |= {"fps": float(fps or VideoFile(video).rate)}
    if np.load(features, mmap_mode="r").shape != (found.rows, found.channels):
        return False
    if wrong := differences(found.settings() | {"fps": found.fps}, wanted):
        raise ValueError(f"{features} has other settings ({wrong}): choose another folder, or --overwrite")
    return True
