"""Reads run folders and collects the report's content as plain values for JSON."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import yaml

from libs.core.files import load_json
from libs.core.types import Config
from libs.datasets.annotations import Annotations, read_annotations
from libs.training.run_folder import GROUND_TRUTH, SAMPLES, WATCH
from libs.training.run_identity import read_classes

from .evaluations import Metrics, describe_evaluation, read_detections, read_metrics
from .timelines import Timelines

logger = logging.getLogger(__name__)

MAX_RECORDS = 400  # points of a training curve
NAMES = {True: {"raw": "student", "ema": "teacher"}, False: {"raw": "raw weights", "ema": "averaged weights"}}


def gather(folders: Sequence[str | Path], *, videos: int = 200) -> dict[str, object]:
    """The content of the report, ready for JSON.

    Args:
        folders: run folders.
        videos: largest number of timelines per run and subset, evenly chosen.

    Raises:
        FileNotFoundError: not a run folder.
        ValueError: files in it that do not belong together; names them.
    """
    paths = [Path(folder) for folder in folders]
    if not paths:
        raise ValueError("report: no run folder was given")
    return {"runs": [_run(path, name, videos) for path, name in zip(paths, run_names(paths), strict=True)]}


def run_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, or as many parts as distinguish the paths."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"report: a run folder was given twice: {[str(path) for path in paths]}")


def _run(folder: Path, name: str, videos: int) -> dict[str, object]:
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(f"{folder}: not a run folder, it has no config.yaml")
    config: Config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    truth = _ground_truth(folder)
    timelines = Timelines(truth, subset=_subsets(truth))
    other_timelines = []  # of evaluations on data other than the run's
    evaluations = []
    metrics_files = sorted(folder.glob("*_metrics.json"))
    checkpoints = {parts_of(path)[0] for path in metrics_files}
    for path in metrics_files:
        detections, names = read_detections(path.with_name(path.name.replace("_metrics.json", "_detections.json")))
        metrics = read_metrics(path)
        label = evaluation_name(path, metrics, semi="semi_cfg" in config, several=len(checkpoints) > 1)
        truth_file = path.with_name(path.name.replace("_metrics.json", f"_{GROUND_TRUTH}"))
        local_truth = read_annotations(truth_file) if truth_file.is_file() else truth
        evaluations.append({"name": label} | describe_evaluation(path, metrics, detections, local_truth))
        if truth_file.is_file():
            other_timelines.append(Timelines(local_truth, subset=f"{_subsets(local_truth)} ({parts_of(path)[2]})"))
        (other_timelines[-1] if truth_file.is_file() else timelines).add(label, detections, names)
    if not evaluations:
        logger.warning("%s: no evaluation in it; `actionformer-nt eval` makes one", folder)
    samples = read_samples(folder / SAMPLES)
    unlabeled = sample_timelines(folder / SAMPLES, samples)
    shown = [t for t in (timelines, *other_timelines, unlabeled) if t is not None]
    return {
        "name": name,
        "classes": all_classes(folder, shown, samples["embeddings"]),
        "about": about(config, folder),
        "evaluations": evaluations,
        "curves": read_curves(folder / "metrics.jsonl"),
        "watch": read_watch(folder),
        "timelines": [t.content(videos) for t in shown],
        **samples,
    }


def _subsets(truth: Annotations | None) -> str:
    return ", ".join(sorted({video.subset for video in truth.videos})) if truth and truth.videos else "test"


def all_classes(folder: Path, timelines: Sequence[Timelines], embeddings: Embeddings | None) -> dict[int, str]:
    """Class id -> name of all classes of the run, including classes that the page does not show."""
    names = {} if embeddings is None else {int(i): name for i, name in embeddings["labels"].items()}
    for part in timelines:
        names |= part.names
    return dict(sorted((names | (read_classes(folder) or {})).items()))


def _ground_truth(folder: Path) -> Annotations | None:
    path = folder / GROUND_TRUTH
    if path.is_file():
        return read_annotations(path)
    logger.warning("%s: no %s, so no error diagnosis; evaluating again writes it", folder, GROUND_TRUTH)
    return None


def parts_of(path: Path) -> tuple[str, str, str]:
    """Checkpoint, weights and other data (empty: the run's data) in the name of a metrics file, see
    `run_folder.stem_of_results`."""
    stem = path.name.removesuffix("_metrics.json")
    match = re.fullmatch(r"(.+?)_(ema|raw)(?:_(.+))?", stem)
    return (match[1], match[2], match[3] or "") if match else (stem, "", "")


def evaluation_name(path: Path, metrics: Metrics, *, semi: bool, several: bool) -> str:
    """Name of an evaluation: the weights and, if they apply, checkpoint, other data and external scores."""
    checkpoint, weights, data = parts_of(path)
    name = NAMES[semi].get(weights, weights)
    if several:
        name += f", {checkpoint}"
    if data:
        name += f", {data}"
    return name + (" (external scores)" if metrics.get("provenance", {}).get("external_scores") else "")


def about(config: Config, folder: Path) -> list[list[str]]:
    """Rows [name, value] of the overview of a run."""
    starts = load_json(folder / "run.json") if (folder / "run.json").is_file() else []
    rows = [["detector", config["model_name"]], ["annotations", Path(config["dataset"]["json_file"]).name]]
    if semi := config.get("semi_cfg"):
        split = semi["split"]
        rows += [
            ["method", semi["method"]],
            ["labeled share", f"{_ratio(split.get('ratio'))}, fold {split['fold']} of {Path(split['file']).name}"],
            ["iterations", iterations_of(semi)],
        ]
    if watch := read_watch(folder):
        count = len(watch["warnings"])
        rows.append(["watch", f"{count} warning{'s' * (count > 1)}, see Pseudo labels" if count else "no warning"])
    rows.append(["seed", str(config["init_rand_seed"])])
    if starts:
        last = starts[-1]
        rows += [["started", str(last["started"])], ["commit", str(last["commit"])], ["command", str(last["command"])]]
    if scores := config["test_cfg"].get("ext_score_file"):
        rows.append(["external scores", str(scores)])
    return rows


def iterations_of(semi: dict[str, Any]) -> str:
    """How long the stages are, such as "600 burn-in, 900 self-training", by `semi_cfg.stages` or the lengths beside it.

    Args:
        semi: the section `semi_cfg` as its file has it; it is not checked, since the run's method may not be installed.
    """
    lengths = {"pretext": semi.get("pretrain") or 0, "labeled": semi["burn_in"], "pseudo": semi["iterations"]}
    for stage in semi.get("stages") or []:
        lengths[stage["learn"]] += stage["iterations"] * stage.get("repeat", 1)
    rounds = sum(stage.get("repeat", 1) for stage in semi.get("stages") or [] if stage["learn"] == "pseudo")
    parts = [f"{lengths['pretext']} pretext"] if lengths["pretext"] else []
    parts += [f"{lengths['labeled']} burn-in", f"{lengths['pseudo']} self-training"]
    return ", ".join(parts) + (f" in {rounds} stages" if rounds > 1 else "")


def _ratio(ratio: float | None) -> str:
    return "as listed" if ratio is None else f"{100 * ratio:.3g} %"


class TrainingCurves(TypedDict):
    """The records of a training run as columns."""

    key: str  # "epoch" or "iteration"
    x: list[int]
    series: dict[str, list[float | None]]  # name -> values, as many as `x`


def read_curves(path: Path) -> TrainingCurves | None:
    """Reads `metrics.jsonl` as columns, thinned to at most `MAX_RECORDS` records; None if there is no record."""
    if not path.is_file():
        return None
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    if not records:
        return None
    step = -(-len(records) // MAX_RECORDS)
    records = records[::-1][::step][::-1]  # keeps the last record
    key = "iteration" if "iteration" in records[0] else "epoch"
    names = sorted({name for record in records for name in record} - {key, "seconds"})
    series = {name: [_short(record.get(name)) for record in records] for name in names}
    return {"key": key, "x": [record[key] for record in records], "series": series}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


class WatchContent(TypedDict):
    """The key of the watch's file that the report needs; the page shows further keys."""

    warnings: list[dict[str, object]]


def read_watch(folder: Path) -> WatchContent | None:
    """The comparison of pseudo labels with the labeled videos in a run folder; None for other runs."""
    path = folder / WATCH
    content: WatchContent | None = load_json(path) if path.is_file() else None
    return content


class Moment(TypedDict):
    """Class distributions of pseudo labels at one iteration, see `snapshots`."""

    iteration: int
    lam: float
    classes: list[object]
    distributions: list[object]


class Embeddings(TypedDict):
    """The key of `embeddings.json` that the report needs; the page shows further keys."""

    labels: dict[str, str]  # class id -> name


class Samples(TypedDict):
    """Snapshots of a semi-supervised run; empty and None for other runs."""

    moments: list[Moment]
    embeddings: Embeddings | None


def read_samples(folder: Path) -> Samples:
    """Reads the snapshots of a semi-supervised run."""
    moments: list[Moment] = []
    for path in sorted(folder.glob("iteration_*.json")):
        content = load_json(path)
        moments.append(
            {
                "iteration": content["iteration"], "lam": content["lam"], "classes": content["classes"],
                "distributions": content["distributions"],
            }
        )  # fmt: skip
    embeddings = folder / "embeddings.json"
    return {"moments": moments, "embeddings": load_json(embeddings) if embeddings.is_file() else None}


def sample_timelines(folder: Path, samples: Samples) -> Timelines | None:
    """Timelines of the unlabeled videos: pseudo labels at each snapshot, the student's final detections, and hidden
    labels if the run logged them. None without snapshots."""
    if not samples["moments"]:
        return None
    hidden = folder / "hidden_labels.json"
    timelines = Timelines(read_annotations(hidden) if hidden.is_file() else None, subset="unlabeled training")
    for moment in samples["moments"]:
        path = folder / f"iteration_{moment['iteration']:08d}.json"
        timelines.durations |= {i: video["duration"] for i, video in load_json(path)["seen"].items()}
        timelines.add(f"teacher's pseudo labels, iteration {moment['iteration']}", *read_detections(path))
    timelines.earlier = len(samples["moments"]) - 1
    if (folder / "predictions.json").is_file():
        timelines.add("student", *read_detections(folder / "predictions.json"))
    return timelines
