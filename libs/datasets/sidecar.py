"""The sidecar of a feature file, `VIDEO.json` beside `VIDEO.npy`: how the features were made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from libs.core.files import load_json, write_text

FORMAT = 1  # version of the file
LARGEST = 1 << 16  # bytes; a larger file is no sidecar
FPS_TOLERANCE = 0.01  # relative; 29.97 and 30 count as equal


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """How the features of a video were made.

    Row k covers the frames k * stride to k * stride + window - 1 at `fps` frames per second, so its middle is at
    (k * stride + window / 2) / fps seconds.

    Attributes:
        preset: network and transform, such as "i3d-rgb".
        weights: SHA-256 of the weight file, or "random SEED".
        video: name of the video file; digest: SHA-256 of its size, its beginning and its end.
        fps: frames per second that the network saw; frames: their number.
        duration: length of the video in seconds, frames / fps.
        window, stride: frames of a row, and from one row to the next.
        rows, channels: shape of the features.
        spatial: how frames were brought to the network's size, such as "resize".
        dtype: in which the network computed.
        flow: method of the optical flow; None without.
        versions: of the packages that decided the values.
    """

    preset: str
    weights: str
    video: str
    fps: float
    frames: int
    duration: float
    window: int
    stride: int
    rows: int
    channels: int
    spatial: str
    digest: str = ""
    dtype: str = "float32"
    flow: str | None = None
    versions: dict[str, str] = field(default_factory=dict)

    def settings(self) -> dict[str, object]:
        """What all videos of one extraction have in common, but for `fps`, which may be each video's own."""
        common = ("preset", "weights", "window", "stride", "channels", "spatial", "dtype", "flow")
        return {name: getattr(self, name) for name in common}

    def check(self, *, source: str, feat_stride: float, num_frames: float, fps: float | None = None) -> None:
        """Checks that a configuration, and a video's frame rate, are those of the features.

        Args:
            source: names the features in messages.
            feat_stride, num_frames: in frames; a `feat_stride` <= 0 spreads the features over the video and is not
                compared.
            fps: of the annotations or the user; None: not given.

        Raises:
            ValueError: they are not; says both values.
        """
        given: dict[str, tuple[float, float]] = {}
        if feat_stride > 0:
            given = {"feat_stride": (feat_stride, self.stride), "num_frames": (num_frames, self.window)}
        if fps is not None and abs(fps - self.fps) > FPS_TOLERANCE * self.fps:
            given["fps"] = fps, self.fps
        if wrong := [f"{name}: {value:g}, but {own:g}" for name, (value, own) in given.items() if value != own]:
            raise ValueError(
                f"{'; '.join(wrong)} in the sidecar of {source}: correct it, or extract the features again"
            )

    def write(self, path: str | os.PathLike) -> None:
        """Writes the file atomically."""
        write_text(path, json.dumps({"format": FORMAT} | asdict(self), indent=1) + "\n")


def sidecar_path(features: str | os.PathLike) -> Path:
    """Path of the sidecar of a feature file."""
    return Path(features).with_suffix(".json")


def read_sidecar(path: str | os.PathLike) -> Sidecar:
    """Reads a sidecar.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a sidecar, or of a later version; names the file and the key.
    """
    content = load_json(path)
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError(f"{os.fspath(path)}: no sidecar of features: the key 'format' is missing")
    if content.pop("format") != FORMAT:
        raise ValueError(f"{os.fspath(path)}: a sidecar of another version; expected format {FORMAT}")
    known = {f.name for f in fields(Sidecar)}
    required = known - {"digest", "dtype", "flow", "versions"}
    if wrong := sorted((required - content.keys()) | (content.keys() - known)):
        raise ValueError(f"{os.fspath(path)}: keys {wrong} are missing or unknown")
    numbers = ("fps", "frames", "duration", "window", "stride", "rows", "channels")
    if bad := [key for key in numbers if not isinstance(content[key], (int, float)) or not content[key] > 0]:
        raise ValueError(f"{os.fspath(path)}: {bad[0]}: {content[bad[0]]!r}, expected a positive number")
    return Sidecar(**content)


def find_sidecar(features: str | os.PathLike) -> Sidecar | None:
    """The sidecar of a feature file; None if there is none, or a file of another kind in its place.

    Raises:
        ValueError: a damaged sidecar.
    """
    path = sidecar_path(features)
    if not path.is_file() or path.stat().st_size > LARGEST:
        return None
    try:
        content = load_json(path)
    except ValueError:  # somebody else's file
        return None
    return read_sidecar(path) if isinstance(content, dict) and {"format", "preset"} <= content.keys() else None


def common_settings(sidecars: Mapping[str, Sidecar]) -> dict[str, object]:
    """What the sidecars of videos have in common, by video id; at least one.

    Raises:
        ValueError: they differ; names two videos and both values.
    """
    (first, own), *others = sidecars.items()
    for name, sidecar in others:
        for key, value in own.settings().items():
            if sidecar.settings()[key] != value:
                found = sidecar.settings()[key]
                raise ValueError(
                    f"features of video '{name}' were made with {key}: {found}, those of '{first}' with {value}"
                )
    return own.settings()


def differences(found: Mapping[str, object], expected: Mapping[str, object]) -> str:
    """The settings that both have and that differ, with both values, as text; empty if there are none."""
    keys = [key for key in expected if key in found and found[key] != expected[key]]
    return "; ".join(f"{key}: {found[key]}, expected {expected[key]}" for key in keys)
