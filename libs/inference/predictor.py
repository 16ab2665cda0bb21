"""A trained detector for videos without annotations.

predictor = Predictor.from_checkpoint("ckpt/thumos_i3d_reproduce")
table = predictor("my_video.npy", fps=30, threshold=0.3)
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from libs.core import load_config
from libs.core.device import select_device
from libs.core.types import Config
from libs.datasets.annotations import read_annotations
from libs.datasets.labels import names_of
from libs.datasets.loader import identity
from libs.datasets.presets import PRESETS
from libs.datasets.sidecar import FPS_TOLERANCE, differences
from libs.evaluation.detections import Detections, to_table
from libs.evaluation.predict import predict, with_topk
from libs.evaluation.thresholds import Thresholds
from libs.extraction.video_files import is_video
from libs.training import run_identity
from libs.training.checkpoint import find_checkpoint
from libs.training.resume import load_model

from .operating_point import stored_thresholds
from .unannotated import Source, Timing, UnannotatedVideos, find_features, make_video
from .videos import extract_as_trained

if TYPE_CHECKING:
    from libs.extraction.extract import Extraction


logger = logging.getLogger(__name__)


class Predictor:
    """Detects actions in feature files.

    Args:
        config: resolved configuration.
        model: on its device, in evaluation mode.
        names: class id -> name; ids without a name are shown as numbers.
        thresholds: thresholds for `threshold="auto"`.
        fps: lowest and highest frame rate of the training videos; None: not known.
        features: how the features of the training videos were made (`Sidecar.settings`); None: not known.
    """

    def __init__(
        self,
        config: Config,
        model: Any,
        *,
        names: dict[int, str],
        thresholds: Thresholds | None = None,
        fps: tuple[float, float] | None = None,
        features: dict[str, object] | None = None,
    ) -> None:
        self.config, self.model, self.names, self.thresholds, self.fps = config, model, names, thresholds, fps
        self.features = features

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike,
        *,
        config: str | os.PathLike | Config | None = None,
        epoch: int = -1,
        weights: str = "ema",
        topk: int = -1,
        thresholds: Thresholds | None = None,
    ) -> Predictor:
        """Loads a trained detector.

        Args:
            path: checkpoint, or folder of checkpoints (see `find_checkpoint`).
            config: file, or resolved dict; None: `config.yaml` beside the checkpoint.
            epoch: which checkpoint of a folder; -1: the last.
            weights: "ema" or "raw".
            topk: detections per video; <= 0: test_cfg.max_seg_num.
            thresholds: None: the thresholds stored beside the checkpoint, if they match it (see `operating_point`).

        Raises:
            FileNotFoundError: no checkpoint or no configuration.
            ValueError: the checkpoint does not fit the configuration.
        """
        path = find_checkpoint(path, epoch)
        if config is None:
            config = path.parent / run_identity.CONFIG
            if not config.is_file():
                raise FileNotFoundError(f"no configuration beside the checkpoint, {config}: give one")
        given = config if isinstance(config, dict) else load_config(config)
        thresholds = thresholds or stored_thresholds(given, path, weights=weights)
        resolved = with_topk(given, topk)
        model = load_model(resolved, path, weights=weights).to(select_device(resolved))
        fps = run_identity.trained_fps(resolved, path.parent)
        features = run_identity.data_of_run(path.parent).get("features")
        names = _names_of_run(resolved, path.parent)
        return cls(resolved, model, names=names, thresholds=thresholds, fps=fps, features=features)

    def __call__(
        self,
        features: str | os.PathLike | np.ndarray | torch.Tensor,
        *,
        fps: float | None = None,
        duration: float | None = None,
        feat_stride: float | None = None,
        num_frames: float | None = None,
        threshold: float | str | None = None,
        video_id: str | None = None,
        video_weights: str | os.PathLike | None = None,
        flow_weights: str | os.PathLike | None = None,
    ) -> pd.DataFrame:
        """Detections of one video.

        Args:
            features: (T, C) numbers, a file that holds them (`.npy`, `.npz`, `.csv`), or a video, whose features are
                made like those of training (`videos.extract_as_trained`).
            fps: frames per second of the video; None: `dataset.default_fps`.
            duration: seconds, to which detections are clipped; None: the end of the features.
            feat_stride, num_frames: timing of the features, in frames; None: the configuration's values.
            threshold: see `keep`.
            video_id: name in the table; None: the name of the file.
            video_weights, flow_weights: weight files of the network that makes the features of a video; None: its
                library's own.

        Returns:
            One row per detection, best first: `video`, `start`, `end` (seconds), `label`, `label_id`, `score`.

        Raises:
            FileNotFoundError, ValueError: see `find_features`, `make_video`.
        """
        if isinstance(features, (str, os.PathLike)) and is_video(features):
            if not os.path.isfile(features):
                raise FileNotFoundError(f"video not found: {os.fspath(features)}")
            with tempfile.TemporaryDirectory() as folder:
                files, found = self.extract(
                    [os.fspath(features)], folder, weights=video_weights, flow_weights=flow_weights
                )
                for reason in found.failed.values():
                    raise ValueError(reason)
                return self(
                    files[0], fps=fps, duration=duration, feat_stride=feat_stride, num_frames=num_frames,
                    threshold=threshold, video_id=video_id,
                )  # fmt: skip
        timing = Timing(fps, duration, feat_stride, num_frames)
        if isinstance(features, (str, os.PathLike)):
            sources = self._find([features])
            if len(sources) != 1:
                raise ValueError(
                    f"{features}: features of {len(sources)} videos; expected one file (`detect` takes folders)"
                )
            ((name, source),) = sources.items()
            timing = source.timed(timing, self.config["dataset"])
            name, feats = video_id or name, source.read()
        else:
            name, feats = video_id or "video", np.asarray(features, dtype=np.float32)
        self._compare_fps(timing.fps or self.config["dataset"]["default_fps"])
        detections = predict([[make_video(name, feats, self.config["dataset"], timing)]], self.model)
        return to_table(self.keep(detections, threshold), self.names)

    def extract(
        self,
        videos: Sequence[str],
        out: str | os.PathLike,
        *,
        weights: str | os.PathLike | None = None,
        flow_weights: str | os.PathLike | None = None,
        progress: bool = False,
    ) -> tuple[list[Path], Extraction]:
        """Features of videos, made like those of training; see `videos.extract_as_trained`."""
        device = str(next(self.model.parameters()).device)
        return extract_as_trained(
            self.features,
            videos,
            out,
            fps=self.fps,
            device=device,
            weights=weights,
            flow_weights=flow_weights,
            progress=progress,
        )

    def detect(
        self,
        paths: Sequence[str | os.PathLike],
        timing: Timing,
        *,
        more_folders: Sequence[str | os.PathLike] = (),
        progress: bool = False,
    ) -> tuple[dict[str, float], Detections]:
        """Detections of many videos, whatever their scores.

        Args:
            paths, more_folders: see `find_features`.
            timing: timing of all these videos.

        Returns:
            Video id -> duration in seconds, and the detections.
        """
        sources = self._find(paths, more_folders)
        for rate in sorted({source.timed(timing, self.config["dataset"]).fps or 0 for source in sources.values()}):
            self._compare_fps(rate or self.config["dataset"]["default_fps"])
        videos = UnannotatedVideos(sources, self.config["dataset"], timing)
        loader = DataLoader(videos, batch_size=self.config["loader"]["eval_batch_size"], collate_fn=identity)
        detections = predict(loader, self.model, progress=progress, desc="predicting")
        return videos.durations, detections

    def keep(self, detections: Detections, threshold: float | str | None) -> Detections:
        """The detections with a score of at least `threshold`.

        Args:
            threshold: a number from 0 to 1; "auto": the threshold of each class that was chosen on a labeled set (see
                `operating_point`); None: keep all detections.

        Raises:
            ValueError: another value, or "auto" without stored thresholds.
        """
        if threshold is None:
            return detections
        if threshold != "auto":
            kept = detections.score >= _score(threshold)
        elif self.thresholds is None:
            raise ValueError(
                "threshold 'auto': no thresholds are stored beside this checkpoint; `actionformer-nt predict "
                "--threshold auto` chooses them on a labeled set, or libs.inference.operating_point.choose_thresholds"
            )
        else:
            kept = self.thresholds.keep(detections)
        return Detections(*(column[kept] for column in detections))

    def _compare_fps(self, fps: object) -> None:
        """Warns if no training video had this frame rate, since features and times may then be wrong."""
        if self.fps is None or not isinstance(fps, int | float):
            return
        low, high = self.fps
        if not low * (1 - FPS_TOLERANCE) <= fps <= high * (1 + FPS_TOLERANCE):
            trained = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            logger.warning(
                "fps %g, but %s in training: times are right only if the features are of clips as long as training's",
                fps, trained,
            )  # fmt: skip

    def _find(
        self, paths: Sequence[str | os.PathLike], more_folders: Sequence[str | os.PathLike] = ()
    ) -> dict[str, Source]:
        data = self.config["dataset"]
        found = find_features(
            paths, channels=data["input_dim"], prefix=data["file_prefix"], ext=data["file_ext"],
            more_folders=more_folders,
        )  # fmt: skip
        for source in found.values():
            self._compare_features(source)
        return found

    def _compare_features(self, source: Source) -> None:
        """Raises ValueError if features were made otherwise than those of training."""
        sidecar = source.files.sidecar(source.name)
        if sidecar is None or self.features is None:
            return
        if wrong := differences(sidecar.settings(), self.features):
            raise ValueError(
                f"{source.files.path(source.name)} was made otherwise than the features of training: {wrong}"
            )


def _score(threshold: float | str) -> float:
    """`threshold` as a float; raises ValueError if it is not a number from 0 to 1."""
    number = isinstance(threshold, int | float | np.number) and not isinstance(threshold, bool)
    if not number or not 0 <= float(threshold) <= 1:
        raise ValueError(f"threshold {threshold!r}: expected a score from 0 to 1, or 'auto'")
    return float(threshold)


def _names_of_run(config: Config, folder: Path) -> dict[int, str]:
    """Class id -> name, from the run folder, else from the annotation file if it exists, else empty."""
    names = run_identity.read_classes(folder)
    if names is not None:
        return names
    data, preset = config["dataset"], PRESETS.get(config["dataset_name"])
    agnostic = preset is not None and preset.class_agnostic and data["num_classes"] == 1
    if agnostic or not Path(data["json_file"]).is_file():
        return {}
    return names_of(read_annotations(data["json_file"]).label_ids)
