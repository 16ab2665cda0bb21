"""Checkpoints: written atomically, read without running code, and compared with the model before loading."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from torch import Tensor, nn
from typing_extensions import Required

EXTRA = "method_modules."  # start of the names of weights that only training uses (`build.build_updater`)
PREFIX = "module."  # what `nn.DataParallel` puts before every name; ActionFormer's files have it


class Checkpoint(TypedDict, total=False):
    """Content of a checkpoint file. ActionFormer writes the first five keys; exact resuming needs the others too.
    Files with weights only have no `optimizer`, `scheduler`, `scaler` and `part_of_epoch`."""

    epoch: int  # completed epochs; in a semi-supervised run, completed iterations
    state_dict: Required[dict[str, Tensor]]
    state_dict_ema: dict[str, Tensor]  # averaged (EMA) weights; in a semi-supervised run, the teacher
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    loss_normalizer: float
    ema_num_updates: int
    scaler: dict[str, Any]  # state of the gradient scaler; empty unless `train_cfg.amp` is fp16
    part_of_epoch: dict[str, Any]  # fields of `PartOfEpoch`; only if training stopped within an epoch


def save_checkpoint(
    state: Mapping[str, Any], is_best: bool, file_folder: str, file_name: str = "checkpoint.pth.tar"
) -> None:
    """Writes `state` to `file_folder/file_name` atomically: after a crash the old file is still there.

    With `is_best`, also writes `model_best.pth.tar`, without optimizer and scheduler.
    """
    folder = Path(file_folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(state, folder / file_name)
    if is_best:
        small = {key: value for key, value in state.items() if key not in ("optimizer", "scheduler")}
        _write(small, folder / "model_best.pth.tar")


def _write(state: Mapping[str, Any], path: Path) -> None:
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def load_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Reads a checkpoint onto the CPU, without executing pickled code.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, holds pickled objects other than plain data and tensors, or is not a dict
            with `state_dict`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint not found: {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: damaged or not a checkpoint, or it holds Python objects that could run code when loaded; only "
            f"tensors and plain data are read ({_first_line(error)})"
        ) from None
    except Exception as error:  # torch raises many exception types for damaged files
        raise ValueError(f"{path}: damaged or not a checkpoint: {_first_line(error)}") from None
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        content = list(checkpoint)[:5] if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise ValueError(f"{path}: expected a dict with the key 'state_dict', found {content}")
    return cast(Checkpoint, checkpoint)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "GLOBAL" in line), lines[0] if lines else type(error).__name__)


def find_checkpoint(path: str | os.PathLike, epoch: int = -1) -> Path:
    """Resolves a path to a checkpoint file.

    Args:
        path: a checkpoint file, which is returned as it is, or a run folder.
        epoch: > 0: the folder's checkpoint of this epoch; else the numbered checkpoint of the highest epoch or, without
            any, `last.pth.tar`.

    Raises:
        FileNotFoundError: no such checkpoint; lists the epochs that the folder has.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"neither a checkpoint nor a folder of checkpoints: {path}")
    numbered = {int(m[1]): f for f in path.iterdir() if (m := re.fullmatch(r"epoch_(\d+)\.pth\.tar", f.name))}
    last = path / "last.pth.tar"
    if epoch > 0:
        if epoch not in numbered:
            raise FileNotFoundError(f"{path}: no checkpoint of epoch {epoch}; there are {sorted(numbered)}")
        return numbered[epoch]
    if numbered:
        return numbered[max(numbered)]
    if last.is_file():
        return last
    raise FileNotFoundError(f"{path}: no file epoch_NNN.pth.tar or last.pth.tar in this folder")


def load_state(
    model: nn.Module, state_dict: Mapping[str, Tensor], *, source: str = "checkpoint", with_extra: bool = True
) -> None:
    """Loads weights into a model. Model and file may each have the prefix of `nn.DataParallel` or not, and weights that
    only training uses; without them in the file, the model keeps its own.

    Args:
        source: names the file in error messages.
        with_extra: False: leaves out those that only training uses.

    Raises:
        ValueError: names or shapes differ; lists differing shapes first, then missing and surplus names.
    """
    model_state = model.state_dict()
    wants_prefix = bool(model_state) and all(name.startswith(PREFIX) for name in model_state)
    given = {name.removeprefix(PREFIX): value for name, value in state_dict.items()}
    expected = {name.removeprefix(PREFIX) if wants_prefix else name: value for name, value in model_state.items()}
    if not with_extra or not any(name.startswith(EXTRA) for name in expected):
        given = {name: value for name, value in given.items() if not name.startswith(EXTRA)}
    if not any(name.startswith(EXTRA) for name in given):
        given |= {name: value for name, value in expected.items() if name.startswith(EXTRA)}
    problems = [
        f"{name}: shape {tuple(given[name].shape)} in the file, {tuple(expected[name].shape)} in the model"
        for name in given.keys() & expected.keys()
        if given[name].shape != expected[name].shape
    ]
    missing, surplus = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
    problems.sort()
    if missing:
        problems.append(f"not in the file: {_shorten(missing)}")
    if surplus:
        problems.append(f"not in the model: {_shorten(surplus)}")
    if problems:
        if (missing or surplus) and all("quality_head." in name for name in [*missing, *surplus]):
            problems.append(f"set model.quality: {'false' if missing else 'true'}, as in the run that made the weights")
        shown = problems[:6] + ([f"... and {len(problems) - 6} more"] if len(problems) > 6 else [])
        raise ValueError(
            f"{source}: the weights belong to another configuration than the model:\n  " + "\n  ".join(shown)
        )
    model.load_state_dict({(PREFIX + name if wants_prefix else name): value for name, value in given.items()})


def _shorten(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
