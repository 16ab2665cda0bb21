"""Measures the quality head on GTEA, with all labels, and writes docs/benchmarks/gtea_quality.{md,json}.

    python benchmarks/gtea_quality.py --data GTEA --seeds 0 1 2 3 4 --work runs/gtea_quality

Each seed is one training run with `model.quality: true`. Its averaged weights are evaluated with and without the
predicted quality in the score. The rank correlations (Spearman) are those of the true tIoU of detections in the test
videos with what the network says of them; true is the tIoU with the nearest event of the detection's class. The
detections are the candidates that remain after hard NMS by class score, so the quality has no part in their choice. A
seed with a result in the work folder is not run again.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from actionformer_nt.study.statistics import t_interval
from libs.core import load_config
from libs.core.markdown import markdown_table
from libs.core.types import Config
from libs.datasets import make_dataset
from libs.evaluation import run as evaluation
from libs.modeling.location_quality import predicted_factor
from libs.modeling.losses import iou_matrix
from libs.nms.suppress import nms_videos
from libs.training import run as engine
from libs.training.checkpoint import find_checkpoint
from libs.training.resume import load_model
from libs.training.run_folder import source_commit

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "benchmarks"
FLOOR, NMS_IOU = 0.05, 0.5  # smallest class score of a detection; tIoU from which it suppresses others of its class
SCORES = {"class": "class score", "quality": "predicted quality", "joint": "product"}


def run_seed(data: Path, seed: int, work: Path) -> dict[str, Any]:
    """mAP per tIoU in percent, with and without quality in the score, and rank correlations of one seed."""
    result_file = work / f"seed{seed}.json"
    if result_file.is_file():
        return json.loads(result_file.read_text())
    config = load_config(ROOT / "configs" / "gtea.yaml", overrides=["model.quality=true"])
    config["init_rand_seed"] = seed
    config["dataset"]["json_file"] = str(data / "annotations" / "gtea_split1.json")
    config["dataset"]["feat_folder"] = str(data / "features")
    folder = engine.train(config, work / f"seed{seed}", overwrite=True, ckpt_freq=0)
    result: dict[str, Any] = {"mAP": {}, "rank": rank_correlations(config, folder)}
    for name, used in (("with", True), ("without", False)):
        config["test_cfg"]["quality_score"] = used
        metrics = evaluation.evaluate(config, folder).result
        assert metrics is not None  # None only with save_only
        result["mAP"][name] = (100 * metrics.mAP).tolist()
    result_file.write_text(json.dumps(result))
    return result


@torch.no_grad()
def rank_correlations(config: Config, folder: Path) -> dict[str, float]:
    """Rank correlation of each of `SCORES` with the true tIoU of the detections of all test videos."""
    dataset = make_dataset(config["dataset_name"], False, config["val_split"], **config["dataset"])
    model = load_model(config, find_checkpoint(folder)).eval()
    rows: list[torch.Tensor] = []
    for video in (dataset[i] for i in range(len(dataset))):
        (batch,) = model.batches([video])
        logits, segments, quality = model.infer(batch).of_video(0)
        scores, factor = model.class_form.scores(logits), predicted_factor(quality)
        for c in range(scores.shape[1]):
            (index,) = (scores[:, c] > FLOOR).nonzero(as_tuple=True)
            ((_, _, kept),) = nms_videos(
                [(segments[index], scores[index, c], index)], iou_threshold=NMS_IOU, min_score=0.0,
                max_seg_num=len(index), method="hard", multiclass=False,
            )  # fmt: skip
            events = video["segments"][video["labels"] == c]
            best = iou_matrix(segments[kept], events).amax(dim=1) if len(events) else torch.zeros(len(kept))
            rows.append(torch.stack([scores[kept, c], factor[kept], scores[kept, c] * factor[kept], best], dim=1))
    *said, true = torch.cat(rows).double().T.numpy()
    return {name: float(spearmanr(own, true).statistic) for name, own in zip(SCORES, said, strict=True)}


def with_interval(values: list[float], digits: int) -> str:
    """Mean and t interval as text."""
    low, high = t_interval(values)
    return f"{np.mean(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def table(results: dict[int, dict[str, Any]]) -> list[str]:
    """The tables of mAP and of rank correlations as Markdown."""
    maps = {k: [float(np.mean(r["mAP"][k])) for r in results.values()] for k in ("without", "with")}
    gain = [b - a for a, b in zip(maps["without"], maps["with"], strict=True)]
    rows: list[tuple[Any, ...]] = [
        (seed, *(f"{x:.2f}" for x in row))
        for seed, row in zip(results, zip(maps["without"], maps["with"], gain, strict=True), strict=True)
    ]
    rank = {k: [r["rank"][k] for r in results.values()] for k in SCORES}
    ranks: list[tuple[Any, ...]] = [(seed, *(f"{rank[k][i]:.3f}" for k in SCORES)) for i, seed in enumerate(results)]
    if len(results) > 1:
        rows.append(("mean", *(with_interval(x, 2) for x in (maps["without"], maps["with"], gain))))
        ranks.append(("mean", *(with_interval(rank[k], 3) for k in SCORES)))
    return [
        markdown_table(["seed", "class score", "class score times quality", "difference"], rows),
        "",
        "Rank correlation (Spearman) of the true tIoU of the detections in the test videos with:",
        "",
        markdown_table(["seed", *SCORES.values()], ranks),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with annotations/ and features/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--work", type=Path, default=Path("runs/gtea_quality"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args.work.mkdir(parents=True, exist_ok=True)

    results = {seed: run_seed(args.data, seed, args.work) for seed in args.seeds}
    lines = [
        "# GTEA, split 1: the quality head",
        "",
        "Average mAP (tIoU .3-.7, %) after 35 epochs (350 updates) with `model.quality: true`, averaged weights, with",
        "and without the predicted quality in the score. Means with 95 % t intervals over the seeds. The features' CNN",
        "saw the labels of the training videos; no semi-supervised claim rests on these figures.",
        "",
        *table(results),
        "",
        f"torch {torch.__version__}, CPU, {torch.get_num_threads()} threads, commit {source_commit()}",
        "",
        f"Made by `python benchmarks/gtea_quality.py --data GTEA --seeds {' '.join(map(str, args.seeds))}`.",
        "",
    ]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "gtea_quality.md").write_text("\n".join(lines))
    (OUT / "gtea_quality.json").write_text(json.dumps({"seeds": results}, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
