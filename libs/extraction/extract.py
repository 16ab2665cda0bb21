"""Videos -> feature files with sidecars: batches over clips of several videos, decoding ahead of the network."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from libs.core.extras import need
from libs.datasets.sidecar import Sidecar

from .clips import clips
from .decode import VideoFile, at_rate
from .extractor import Extractor
from .failures import Failures
from .output import OutputFolder, Rows, digest_of
from .pipeline import ahead

logger = logging.getLogger(__name__)
AHEAD = 64  # frames that are decoded ahead of the network
NATIVE = "native"  # frames per second: each video's own
PACKAGES = ("torch", "torchvision", "av")


@dataclass
class Extraction:
    """What became of the videos, by path."""

    made: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)  # with features of the same settings
    elsewhere: list[str] = field(default_factory=list)  # another process has them in work
    failed: dict[str, str] = field(default_factory=dict)  # reason
    frames: int = 0  # of the videos that were made


@dataclass
class _Video:
    """A video in work."""

    path: str
    rows: Rows
    fps: Fraction = Fraction(0)
    digest: str = ""
    frames: int = 0
    lock: FileLock | None = None
    there: bool = False
    error: str | None = None

    def release(self) -> None:
        if self.lock is not None:
            self.lock.release()
            Path(self.lock.lock_file).unlink(missing_ok=True)
            self.lock = None


def extract(
    videos: Sequence[str], out: str | os.PathLike, extractor: Extractor, *, fps: Fraction | str | None = None,
    batch: int | None = None, workers: int = 0, overwrite: bool = False,
    on_video: Callable[[str], object] = lambda path: None, progress: bool = False,
) -> Extraction:  # fmt: skip
    """Extracts features of videos into a folder: NAME.npy (N, C) float32 and its sidecar NAME.json.

    A video whose features are there already, made in the same way, is left as it is; so an extraction that ended early
    goes on, and several processes may work on one folder. A video that cannot be read does not stop the others; it is
    listed in `failed.csv`.

    Args:
        fps: frames per second that the network sees; NATIVE: each video's own; None: what the preset is used to.
        batch: clips that go through the network at once, always as many, so that the features of a clip do not depend
            on the others; None: `Extractor.batch`.
        workers: threads that bring frames to the network's size, beside the one that decodes.
        overwrite: replace features that were made otherwise, and files that no extraction made.
        on_video: called with the path of every video that was extracted or has failed.
        progress: show a bar of frames.

    Raises:
        ValueError: two videos have the same name; what is there was made otherwise, or by others; a batch does not fit
            into the memory of the device.
    """
    rate, batch = output_rate(extractor, fps), batch or extractor.batch
    folder, result = OutputFolder(out, extractor.settings(), fps=rate, overwrite=overwrite), Extraction()
    folder.path.mkdir(parents=True, exist_ok=True)
    need("av", extra="video", what="decoding videos")
    videos = list(dict.fromkeys(videos))
    result.there = folder.there(videos)
    failures, there = Failures(folder.path), set(result.there)
    failures.remove(result.there)
    wanted = [_Video(path, Rows(extractor.channels)) for path in videos if path not in there]
    shown = progress and sys.stderr.isatty()
    expected = sum(expected_frames(video.path, rate) for video in wanted) if shown else None
    try:
        with tqdm(total=expected, unit="frame", leave=False, disable=not shown) as bar:
            for group in groups(_clips_of(wanted, extractor, folder, workers), batch):
                chosen = [(video, clip) for video, clip in group if clip is not None]
                for (video, _), row in zip(chosen, _features(extractor, [c for _, c in chosen], batch), strict=True):
                    video.rows.append(row)
                bar.update(len(chosen) * extractor.stride)
                for video in (video for video, clip in group if clip is None):
                    _finish(video, extractor, folder, failures, result)
                    on_video(video.path)
    finally:
        for video in wanted:
            video.release()
    return result


def output_rate(extractor: Extractor, fps: Fraction | str | None) -> Fraction | None:
    """The frames per second at which videos are seen; None: each video's own. Arguments as of `extract`."""
    return None if fps == NATIVE else Fraction(fps) if fps is not None else extractor.fps


def _features(extractor: Extractor, found: list[Tensor], batch: int) -> Tensor:
    """Features (B, C) of at most `batch` clips."""
    if not found:
        return torch.empty(0, extractor.channels)
    try:
        return extractor(torch.stack(found + found[-1:] * (batch - len(found))))[: len(found)]
    except torch.OutOfMemoryError:
        raise ValueError(f"{batch} clips at once do not fit into the device's memory: give a smaller --batch") from None


def _clips_of(
    videos: Iterable[_Video], extractor: Extractor, folder: OutputFolder, workers: int
) -> Iterator[tuple[_Video, Tensor | None]]:
    """The clips of all videos one after another, and after those of each video None."""
    stream = ahead(_frames_of(videos, extractor, folder, workers), AHEAD)
    for video in videos:
        frames = (frame for frame in iter(lambda: next(stream), None))  # until the end of the video
        for clip in clips(frames, window=extractor.window, stride=extractor.stride):
            yield video, clip
        yield video, None


def _frames_of(
    videos: Iterable[_Video], extractor: Extractor, folder: OutputFolder, workers: int
) -> Iterator[Tensor | None]:
    """The frames of all videos as the network sees them, and after those of each video None. If a video cannot be read,
    it gets `error`, and its frames end early."""
    for video in videos:
        try:
            video.lock = folder.claim(video.path)
            video.there = video.lock is not None and folder.is_there(video.path)
            if video.lock is not None and not video.there:
                file = VideoFile(video.path)
                video.digest, video.fps = digest_of(video.path), folder.fps or file.rate
                for frame in extractor.frames(at_rate(file.frames(), video.fps), workers=workers):
                    video.frames += 1
                    yield frame
        except (ValueError, OSError) as error:
            video.error = str(error)
        except Exception as error:  # of a decoder or a transform, which may raise anything for one video
            video.error = f"{video.path}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
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


def _finish(video: _Video, extractor: Extractor, folder: OutputFolder, failures: Failures, result: Extraction) -> None:
    """Writes features and sidecar of a video, or notes why not."""
    if video.error is not None:
        result.failed[video.path] = video.error
        logger.warning("%s", video.error)
        failures.add(video.path, video.error)
    elif video.lock is None or video.there:  # another process has it, or had it
        (result.there if video.there else result.elsewhere).append(video.path)
    else:
        sidecar = Sidecar(
            **extractor.settings(), video=Path(video.path).name, digest=video.digest, fps=float(video.fps),
            frames=video.frames, duration=float(video.frames / video.fps), rows=video.rows.count,
            versions=versions(extractor.packages),
        )  # fmt: skip
        folder.write(video.path, video.rows.array(), sidecar)
        failures.remove([video.path])
        result.made.append(video.path)
        result.frames += video.frames
    video.rows = Rows(0)
    video.release()


def versions(more: Sequence[str] = ()) -> dict[str, str]:
    """Versions of the packages that decide the values: PACKAGES and `more`."""
    found = {}
    for name in (*PACKAGES, *more):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def expected_frames(video: str, fps: Fraction | None) -> int:
    """The number of frames that a video's header promises; 0 if it promises nothing."""
    try:
        file = VideoFile(video)
        return round((file.seconds or 0) * (fps or file.rate))
    except (ValueError, OSError):  # told when it is extracted
        return 0
