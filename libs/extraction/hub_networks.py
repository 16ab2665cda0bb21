"""Presets of two libraries that download weights: timm:NAME, networks of images, and hf:ID, transformers' of videos."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from libs.core.extras import need, need_torchvision

from .extractor import OWN, Extractor, Wanted
from .weights import load_weights, sha256, state_digest

UNUSED = ("pooler.", "predictor.")  # parts of transformers' models after the tokens
CLIENTS = ("httpx", "httpx2", "huggingface_hub")  # packages whose errors are those of a download


def timm_preset(wanted: Wanted) -> Extractor:
    """Preset timm:NAME, an image model of timm: its pooled features of a frame, or their mean over a wider window.

    Raises:
        ValueError: no such model, weights that do not fit, or a download that failed.
        FileNotFoundError: no such weight file.
        MissingExtraError: timm is not installed.
    """
    wanted.refuse("spatial", "flow", "flow_weights")
    name, what = wanted.name.partition(":")[2], f"preset {wanted.name}"
    need_torchvision("torchvision", what=what)
    timm = need("timm", extra="hub", what=what)
    check_timm_name(timm, name)
    pretrained = wanted.seed is None and wanted.weights is None
    with library_errors(what, transfer="its weights could not be downloaded", hint="; give --weights FILE"):
        network = timm.create_model(name, pretrained=pretrained, num_classes=0)
    if not hasattr(network, "head_hidden_size"):
        raise ValueError(f"{what}: {type(network).__name__} is no classifier of images")
    if wanted.weights is not None:
        load_weights(network, wanted.weights, but=classifiers_of(network))
    digest = state_digest(network.state_dict()) if pretrained else f"random {wanted.seed}"
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
    from_array = need("PIL.Image", extra="hub", what=what).fromarray
    return Extractor(
        name=wanted.name, window=1, stride=1, channels=network.head_hidden_size, spatial=OWN,
        packages=("timm",),
        network=MeanOverFrames(network), weights=digest if wanted.weights is None else sha256(wanted.weights),
        transform=lambda image: transform(from_array(image)),
    )  # fmt: skip


def check_timm_name(timm: Any, name: str) -> None:
    """Raises ValueError, with names near to it, unless timm has a model of this name. Names of a hub have a colon."""
    architecture = name.partition(".")[0]
    try:
        if ":" in name or (timm.is_model(name) and timm.get_pretrained_cfg(name) is not False):
            return
    except RuntimeError:  # the part after the point is not one of the architecture's
        pass
    near = (
        timm.list_models(architecture, pretrained=True)
        or difflib.get_close_matches(name, timm.list_models(), n=4)
        or timm.list_models(f"*{architecture}*")
    )
    raise ValueError(f"timm has no model '{name}'" + f"; near it are {', '.join(near[:4])}" * bool(near))


def classifiers_of(network: Any) -> tuple[str, ...]:
    """Beginnings of the names of the classifiers of a timm model, which features do without."""
    layers = network.pretrained_cfg.get("classifier") or ()
    return tuple(f"{layer}." for layer in ([layers] if isinstance(layers, str) else layers))


class MeanOverFrames(nn.Module):
    """A network of images, whose features are averaged over the frames of a clip."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, h, w) -> (B, C)."""
        features: Tensor = self.network(clips.transpose(1, 2).flatten(0, 1))
        return features.unflatten(0, (len(clips), -1)).mean(dim=1)


