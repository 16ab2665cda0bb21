"""Reads features from files, only the rows that are requested."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from cachetools import LRUCache

from .formats import (
    EXTENSIONS,
    FeatureError,
    array_shape,
    file_format,
    files_below,
    hdf5_keys,
    is_hdf5,
    open_hdf5,
    read_array,
)
from .sidecar import Sidecar, common_settings, find_sidecar

__all__ = ["EXTENSIONS", "FeatureError", "FeatureFiles", "file_format", "files_below", "is_hdf5"]


class FeatureFiles:
    """Features of videos, in one file per video or in one HDF5 file. Features of several folders are concatenated along
    the channels.

    Args:
        folders: folders of feature files; a path that ends in `.hdf5` or `.h5` is a file with one data set per video.
        prefix, ext: a video's file is named prefix + video id + ext; the last suffix of `ext` decides the format.
            `.npy`, `.npz` (array `feats`, or the only array) and `.pt` (a tensor) hold T x C; `.csv` holds T rows of C
            numbers, with or without a header row.
        channels: expected number of channels, per folder or in total (one number).
        cache_bytes: memory for caching whole videos, which are stored as float16 if that is exact.
    """

    def __init__(
        self,
        folders: str | Sequence[str],
        *,
        prefix: str | None = None,
        ext: str = ".npy",
        channels: int | Sequence[int],
        cache_bytes: int = 0,
    ) -> None:
        self.cache: LRUCache[str, np.ndarray] | None = None  # video id -> (T, C)
        if cache_bytes:
            self.cache = LRUCache(cache_bytes, getsizeof=attrgetter("nbytes"))
        self.folders = [folders] if isinstance(folders, str) else list(folders)
        self.prefix, self.ext = prefix or "", ext
        self.channels = [channels] if isinstance(channels, int) else list(channels)
        self.format = ""
        for folder in self.folders:
            if is_hdf5(folder):
                continue
            try:
                self.format = file_format(ext)
            except ValueError as error:
                raise ValueError(f"dataset.file_ext: {error}") from None
            if not os.path.isdir(folder):
                raise FileNotFoundError(f"dataset.feat_folder: folder not found: {folder}")

    def path(self, video_id: str, folder: str | None = None) -> Path:
        folder = self.folders[0] if folder is None else folder
        if is_hdf5(folder):
            return Path(folder)
        return Path(folder) / f"{self.prefix}{video_id}{self.ext}"

    def sidecar(self, video_id: str) -> Sidecar | None:
        """How the features in the first folder were made; None without a sidecar."""
        return None if is_hdf5(self.folders[0]) else find_sidecar(self.path(video_id))

    def exists(self, video_id: str) -> bool:
        """Whether every folder has features of this video."""
        for folder in self.folders:
            if is_hdf5(folder):
                if self.prefix + video_id not in hdf5_keys(folder):
                    return False
            elif not self.path(video_id, folder).is_file():
                return False
        return True

    def ids(self) -> list[str]:
        """Sorted ids of the videos with features in the first folder or its subfolders. Files without the prefix are
        ignored. The id of a file in a subfolder includes the subfolder: "day1/camera2"."""
        folder, end = self.folders[0], "" if is_hdf5(self.folders[0]) else self.ext
        names = hdf5_keys(folder) if is_hdf5(folder) else files_below(folder)
        return sorted(
            name[len(self.prefix) : len(name) - len(end)]
            for name in names
            if name.startswith(self.prefix) and name.endswith(end) and len(name) > len(self.prefix) + len(end)
        )

    def length(self, video_id: str) -> int:
        """Number of steps T, from the file's header if the format has one. Folders may differ by at most
        `MAX_LENGTH_DIFFERENCE` steps; the shortest length counts."""
        return self._common_length(video_id, [self._shape(video_id, folder)[0] for folder in self.folders])

    def read(self, video_id: str, start: int = 0, stop: int | None = None, step: int = 1) -> np.ndarray:
        """Rows start:stop:step, (T', C) float32; read-only if they are from the cache.

        Raises:
            FileNotFoundError: no such file.
            ValueError: damaged file, not two-dimensional, a wrong number of channels (with a hint if T and C look
                swapped), folders of different lengths, or values that are not finite.
        """
        if self.cache is None:
            return self._read(video_id, start, stop, step)
        whole = self.cache.get(video_id)
        if whole is None:
            whole = _compact(self._read(video_id, 0, None, 1))
            if whole.nbytes <= self.cache.maxsize:
                whole.flags.writeable = False
                self.cache[video_id] = whole
        return np.asarray(whole[start:stop:step], dtype=np.float32)

    def _read(self, video_id: str, start: int, stop: int | None, step: int) -> np.ndarray:
        if len(self.folders) > 1:
            limit = self.length(video_id)
            stop = limit if stop is None else min(stop, limit)
        parts = [self._read_one(video_id, folder, start, stop, step) for folder in self.folders]
        feats = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        self._check_channels(video_id, feats.shape[1])
        return feats

    def shape(self, video_id: str) -> tuple[int, int]:
        """(T, C) over all folders, from the headers where possible, with the shape checks of `read`."""
        shapes = [self._shape(video_id, folder) for folder in self.folders]
        channels = sum(shape[1] for shape in shapes)
        self._check_channels(video_id, channels)
        return self._common_length(video_id, [shape[0] for shape in shapes]), channels

    def _check_channels(self, video_id: str, channels: int) -> None:
        if channels != sum(self.channels):
            raise FeatureError(
                kind="channels",
                message=f"video '{video_id}': {channels} channels in {self.folders}, expected dataset.input_dim="
                f"{sum(self.channels)}",
            )

    MAX_LENGTH_DIFFERENCE = 4

    def _common_length(self, video_id: str, lengths: list[int]) -> int:
        if max(lengths) - min(lengths) > self.MAX_LENGTH_DIFFERENCE:
            raise FeatureError(
                kind="folders-disagree",
                message=f"video '{video_id}': the feature folders disagree on its length: "
                + ", ".join(f"{folder}: {n} steps" for folder, n in zip(self.folders, lengths, strict=True)),
            )
        return min(lengths)

    def _read_one(self, video_id: str, folder: str, start: int, stop: int | None, step: int) -> np.ndarray:
        with self._array(video_id, folder) as array:
            self._check_shape(video_id, folder, array.shape)
            try:
                if array.dtype.kind not in "biuf":
                    raise TypeError(f"its values are of type {array.dtype}")
                feats = np.asarray(array[start:stop:step], dtype=np.float32)
            except (TypeError, ValueError) as error:
                message = f"{self.path(video_id, folder)}: cannot read as numbers: {error}"
                raise FeatureError(kind="damaged-file", message=message) from None
        if not np.isfinite(feats).all():
            row = int(np.argmax(~np.isfinite(feats).all(axis=1)))
            raise FeatureError(
                kind="not-finite",
                message=f"{self.path(video_id, folder)}: video '{video_id}' holds numbers that are not finite, "
                f"first in row {start + row * step}",
            )
        return feats

    def _shape(self, video_id: str, folder: str) -> tuple[int, ...]:
        path = self.path(video_id, folder)
        if not is_hdf5(folder) and path.is_file():
            shape = array_shape(path, self.format)
        else:
            with self._array(video_id, folder) as array:
                shape = array.shape
        self._check_shape(video_id, folder, shape)
        return shape

    def _check_shape(self, video_id: str, folder: str, shape: tuple[int, ...]) -> None:
        path = self.path(video_id, folder)
        if len(shape) != 2 or shape[0] == 0:
            raise FeatureError(
                kind="shape", message=f"{path}: expected features of shape (T, C) with T > 0, found {tuple(shape)}"
            )
        per_folder = len(self.channels) == len(self.folders)
        expected = self.channels[self.folders.index(folder)] if per_folder else None
        if expected is None or shape[1] == expected:
            return
        swapped = shape[0] == expected
        hint = " - T and C look swapped: transpose the file" if swapped else ""
        raise FeatureError(
            kind="swapped" if swapped else "channels",
            message=f"{path}: {shape[1]} channels (shape {tuple(shape)}), expected {expected}{hint}",
        )

    @contextmanager
    def _array(self, video_id: str, folder: str) -> Iterator[Any]:
        """Yields a memory map, an array or an HDF5 data set, all of which can be sliced."""
        path = self.path(video_id, folder)
        if is_hdf5(folder):
            with open_hdf5(folder) as file:
                key = self.prefix + video_id
                if key not in file:
                    raise FileNotFoundError(f"{folder}: no data set '{key}' for video '{video_id}'")
                if not hasattr(file[key], "shape"):
                    raise FeatureError(kind="damaged-file", message=f"{folder}: '{key}' is a group, not a data set")
                yield file[key]
            return
        if not path.is_file():
            raise FileNotFoundError(f"feature file of video '{video_id}' not found: {path}")
        yield read_array(path, self.format)


def _compact(feats: np.ndarray) -> np.ndarray:
    """float16 if the conversion is exact, as for features stored in 16 bits; else unchanged."""
    with np.errstate(over="ignore"):
        half = feats.astype(np.float16)
    return half if np.array_equal(half, feats) else feats


def read_sidecars(
    files: FeatureFiles, rates: Mapping[str, float | None], *, feat_stride: float, num_frames: float
) -> dict[str, Sidecar]:
    """The sidecars of the videos that have one, by video id.

    Args:
        rates: video id -> frames per second, None if they are not given.
        feat_stride, num_frames: of the configuration.

    Raises:
        ValueError: a sidecar contradicts what is given, or another one.
    """
    found = {video_id: sidecar for video_id in rates if (sidecar := files.sidecar(video_id)) is not None}
    for video_id, sidecar in found.items():
        source = str(files.path(video_id))
        sidecar.check(source=source, feat_stride=feat_stride, num_frames=num_frames, fps=rates[video_id])
    if found:
        common_settings(found)
    return found
