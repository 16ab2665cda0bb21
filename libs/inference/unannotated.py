"""Videos that have features but no annotations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from libs.core.types import DatasetConfig
from libs.datasets.features import EXTENSIONS, FeatureFiles, file_format, files_below, is_hdf5
from libs.datasets.grid import GridRule, resize
from libs.datasets.video import VideoItem
from libs.extraction.failures import FAILED


class Source(NamedTuple):
    """Where the features of a video are: `name` is the video's id in `files`."""

    files: FeatureFiles
    name: str

    def read(self) -> np.ndarray:
        """(T, C) float32; raises as `FeatureFiles.read`."""
        return self.files.read(self.name)

    def timed(self, timing: Timing, section: DatasetConfig) -> Timing:
        """The timing with what the sidecar of the features says about the rest; raises ValueError if it says
        otherwise."""
        sidecar = self.files.sidecar(self.name)
        if sidecar is None:
            return timing
        stride, frames = timing.feat_stride, timing.num_frames
        sidecar.check(
            source=str(self.files.path(self.name)),
            feat_stride=section["feat_stride"] if stride is None else stride,
            num_frames=section["num_frames"] if frames is None else frames,
            fps=section["default_fps"] if timing.fps is None else timing.fps,
        )
        fps = sidecar.fps if timing.fps is None else timing.fps
        return timing._replace(fps=fps, duration=sidecar.duration if timing.duration is None else timing.duration)


class Timing(NamedTuple):
    """Timing of a video and its features; None: the configuration's value."""

    fps: float | None = None  # frames per second
    duration: float | None = None  # seconds; None: the end of the features
    feat_stride: float | None = None  # frames between consecutive features; <= 0: spread over the duration
    num_frames: float | None = None  # frames covered by one feature


class UnannotatedVideos(Dataset):
    """Test videos like those of `TALDataset`, from feature files alone. Features are read on access.

    Args:
        sources: video id -> source, see `find_features`.
        section: `dataset` section of a configuration.
    """

    def __init__(self, sources: dict[str, Source], section: DatasetConfig, timing: Timing) -> None:
        self.sources, self.section, self.timing = list(sources.items()), section, timing
        self.durations: dict[str, float] = {}  # video id -> seconds, for the videos read so far

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> VideoItem:
        video_id, source = self.sources[index]
        video = make_video(video_id, source.read(), self.section, source.timed(self.timing, self.section))
        self.durations[video_id] = video["duration"]
        return video


def find_features(
    paths: Sequence[str | os.PathLike],
    *,
    channels: int | Sequence[int],
    prefix: str | None = None,
    ext: str = ".npy",
    more_folders: Sequence[str | os.PathLike] = (),
) -> dict[str, Source]:
    """Finds feature files: video id -> source, in the given order; files of a folder in the order of their names.

    Args:
        paths: feature files of a format in `EXTENSIONS`, HDF5 files, or folders. Folders are searched with their
            subfolders, whose names are part of the id: "day1/camera2".
        channels: see `FeatureFiles`.
        prefix, ext: parts of a file's name that are not part of the video id; the ending of another format is removed
            too.
        more_folders: folders (or HDF5 files) with further features of the same videos, concatenated along the channels.

    Raises:
        FileNotFoundError: no such path, or a folder without feature files.
        ValueError: another format, or two files with the same id.
    """
    sources: dict[str, Source] = {}
    files: dict[str, Path] = {}
    for path in (Path(p) for p in paths):
        for folder, name, ending in _expand(path, prefix, ext):
            video_id = name.removeprefix(prefix or "")
            file = folder / f"{name}{ending}" if ending else folder
            if video_id in sources:
                raise ValueError(f"two feature files of video '{video_id}': {files[video_id]} and {file}")
            folders = [str(folder), *map(str, more_folders)]
            files[video_id] = file
            sources[video_id] = Source(FeatureFiles(folders, ext=ending or ext, channels=channels), name)
    return sources


