"""Formats of feature files: detection by file ending, and reading."""

from __future__ import annotations

import os
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

NPZ_KEY = "feats"
EXTENSIONS = (".npy", ".npz", ".pt", ".csv")
HDF5_ENDINGS = (".hdf5", ".h5")
PICKLES = (".pkl", ".pickle")


class FeatureError(ValueError):
    """Features that cannot be used. `kind` is a short name of the problem, such as "shape"."""

    def __init__(
        self, message: str, kind: str = "unreadable"
    ) -> None:  # default: a loader worker re-raises with the message alone
        super().__init__(message)
        self.kind = kind


def is_hdf5(path: str | os.PathLike) -> bool:
    """Whether `path` is an HDF5 file with one data set per video rather than a folder."""
    return Path(path).suffix.lower() in HDF5_ENDINGS and not os.path.isdir(path)


def file_format(name: str | os.PathLike) -> str:
    """The ending that decides how a file is read, such as ".npy" for "run.mp4.npy".

    Raises:
        ValueError: unknown ending; for a pickle, the message contains a command that converts it.
    """
    ending = Path(f"x{os.fspath(name)}").suffix.lower()
    if ending in PICKLES:
        code = "import pickle, numpy; numpy.save('NAME.npy', pickle.load(open('NAME.pkl', 'rb')))"
        raise ValueError(
            f"{os.fspath(name)}: a pickle can run code when it is read, so it is refused. If you trust it, convert it: "
            f'python -c "{code}"'
        )
    if ending not in EXTENSIONS:
        raise ValueError(
            f"features are read from files that end in {', '.join(EXTENSIONS)}, or from one file that ends in "
            f"{' or '.join(HDF5_ENDINGS)}; '{os.fspath(name)}' does not"
        )
    return ending


def read_array(path: Path, ending: str) -> Any:
    """The array in a file, in memory or as a memory map.

    Raises:
        FeatureError: damaged file, content that does not match the ending, or several arrays of which none is `feats`.
    """
    try:
        if ending == ".npz":
            with np.load(path) as archive:
                array = archive[_array_name(path, list(archive))]
            if not isinstance(array, np.ndarray):
                raise ValueError("what it holds is not an array")
            return array
        if ending == ".pt":
            return _read_tensor(path)
        array = _read_csv(path) if ending == ".csv" else np.load(path, mmap_mode="r")
        if not isinstance(array, np.ndarray):
            raise ValueError(f"it is a {type(array).__name__}: does its ending say what it is?")
        return array
    except FeatureError:
        raise
    except Exception as error:  # numpy, zipfile and torch raise many types of errors on damaged files
        reason = str(error).split("\n")[0] or type(error).__name__
        if "pickle" in reason.lower() or "weights_only" in reason:
            reason = (
                "it holds Python objects, which can run code when they are read; save the numbers alone, as an array"
            )
        raise FeatureError(kind="damaged-file", message=f"{path}: damaged or not a feature file: {reason}") from None


def array_shape(path: Path, ending: str) -> tuple[int, ...]:
    """Shape of the array in a file, from its header if the format has one."""
    return _npz_shape(path) if ending == ".npz" else read_array(path, ending).shape


def files_below(folder: str | os.PathLike) -> list[str]:
    """Paths of all files in a folder and its subfolders, relative to it, with "/" as separator."""
    paths: list[str] = []
    seen: set[str] = set()
    for current, folders, names in os.walk(os.fspath(folder), followlinks=True):
        if os.path.realpath(current) in seen:  # a symbolic link to a parent folder
            folders.clear()
            continue
        seen.add(os.path.realpath(current))
        inside = os.path.relpath(current, folder).replace(os.sep, "/")
        paths += names if inside == "." else [f"{inside}/{name}" for name in names]
    return paths


def _array_name(path: Path, names: list[str]) -> str:
    """Name of the array that holds the features: `feats`, or the only array."""
    if NPZ_KEY in names:
        return NPZ_KEY
    if len(names) != 1:
        message = f"{path}: it holds the arrays {names}; expected one array, or one called '{NPZ_KEY}'"
        raise FeatureError(kind="which-array", message=message)
    return names[0]


def _read_tensor(path: Path) -> np.ndarray:
    content = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(content, dict):
        tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
        content = tensors[_array_name(path, list(tensors))]
    if not isinstance(content, torch.Tensor):
        raise ValueError(f"it holds a {type(content).__name__}; expected a tensor")
    return content.detach().float().numpy()


def _read_csv(path: Path) -> np.ndarray:
    """Reads a table with or without a header row. A first row of numbers is data, unless it is 0, 1, 2, ... or 1, 2, 3,
    ...: pandas and R write such rows for columns without names."""
    table = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    first = pd.to_numeric(table.iloc[0], errors="coerce").to_numpy(np.float64)  # NaN: not a number
    numbers = np.isfinite(first)
    if numbers.any() and not numbers.all():
        raise ValueError(
            f"its first row holds numbers and {table.iloc[0][~numbers].tolist()}: neither names nor features"
        )
    counts = len(first) > 1 and any(np.array_equal(first, np.arange(len(first)) + start) for start in (0, 1))
    return (table.iloc[1:] if counts or not numbers.any() else table).to_numpy(np.float32)


def _npz_shape(path: Path) -> tuple[int, ...]:
    """Shape of the array in an .npz, from its header alone."""
    try:
        with zipfile.ZipFile(path) as archive:
            key = _array_name(path, [name.removesuffix(".npy") for name in archive.namelist()])
            with archive.open(f"{key}.npy") as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                return read(file)[0]
    except FeatureError:
        raise
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise FeatureError(kind="damaged-file", message=f"{path}: damaged or not a feature file: {error}") from None


@lru_cache(maxsize=8)
def hdf5_keys(path: str) -> frozenset[str]:
    """Names of all data sets in an HDF5 file."""
    names: list[str] = []
    with open_hdf5(path) as file:
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
    return frozenset(names)


def open_hdf5(path: str) -> Any:
    """Opens an HDF5 file with h5py.

    Raises:
        FileNotFoundError: no such file.
        ValueError: h5py is not installed, or the file is damaged.
    """
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
