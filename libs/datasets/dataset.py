"""The data set of all benchmarks and of users' own data."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset

from libs.core.seeding import derive_seed

from .annotations import Annotations, Video, duplicate_mask, read_annotations
from .crop import random_crop
from .features import FeatureFiles, read_sidecars
from .grid import Grid, GridRule, resize
from .labels import label_names
from .presets import Preset
from .video import SampleKey, VideoItem

logger = logging.getLogger(__name__)


class Attributes(TypedDict):
    """What `TALDataset.get_attributes` returns, as in ActionFormer."""

    dataset_name: str
    tiou_thresholds: np.ndarray  # (T,)
    empty_label_ids: list[int]  # ids below `num_classes` that no label has


class TALDataset(Dataset):
    """Features and events of one or more subsets of an annotation file.

    Args:
        preset: rules of the benchmark for reading and evaluating.
        is_training: crop randomly, and return segments in grid steps. Videos marked `"labeled": false` are left out
            unless `video_ids` names them.
        split: subsets, in lower case.
        seed: seed of the random crops; a crop depends only on (seed, epoch, index).
        annotations: used instead of reading `json_file`.
        video_ids: restricts the subsets to these videos.

    The other arguments are the keys of the `dataset` section of a configuration.

    Raises:
        FileNotFoundError: annotation or feature files are missing.
        ValueError: no video to read, labels that contradict `num_classes`, missing values; names the file and the
            video.
    """

    def __init__(
        self,
        preset: Preset,
        is_training: bool,
        split: Sequence[str],
        *,
        json_file: str,
        feat_folder: str | list[str],
        file_prefix: str | None,
        file_ext: str,
        feat_stride: float,
        num_frames: float,
        default_fps: float | None,
        input_dim: int | list[int],
        num_classes: int,
        downsample_rate: int,
        max_seq_len: int,
        trunc_thresh: float,
        crop_ratio: tuple[float, float] | None,
        force_upsampling: bool = False,
        tiou_thresholds: list[float] | None = None,
        missing_features: str | None = None,
        duplicates: str | None = None,
        cache_mib: int = 0,
        seed: int = 0,
        annotations: Annotations | None = None,
        video_ids: frozenset[str] | None = None,
    ) -> None:
        self.preset, self.is_training, self.split, self.seed = preset, is_training, tuple(split), seed
        self.json_file, self.num_classes, self.input_dim = json_file, num_classes, input_dim
        self.feat_stride, self.num_frames, self.default_fps = feat_stride, num_frames, default_fps
        self.downsample_rate, self.max_seq_len = downsample_rate, max_seq_len
        self.trunc_thresh, self.crop_ratio, self.force_upsampling = trunc_thresh, crop_ratio, force_upsampling
        self.rule = GridRule(
            feat_stride=feat_stride, num_frames=num_frames, downsample_rate=downsample_rate, max_seq_len=max_seq_len,
            force_upsampling=force_upsampling,
        )  # fmt: skip
        self.tiou_thresholds = np.array(tiou_thresholds or preset.tiou)
        self.remove_duplicates = (duplicates or preset.duplicates) == "remove"
        if force_upsampling and not preset.spread:
            raise ValueError("dataset.force_upsampling: only for dataset_name 'anet' or 'generic'")
        if feat_stride <= 0 and not preset.spread:
            raise ValueError(f"dataset.feat_stride: {feat_stride} must be positive (<= 0 only for 'anet' or 'generic')")

        if annotations is None:
            annotations = read_annotations(json_file)
        self.label_dict = annotations.label_ids  # class name -> id
        self.features = FeatureFiles(
            feat_folder, prefix=file_prefix, ext=file_ext, channels=input_dim, cache_bytes=cache_mib * 2**20
        )
        self.class_agnostic = preset.class_agnostic and num_classes == 1
        self.empty_label_ids = self._check_labels()
        videos = annotations.of_subsets(self.split)
        if video_ids is not None:
            videos = [video for video in videos if video.id in video_ids]
            if not videos:
                raise ValueError(f"{json_file}: none of the {len(video_ids)} videos asked for is in {list(self.split)}")
        elif is_training:
            videos = self._labeled(videos)
        self.videos = self._present(videos, missing_features or preset.missing_features)
        rates = {video.id: video.fps if default_fps is None else default_fps for video in self.videos}
        self.sidecars = read_sidecars(self.features, rates, feat_stride=feat_stride, num_frames=num_frames)
        for video in self.videos:  # report missing times now, not in the middle of an epoch
            self._fps(video), self._duration(video)
        self.features.length(self.videos[0].id)  # checks one file; the others are checked when they are read

    def _labeled(self, videos: list[Video]) -> list[Video]:
        """The videos that are not marked `labeled: false`; raises ValueError if there are none."""
        labeled = [video for video in videos if video.labeled]
        if not labeled:
            raise ValueError(
                f"{self.json_file}: nothing to learn: all {len(videos)} videos of {list(self.split)} are marked "
                "labeled: false"
            )
        if len(labeled) < len(videos):
            logger.info(
                "split %s: %d of %d videos are marked labeled: false and left out",
                list(self.split), len(videos) - len(labeled), len(videos),
            )  # fmt: skip
        return labeled

    def _check_labels(self) -> list[int]:
        """Class ids below `num_classes` without a label. Raises ValueError if the labels do not fit `num_classes`."""
        if self.class_agnostic:
            return []
        ids = set(self.label_dict.values())
        outside = {name: i for name, i in self.label_dict.items() if not 0 <= i < self.num_classes}
        if outside:
            raise ValueError(
                f"{self.json_file}: label ids outside [0, dataset.num_classes={self.num_classes}): {outside}; "
                f"num_classes must be at least {max(ids) + 1} and ids must not be negative"
            )
        if not ids:
            return []  # no annotations: training and evaluation report this, and prediction may use every class
        if self.preset.all_classes and len(ids) != self.num_classes:
            raise ValueError(
                f"{self.json_file}: {len(ids)} different labels, but dataset.num_classes is {self.num_classes}; set "
                f"num_classes: {len(ids)}, or dataset_name: generic, which allows classes without labels"
            )
        return sorted(set(range(self.num_classes)) - ids)

    def _present(self, videos: list[Video], policy: str) -> list[Video]:
        """The videos that have a feature file. `policy` for the others: "skip" or "error"."""
        missing = [video for video in videos if not self.features.exists(video.id)]
        if missing and (policy == "error" or len(missing) == len(videos)):
            raise FileNotFoundError(
                f"{len(missing)} of {len(videos)} videos of split {list(self.split)} have no feature file, the first "
                f"is '{missing[0].id}', expected at {self.features.path(missing[0].id)}"
                + ("; dataset.missing_features: skip leaves them out" if len(missing) < len(videos) else "")
            )
        if missing:
            names = ", ".join(video.id for video in missing[:3]) + (", ..." if len(missing) > 3 else "")
            logger.warning(
                "split %s: %d of %d videos have no feature file and are skipped: %s",
                list(self.split), len(missing), len(videos), names,
            )  # fmt: skip
        missing_ids = {video.id for video in missing}
        return [video for video in videos if video.id not in missing_ids]

    @property
    def class_names(self) -> dict[int, str]:
        """Class id -> name; empty for a class-agnostic data set."""
        return label_names(self)

    def get_attributes(self) -> Attributes:
        """Name, tIoU thresholds and empty classes, as in ActionFormer."""
        return {
            "dataset_name": self.preset.title,
            "tiou_thresholds": self.tiou_thresholds,
            "empty_label_ids": self.empty_label_ids,
        }

    def __len__(self) -> int:
        return len(self.videos)

    def grid(self, index: int) -> Grid:
        """The time grid of a video's features."""
        video = self.videos[index]
        return self.rule.grid(video.id, self.features.length(video.id), self._duration(video) * self._fps(video))

    def num_steps(self, index: int) -> int:
        """Upper bound of the number of steps in a sample of this video; the sort key of bucketing."""
        length = self.grid(index).length
        return min(length, self.max_seq_len) if self.is_training else length

    def __getitem__(self, index: int | SampleKey) -> VideoItem:
        """
        Returns:
            `video_id`; `feats` (C, T) float32; `segments` (N, 2) float32 in grid steps and `labels` (N,) int64, both
            None for a test video without events; `fps`; `duration` in seconds; `feat_stride` and
            `feat_num_frames` in frames; `feat_start`, the step of the video's grid where `feats` begin; `repeat` of
            the key.
        """
        epoch, repeat, index = getattr(index, "epoch", 0), getattr(index, "repeat", 0), int(index)
        video, grid = self.videos[index], self.grid(index)
        fps = self._fps(video)
        segments, labels = self._events(video, grid, fps)
        start, length = 0, grid.length
        if self.is_training:
            if self.preset.clip_to_features:
                segments, labels = self._clip_to_features(segments, labels, grid)
            rng = random.Random(derive_seed(self.seed, epoch, index, "crop", *([repeat] if repeat else [])))
            crop = random_crop(
                grid.length, segments, grid.offset, rng,
                max_seq_len=self.max_seq_len, trunc_thresh=self.trunc_thresh, crop_ratio=self.crop_ratio,
            )  # fmt: skip
            if crop is not None:
                start, length, segments, labels = crop.start, crop.length, crop.segments, labels[crop.kept]
        no_events = not self.is_training and not len(labels)
        return {
            "video_id": video.id,
            "feats": self._read(video.id, grid, start, length),
            "segments": None if no_events else torch.from_numpy(segments),
            "labels": None if no_events else torch.from_numpy(labels),
            "fps": fps,
            "duration": self._duration(video),
            "feat_stride": grid.stride,
            "feat_num_frames": grid.num_frames,
            "feat_start": start,
            "repeat": repeat,
        }

    def events(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Segments (N, 2) float32 of a whole video in steps of its grid, and labels (N,) int64."""
        video = self.videos[index]
        return self._events(video, self.grid(index), self._fps(video))

    def has_event_on_grid(self, index: int) -> bool:
        """Whether an event of non-zero length overlaps the time span of the video's features."""
        segments, _ = self.events(index)
        grid = self.grid(index)
        end = grid.length - 1 + grid.offset
        return bool(
            ((segments[:, 1] > segments[:, 0]) & (segments[:, 0] < end) & (segments[:, 1] > -grid.offset)).any()
        )

    def _fps(self, video: Video) -> float:
        fps = self.default_fps if self.default_fps is not None else video.fps
        if fps is None and video.id in self.sidecars:
            return self.sidecars[video.id].fps
        if fps is None:
            raise ValueError(f"{self.json_file}: video '{video.id}' has no 'fps'; add it or set dataset.default_fps")
        return fps

    def _duration(self, video: Video) -> float:
        duration = self.preset.default_duration if video.duration is None else video.duration
        if duration is None and video.id in self.sidecars:
            return self.sidecars[video.id].duration
        if duration is None:
            raise ValueError(f"{self.json_file}: video '{video.id}' has no 'duration' (seconds)")
        return duration

    def _events(self, video: Video, grid: Grid, fps: float) -> tuple[np.ndarray, np.ndarray]:
        """Segments (N, 2) float32 in grid steps and labels (N,) int64."""
        table = np.array(video.events, dtype=np.float64).reshape(-1, 3)
        if self.remove_duplicates and len(table):
            table = table[duplicate_mask(*table.T)]
        labels = np.zeros(len(table), np.int64) if self.class_agnostic else table[:, 2].astype(np.int64)
        seconds = table[:, :2].astype(np.float32)
        segments = seconds * np.float32(fps) / np.float32(grid.stride) - np.float32(grid.offset)
        return np.ascontiguousarray(segments, dtype=np.float32), labels

    def _clip_to_features(self, segments: np.ndarray, labels: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """ActivityNet's training filter: drops events that start after the last feature or have less than
        `trunc_thresh` of their length before it, and cuts the others at the last feature."""
        end = np.float32(grid.length + grid.offset)
        inside = np.minimum(segments[:, 1], end) - segments[:, 0]
        whole = segments[:, 1] - segments[:, 0]
        keep = (segments[:, 0] < end) & (whole > 0) & (inside >= self.trunc_thresh * whole)
        return np.minimum(segments[keep], end), labels[keep]

    def _read(self, video_id: str, grid: Grid, start: int, length: int) -> torch.Tensor:
        """Features (C, length) from grid step `start` on."""
        if self.rule.regular:
            rate = self.downsample_rate
            return resize(self.features.read(video_id, start * rate, (start + length) * rate, rate), grid)
        return resize(self.features.read(video_id), grid)[:, start : start + length]