def _expand(path: Path, prefix: str | None, ext: str) -> list[tuple[Path, str, str]]:
    """(folder or HDF5 file, name in it, ending of the name) of each feature file that a path stands for."""
    if is_hdf5(path):
        files = FeatureFiles(str(path), prefix=prefix, channels=1)
        return [(path, (prefix or "") + video_id, "") for video_id in files.ids()]
    if path.is_dir():
        inside = sorted(n for n in files_below(path) if n.lower().endswith(EXTENSIONS) and Path(n).name != FAILED)
        if not inside:
            raise FileNotFoundError(f"no feature file ({', '.join(EXTENSIONS)}) in folder {path}")
        return [(path, *_split_ending(name, ext)) for name in inside]
    if not path.is_file():
        raise FileNotFoundError(f"neither a feature file nor a folder of them: {path}")
    try:
        file_format(path.name)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return [(path.parent, *_split_ending(path.name, ext))]


def _split_ending(name: str, ext: str) -> tuple[str, str]:
    """Splits a file name into stem and ending: `ext` if the name ends with it, else the last suffix."""
    ending = ext if name.endswith(ext) and not name.endswith("/" + ext) else Path(name).suffix
    return name.removesuffix(ending), ending


def make_video(video_id: str, feats: np.ndarray, section: DatasetConfig, timing: Timing) -> VideoItem:
    """The model's input for a test video: see `TALDataset.__getitem__`.

    Args:
        feats: (T, C).
        section: `dataset` section of a configuration.

    Raises:
        ValueError: features of another shape or not finite, or a time that is missing or not positive; names the video.
    """
    _check_features(video_id, feats, section["input_dim"])
    for name in Timing._fields:
        value = getattr(timing, name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise ValueError(f"{name} {value!r}: expected a number, found a {type(value).__name__}")
        least = 0 if name == "num_frames" else np.nextafter(0, 1)
        if name == "feat_stride" and not np.isfinite(value):
            raise ValueError(f"{name} {value}: expected a finite number")
        if name != "feat_stride" and not least <= value < float("inf"):
            raise ValueError(f"{name} {value}: expected a positive number")
    rule = GridRule(
        feat_stride=section["feat_stride"] if timing.feat_stride is None else timing.feat_stride,
        num_frames=section["num_frames"] if timing.num_frames is None else timing.num_frames,
        downsample_rate=section["downsample_rate"],
        max_seq_len=section["max_seq_len"],
        force_upsampling=section["force_upsampling"],
    )
    fps = section["default_fps"] if timing.fps is None else timing.fps
    duration = timing.duration
    if rule.feat_stride <= 0 and duration is None:
        raise ValueError(
            f"video '{video_id}': feat_stride {rule.feat_stride} spreads the features over the video: give its "
            f"duration, or the feat_stride"
        )
    if rule.feat_stride <= 0 and fps is None:
        fps = 1.0  # its value cancels out
    if fps is None:
        raise ValueError(f"video '{video_id}': give its fps; the configuration has no dataset.default_fps")
    if duration is None:
        duration = ((len(feats) - 1) * rule.feat_stride + rule.num_frames) / fps
    grid = rule.grid(video_id, len(feats), duration * fps)
    return {
        "video_id": video_id,
        "feats": resize(feats[:: rule.downsample_rate] if rule.regular else feats, grid),
        "segments": None,
        "labels": None,
        "fps": fps,
        "duration": duration,
        "feat_stride": grid.stride,
        "feat_num_frames": grid.num_frames,
        "feat_start": 0,
    }


def _check_features(video_id: str, feats: np.ndarray, input_dim: int | list[int]) -> None:
    channels = input_dim if isinstance(input_dim, int) else sum(input_dim)
    if feats.ndim != 2 or not len(feats) or feats.shape[1] != channels:
        hint = "; T and C look swapped" if feats.ndim == 2 and feats.shape[0] == channels else ""
        raise ValueError(f"video '{video_id}': expected features (T, {channels}), found {feats.shape}{hint}")
    if not np.isfinite(feats).all():
        raise ValueError(f"video '{video_id}': its features hold numbers that are not finite")
