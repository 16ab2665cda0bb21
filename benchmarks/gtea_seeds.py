"""Trains the small GTEA detector with several seeds and writes the table to docs/benchmarks/gtea_seeds.{md,json}.

    python benchmarks/gtea_seeds.py --data GTEA --seeds 0 1 2 3 4 --work runs/gtea

Averaging does not change the raw weights, so one run per seed with `ema_ramp: true` measures both. A seed with a result
in the work folder is not run again.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import torch

from libs.core import load_config
from libs.core.markdown import markdown_table
from libs.evaluation import run as evaluation
from libs.training import run as engine
from libs.training.run_folder import source_commit

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "benchmarks"


def run_seed(data: Path, seed: int, work: Path) -> dict[str, list[float]]:
    """mAP per tIoU in percent of the raw and the averaged weights of one seed."""
    result_file = work / f"seed{seed}.json"
    if result_file.is_file():
        return json.loads(result_file.read_text())
    config = load_config(ROOT / "configs" / "gtea.yaml")
    config["init_rand_seed"] = seed
    config["dataset"]["json_file"] = str(data / "annotations" / "gtea_split1.json")
    config["dataset"]["feat_folder"] = str(data / "features")
    folder = engine.train(config, work / f"seed{seed}", overwrite=True, ckpt_freq=0)
    result = {}
    for weights in ("raw", "ema"):
        metrics = evaluation.evaluate(config, folder, weights=weights).result
        assert metrics is not None  # None only with save_only
        result[weights] = (100 * metrics.mAP).tolist()
    result_file.write_text(json.dumps(result))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with annotations/ and features/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--work", type=Path, default=Path("runs/gtea"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args.work.mkdir(parents=True, exist_ok=True)

    results = {seed: run_seed(args.data, seed, args.work) for seed in args.seeds}
    average = {w: [float(np.mean(results[s][w])) for s in args.seeds] for w in ("raw", "ema")}
    rows = [(s, *(f"{average[w][i]:.2f}" for w in average)) for i, s in enumerate(args.seeds)]
    rows.append(("mean", *(f"{np.mean(average[w]):.2f}" for w in average)))
    lines = [
        "# GTEA, split 1: seeds",
        "",
        "Average mAP (tIoU .3-.7, %) after 35 epochs (350 updates); `ema_ramp: true`. The features' CNN saw the labels",
        "of the training videos: these figures check the supervised path and support no semi-supervised claim.",
        "",
        markdown_table(["seed", "raw weights", "averaged weights"], rows),
        "",
        f"torch {torch.__version__}, CPU, {torch.get_num_threads()} threads, commit {source_commit()}",
        "",
        f"Made by `python benchmarks/gtea_seeds.py --data GTEA --seeds {' '.join(map(str, args.seeds))}`.",
        "",
    ]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "gtea_seeds.md").write_text("\n".join(lines))
    record = {"seeds": args.seeds, "tiou": [0.3, 0.4, 0.5, 0.6, 0.7], "mAP": results, "average": average}
    (OUT / "gtea_seeds.json").write_text(json.dumps(record, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
