"""Weights of networks: files, and digests that tell them apart."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from libs.core.extras import need

NOTHING = " "  # no name begins so


def load_weights(
    network: nn.Module, path: str | os.PathLike, *, within: Sequence[str] = (), but: str | tuple[str, ...] = NOTHING
) -> None:
    """Loads a state dict, see `read_state`.

    Args:
        within: names of modules that the file's network may be a part of, such as "features".
        but: weights whose names begin so, which features do without, may be others or missing.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no state dict, or one of another network.
    """
    state = read_state(path)
    for module in within:
        state = {name.removeprefix(f"{module}."): value for name, value in state.items()}
    state = {name: value for name, value in state.items() if not name.startswith(but)}
    own = network.state_dict()
    expected = {name for name in own if not name.endswith("num_batches_tracked") and not name.startswith(but)}
    wrong = sorted(name for name in expected & state.keys() if own[name].shape != state[name].shape)
    missing, surplus = sorted(expected - state.keys()), sorted(state.keys() - own.keys())
    if missing or surplus or wrong:
        lists = ("missing", missing), ("not of the network", surplus), ("of another shape", wrong)
        shown = "; ".join(f"{what}: {', '.join(names[:3])} ({len(names)})" for what, names in lists if names)
        raise ValueError(f"{os.fspath(path)}: weights of another network: {shown}")
    network.load_state_dict(state, strict=False)


def read_state(path: str | os.PathLike) -> dict[str, Tensor]:
    """The state dict in a file of torch, there also one within the entry `state_dict` or `model`, or of safetensors.

    Names lose the beginning `module.`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no state dict.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"weights not found: {os.fspath(path)}")
    try:
        if os.fspath(path).endswith(".safetensors"):
            state = need("safetensors.torch", extra="hub", what=os.fspath(path)).load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise
    except Exception as error:  # both raise many exception types for damaged files
        raise ValueError(f"{os.fspath(path)}: no weights: {str(error).partition(chr(10))[0]}") from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{os.fspath(path)}: no state dict, which is a mapping of names to tensors")
    return {name.removeprefix("module."): value for name, value in state.items()}


def sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def state_digest(state: Mapping[str, Tensor], *, but: str | tuple[str, ...] = NOTHING) -> str:
    """SHA-256 over the names, types, shapes and bytes of a state dict, in the order of the names.

    Args:
        but: beginnings of the names of weights that do not count.
    """
    digest = hashlib.sha256()
    for name in sorted(name for name in state if not name.startswith(but)):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