def hf_preset(wanted: Wanted) -> Extractor:
    """Preset hf:ID, a video model of transformers: the mean of its last hidden state over the tokens.

    ID is a repository of the hub, or a folder that `save_pretrained` wrote. No code of a repository is run.

    Raises:
        ValueError: no video model, none that transformers has, or a download that failed.
        MissingExtraError: transformers is not installed.
    """
    wanted.refuse("spatial", "flow", "flow_weights")
    source, what = wanted.name.partition(":")[2], f"preset {wanted.name}"
    if wanted.weights is not None:
        raise ValueError(f"{what} has the weights of its ID, and takes no other file; hf:FOLDER has those of a folder")
    need_torchvision("torchvision", what=what)
    library = need("transformers", extra="hub", what=what)
    transfer = "the folder lacks a file" if os.path.isdir(source) else "its files could not be downloaded"
    hint = "; ID is a repository of the hub, or a folder that save_pretrained wrote"
    with library_errors(what, transfer=transfer, hint=hint):
        config = library.AutoConfig.from_pretrained(source, trust_remote_code=False)
        transform = frame_transform(library, source)
        options: dict[str, Any] = {"trust_remote_code": False, "dtype": torch.float32}
        if wanted.seed is not None:
            network, missing = library.AutoModel.from_config(config, **options), []
        else:
            network, report = library.AutoModel.from_pretrained(source, output_loading_info=True, **options)
            missing = sorted(name for name in report["missing_keys"] if not name.startswith(UNUSED))
    if missing:
        raise ValueError(f"{what}: weights are missing: {', '.join(missing[:3])} ({len(missing)})")
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    names = inspect.signature(network.forward).parameters
    key = "pixel_values_videos" if "pixel_values_videos" in names else "pixel_values"
    if key not in names or (frames is None and key == "pixel_values") or not hasattr(config, "hidden_size"):
        raise ValueError(f"{what}: {type(network).__name__} is no encoder of videos (timm:NAME has those of images)")
    name = f"hf:{os.path.abspath(source)}" if os.path.isdir(source) else wanted.name
    return Extractor(
        name=name, window=frames or 16, stride=4, channels=config.hidden_size, spatial=OWN,
        packages=("transformers",),
        network=MeanOverTokens(network, key), transform=transform,
        weights=state_digest(network.state_dict(), but=UNUSED) if wanted.seed is None else f"random {wanted.seed}",
    )  # fmt: skip


class MeanOverTokens(nn.Module):
    """A video model of transformers, whose last hidden state is averaged over the tokens.

    Args:
        key: the model's argument for clips.
    """

    def __init__(self, network: nn.Module, key: str) -> None:
        super().__init__()
        self.network, self.key = network, key
        self.options = (
            {"skip_predictor": True} if "skip_predictor" in inspect.signature(network.forward).parameters else {}
        )

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, h, w) -> (B, C)."""
        tokens: Tensor = self.network(**{self.key: clips.transpose(1, 2)}, **self.options).last_hidden_state
        return tokens.flatten(1, -2).mean(dim=1)


def frame_transform(library: Any, source: str) -> Callable[[np.ndarray], Tensor]:
    """The processor of a video model, for one frame: image (H, W, 3) uint8 -> (3, h, w).

    Args:
        library: transformers.
    """
    options: dict[str, Any] = {"return_tensors": "pt", "input_data_format": "channels_last"}
    try:
        processor = library.AutoVideoProcessor.from_pretrained(source, trust_remote_code=False)
        options["do_sample_frames"] = False
    except ValueError:  # some video models have a processor of images only
        processor = library.AutoImageProcessor.from_pretrained(source, trust_remote_code=False)

    def transform(image: np.ndarray) -> Tensor:
        batch = processor(image[None] if "do_sample_frames" in options else [image], **options)
        pixels: Tensor = next(value for name, value in batch.items() if name.startswith("pixel_values"))
        return pixels.flatten(0, -4)[0]  # of (1, C, h, w) or (1, 1, C, h, w)

    return transform


@contextmanager
def library_errors(what: str, *, transfer: str, hint: str) -> Iterator[None]:
    """Raises the errors of a library that makes a network as a ValueError of one line.

    Args:
        what: begins the line.
        transfer: what an error with files or with a server means.
        hint: ends the line.
    """
    try:
        yield
    except Exception as error:
        of_transfer = isinstance(error, OSError) or type(error).__module__.partition(".")[0] in CLIENTS
        if not of_transfer and not isinstance(error, (ValueError, RuntimeError)):
            raise
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ValueError(f"{what}: {transfer + ': ' if of_transfer else ''}{reason}{hint}") from None
