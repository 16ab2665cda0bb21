"""Features of new videos, made as those of a run's training videos."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from libs.datasets.sidecar import FPS_TOLERANCE, differences

if TYPE_CHECKING:
    from libs.extraction.extract import Extraction
    from libs.extraction.extractor import Extractor


def extract_as_trained(
    features: Mapping[str, object] | None, videos: Sequence[str], out: str | os.PathLike, *,
    fps: tuple[float, float] | None, device: str, weights: str | os.PathLike | None = None,
    flow_weights: str | os.PathLike | None = None, progress: bool = False,
) -> tuple[list[Path], Extraction]:  # fmt: skip
    """Extracts features of videos into a folder, with the preset, weights and timing of a run's training features. What
    is there and was made otherwise is replaced.

    Args:
        features: how these were made (`Sidecar.settings`); None: not known.
        fps: lowest and highest frame rate of the training videos; None: not known.
        weights, flow_weights: weight files of the preset; None: its library's own.
        progress: show a bar of frames.

    Returns:
        The feature files of the videos that could be read, and what became of all.

    Raises:
        ValueError: the run does not say how its features were made, the weights are others, or another process makes
            features of these videos there.
    """
    from libs.extraction.extract import extract
    from libs.extraction.output import OutputFolder

    extractor = extractor_of(features, weights=weights, flow_weights=flow_weights)
    extractor = extractor.on(device, str((features or {}).get("dtype", "float32")))
    found = extract(
        videos, out, extractor, fps=_rate(fps), workers=os.cpu_count() or 1, overwrite=True, progress=progress
    )
    if found.elsewhere:
        raise ValueError(f"another process extracts {found.elsewhere[0]} into {os.fspath(out)}: wait for its end")
    folder = OutputFolder(out, extractor.settings(), fps=None)
    return [folder.features(video) for video in videos if video not in found.failed], found


def extractor_of(
    features: Mapping[str, object] | None, *, weights: str | os.PathLike | None = None,
    flow_weights: str | os.PathLike | None = None,
) -> Extractor:  # fmt: skip
    """The extractor that made features with these settings (`Sidecar.settings`).

    Raises:
        ValueError: no settings, or other weights.
    """
    from libs.extraction.presets import make_extractor

    if features is None:
        raise ValueError(
            "the run does not say how its features were made, since they have no sidecars: give feature files that "
            "were made like these, or train on features of `actionformer-nt extract`"
        )
    wanted = str(features["weights"])
    seed = int(wanted.removeprefix("random ")) if wanted.startswith("random ") else None
    spatial = None if features["spatial"] == "preset" else str(features["spatial"])
    window, stride = (int(str(features[key])) for key in ("window", "stride"))
    flow = None if features["flow"] is None else str(features["flow"]).split()[0]
    extractor = make_extractor(
        str(features["preset"]), weights=weights, flow_weights=flow_weights, seed=seed, window=window, stride=stride,
        spatial=spatial, flow=flow,
    )  # fmt: skip
    if wrong := differences(extractor.settings(), {key: features[key] for key in ("weights", "flow")}):
        raise ValueError(f"preset {extractor.name} is not as in training: {wrong}")
    return extractor


def _rate(fps: tuple[float, float] | None) -> Fraction | str:
    """The frame rate of all training videos, at which new ones are seen too; each video's own, if it varied."""
    if fps is None or fps[1] - fps[0] > FPS_TOLERANCE * fps[0]:
        return "native"
    return Fraction(fps[1]).limit_denominator(1001)
