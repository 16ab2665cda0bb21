"""Pseudo labels that a frozen teacher makes once, on whole unlabeled videos, before a stage (`labels: stored`).

`pseudo_labels/stage_N.json` in the run folder has them as detections, in seconds; `stage_N.pt` has all of them, for
resuming.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch

from libs.core import distributed
from libs.datasets import make_dataset
from libs.datasets.dataset import TALDataset
from libs.datasets.labels import names_of
from libs.evaluation.detections import concatenate, make_detections, write_results
from libs.modeling.decode import to_seconds
from libs.training.run_folder import PSEUDO_LABELS

from .interface import SelfTraining
from .setup import SemiRun
from .stages import Stage
from .teacher import Teacher

logger = logging.getLogger(__name__)


def stored_labels(run: SemiRun, stage: Stage, folder: Path) -> dict[str, Any]:
    """The stored pseudo labels of a stage by video: those in the run folder if its teacher made them, or new ones,
    which are then written there."""
    teacher = run.teacher
    assert teacher is not None and run.stages.unlabeled is not None
    self_training, file = teacher.self_training, folder / PSEUDO_LABELS / f"stage_{stage.number}.pt"
    origin = _origin(run)
    labels = distributed.from_main(_read(file, origin, self_training) if distributed.is_main() else None)
    if labels is None:
        videos = _whole_videos(run, run.stages.unlabeled)
        logger.info("stage %d: the teacher labels %d unlabeled videos", stage.number, len(videos))
        ids = [video.id for video in videos.videos]
        labels = dict(zip(ids, _label(teacher, videos, stage.start), strict=True))
        if distributed.is_main():
            file.parent.mkdir(parents=True, exist_ok=True)
            _write_detections(run, videos, self_training, labels, file.with_suffix(".json"))
            part = file.with_suffix(".part")
            torch.save({"origin": origin, "labels": labels}, part)
            part.replace(file)  # last: without this file, both are written again
    return labels


def _label(teacher: Teacher, videos: TALDataset, iteration: int) -> list[Any]:
    """Pseudo labels of all videos. The processes look at one video each at a time; the selection follows at the end."""
    self_training, found, size = teacher.self_training, [], distributed.world_size()
    for start in range(0, len(videos), size):
        own = [videos[i] for i in distributed.share(range(start, min(start + size, len(videos))))]
        further = teacher.further_views(own, iteration)
        found += distributed.gather_shares(self_training.find_in_whole_videos(teacher.network, own, further))
    return self_training.select_jointly(found)


def _origin(run: SemiRun) -> str:
    """Hash of all that stored pseudo labels depend on: weights of the teacher, videos, and settings."""
    assert run.teacher is not None
    digest = hashlib.sha256()
    for name, value in run.teacher.network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().numpy().tobytes())
    views = [view.model_dump() for view in run.teacher.views]
    settings = [run.split.hash, run.seed, views, run.semi.pseudo.model_dump(), run.config["dataset"]]
    settings += [run.config["test_cfg"]["quality_score"], run.config["train_cfg"]["amp"]]
    model = {name: value for name, value in run.config["model"].items() if name not in ("train_cfg", "test_cfg")}
    digest.update(json.dumps([*settings, model], sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _read(file: Path, origin: str, self_training: SelfTraining) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        with torch.serialization.safe_globals(list(self_training.pseudo_types)):
            content = torch.load(file, map_location="cpu", weights_only=True)
        labels: dict[str, Any] = content["labels"]
        return labels if content["origin"] == origin else None
    except Exception as error:  # torch raises many exception types for damaged files
        logger.warning("%s cannot be read and is made again: %s", file, str(error).partition("\n")[0])
        return None


def _whole_videos(run: SemiRun, unlabeled: TALDataset) -> TALDataset:
    config = run.config
    dataset: TALDataset = make_dataset(
        config["dataset_name"], False, config["train_split"], **config["dataset"],
        annotations=run.annotations, video_ids=frozenset(video.id for video in unlabeled.videos),
    )  # fmt: skip
    return dataset


def _write_detections(
    run: SemiRun, videos: TALDataset, self_training: SelfTraining, labels: dict[str, Any], path: Path
) -> None:
    parts = []
    for i, video in enumerate(videos.videos):
        segments = self_training.segments(labels[video.id])
        seconds, classes = to_seconds(segments.segments.cpu().float(), videos[i]), segments.logits.argmax(dim=-1)
        ids = [video.id] * len(seconds)
        parts.append(make_detections(ids, seconds[:, 0], seconds[:, 1], classes.cpu(), segments.scores.cpu()))
    write_results(path, concatenate(parts), names_of(run.annotations.label_ids), videos=[v.id for v in videos.videos])
