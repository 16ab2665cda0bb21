"""Reading feature files, no more of them than is asked for."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from .cache import ArrayCache

NPZ_KEY = "feats"
EXTENSIONS = (".npy", ".npz", ".csv")


class FeatureError(ValueError):
    """Features that cannot be used. `kind` names the problem in a word."""

    def __init__(self, message: str, kind: str = "unreadable") -> None:  # a loader passes the message alone
        super().__init__(message)
        self.kind = kind


def is_hdf5(folder: str | os.PathLike) -> bool:
    """Whether this is one HDF5 file with a data set per video, instead of a folder."""
    return ".hdf5" in os.fspath(folder)


class FeatureFiles:
    """The features of videos: one file each, or one HDF5 file; several folders are concatenated on channels.

    Args:
        folders: where the files are; a path that contains ".hdf5" is one file with a data set per video.
        prefix, ext: a file is called prefix + video id + ext. `.npy` and `.npz` (array `feats`) hold T x C; `.csv`
            holds a header row, then T rows of C numbers.
        channels: expected number of channels in each folder, or in all together (one number).
        cache_bytes: whole videos are kept in memory up to so many bytes, in 16 bits where that loses nothing.
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
        self.cache = ArrayCache(cache_bytes) if cache_bytes else None
        self.folders = [folders] if isinstance(folders, str) else list(folders)
        self.prefix, self.ext = prefix or "", ext
        self.channels = [channels] if isinstance(channels, int) else list(channels)
        if is_hdf5(self.folders[0]):
            return
        if ext not in EXTENSIONS:
            raise ValueError(
                f"dataset.file_ext: '{ext}' is not supported; use one of {list(EXTENSIONS)} or a folder ending in "
                "'.hdf5'"
            )
        for folder in self.folders:
            if not os.path.isdir(folder):
                raise FileNotFoundError(f"dataset.feat_folder: folder not found: {folder}")

    def path(self, video_id: str, folder: str | None = None) -> Path:
        folder = self.folders[0] if folder is None else folder
        if is_hdf5(folder):
            return Path(folder)
        return Path(folder) / f"{self.prefix}{video_id}{self.ext}"

    def exists(self, video_id: str) -> bool:
        """Whether every folder has this video."""
        for folder in self.folders:
            if is_hdf5(folder):
                if self.prefix + video_id not in _hdf5_keys(folder):
                    return False
            elif not self.path(video_id, folder).is_file():
                return False
        return True

    def ids(self) -> list[str]:
        """Videos that the first folder holds a file (or data set) of, sorted. Files without the prefix are left out."""
        folder, end = self.folders[0], "" if is_hdf5(self.folders[0]) else self.ext
        names = _hdf5_keys(folder) if is_hdf5(folder) else os.listdir(folder)
        return sorted(
            name[len(self.prefix) : len(name) - len(end)]
            for name in names
            if name.startswith(self.prefix) and name.endswith(end) and len(name) > len(self.prefix) + len(end)
        )

    def length(self, video_id: str) -> int:
        """Number of steps T, from the header where the format has one. Files of several folders may differ by a
        few steps at the end: the shortest counts, at most `MAX_LENGTH_DIFFERENCE` steps are dropped."""
        return self._common_length(video_id, [self._shape(video_id, folder)[0] for folder in self.folders])

    def read(self, video_id: str, start: int = 0, stop: int | None = None, step: int = 1) -> np.ndarray:
        """Rows start:stop:step as float32, (T', C); from the cache they are read-only.

        Raises:
            FileNotFoundError: no such file.
            ValueError: damaged file, other than two dimensions, a wrong number of channels (says so if T and C
                look swapped), lengths of the folders that differ, or numbers that are not finite.
        """
        if self.cache is None:
            return self._read(video_id, start, stop, step)
        whole = self.cache.get(video_id)
        if whole is None:
            whole = _compact(self._read(video_id, 0, None, 1))
            self.cache.put(video_id, whole)
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
        """(T, C) over all folders, checked like what `read` returns, from the headers where the format has them."""
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
        if self.ext == ".npz" and not is_hdf5(folder) and path.is_file():
            shape = _npz_shape(path)
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
    def _array(self, video_id: str, folder: str):
        """Something that can be sliced: a memory map, an array or an HDF5 data set."""
        path = self.path(video_id, folder)
        if is_hdf5(folder):
            with _open_hdf5(folder) as file:
                key = self.prefix + video_id
                if key not in file:
                    raise FileNotFoundError(f"{folder}: no data set '{key}' for video '{video_id}'")
                if not hasattr(file[key], "shape"):
                    raise FeatureError(kind="damaged-file", message=f"{folder}: '{key}' is a group, not a data set")
                yield file[key]
            return
        if not path.is_file():
            raise FileNotFoundError(f"feature file of video '{video_id}' not found: {path}")
        try:
            if self.ext == ".npz":
                with np.load(path) as archive:
                    if NPZ_KEY not in archive:
                        raise ValueError(f"no array '{NPZ_KEY}' in it, only {list(archive)}")
                    array = archive[NPZ_KEY]
                if not isinstance(array, np.ndarray):
                    raise ValueError(f"'{NPZ_KEY}' is not an array")
            elif self.ext == ".csv":
                array = pd.read_csv(path).to_numpy(np.float32)
            else:
                array = np.load(path, mmap_mode="r")
        except Exception as error:  # numpy and zipfile raise many kinds on damaged files
            raise FeatureError(kind="damaged-file", message=f"{path}: damaged or not a feature file: {error}") from None
        yield array


def _compact(feats: np.ndarray) -> np.ndarray:
    """In 16 bits where that loses nothing, as with features that were stored so."""
    with np.errstate(over="ignore"):
        half = feats.astype(np.float16)
    return half if np.array_equal(half, feats) else feats


def _npz_shape(path: Path) -> tuple[int, ...]:
    """Shape of the array in an .npz, from its header alone."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{NPZ_KEY}.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return read(file)[0]
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise FeatureError(
            kind="damaged-file", message=f"{path}: damaged or without an array '{NPZ_KEY}': {error}"
        ) from None


@lru_cache(maxsize=8)
def _hdf5_keys(path: str) -> frozenset[str]:
    with _open_hdf5(path) as file:
        return frozenset(file)


def _open_hdf5(path: str):
    if not os.path.isfile(path):
        raise FileNotFoundError(f"dataset.feat_folder: HDF5 file not found: {path}")
    try:
        import h5py
    except ModuleNotFoundError:
        raise ValueError(f"{path}: reading HDF5 needs the package h5py: pip install 'actionformer-nt[hdf5]'") from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: damaged or not an HDF5 file: {error}") from None
