"""The demonstration of `make demo`: trains a supervised detector and, on synthetic data, learns from few labels.

python tools/demo.py [--data FOLDER_OF_GTEA] [--head spot]
"""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from actionformer_nt import run as semi_run
from actionformer_nt.commands.main import tool
from actionformer_nt.config import semi_section
from actionformer_nt.protocol import splits
from libs.core import load_config
from libs.core.types import Config
from libs.datasets.annotations import read_annotations
from libs.datasets.simulate import Simulation, simulate
from libs.evaluation import run as evaluation
from libs.training import run as engine
from libs.training import run_folder
from libs.training.checkpoint import find_checkpoint

ROOT = Path(__file__).resolve().parent.parent
DATA = Path("demo/data")
WHAT = {
    "labeled_only": "learns from the labeled videos alone",
    "target": "and from the others, by the most probable class of each pseudo label",
    "nt": "and from the others, by their non-target classes, too",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=None, help="folder with GTEA's annotations/ and features/")
    parser.add_argument("--head", choices=["actionformer", "spot"], default="actionformer", help="the detector")


def run(args: argparse.Namespace) -> None:
    if args.data is None:
        print("making a synthetic data set (features drawn from random prototypes, no real video) ...")
        simulate(DATA, Simulation(), jobs=os.cpu_count() or 1, progress=True)
        if args.head == "actionformer":
            supervised("demo", load_config(ROOT / "configs" / "demo.yaml"))
        few_labels("demo" if args.head == "actionformer" else "spot_demo")
        return
    name = "gtea" if args.head == "actionformer" else "spot_gtea"
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    config["dataset"]["json_file"] = str(args.data / "annotations" / "gtea_split1.json")
    config["dataset"]["feat_folder"] = str(args.data / "features")
    config["output_folder"] = "./demo/runs"
    supervised(name, config)
    print("no semi-supervised part: the network that made these features saw the labels of all training videos")


def supervised(name: str, config: Config) -> None:
    folder = run_folder.folder_of_run(config, name, "supervised")
    engine.train(config, folder, overwrite=True, ckpt_freq=0)
    results = evaluation.evaluate(config, folder)
    print(f"\ncheckpoint:  {find_checkpoint(folder)}")
    print(f"TensorBoard: tensorboard --logdir {folder / 'logs'}")
    print(f"config:      {folder / 'config.yaml'}")
    for kind, path in results.files.items():
        print(f"{kind + ':':12} {path}")


def few_labels(name: str) -> None:
    """Trains with 4 of 40 training videos labeled: without the other 36 videos, and with them as unlabeled videos.

    All runs have the stages of the configuration: a burn-in, which they share, and as many updates after it.
    """
    content = splits.make_splits(
        read_annotations(DATA / "annotations.json"), ["training"], kind="stratified", ratios=[0.1]
    )
    splits.write_splits(DATA / "split.json", content)
    updates = sum(stage.iterations for stage in semi_section(_few_labels_config(name, {})).plan())
    print(f"\n4 of 40 training videos labeled; three runs of {updates} updates each")
    runs: dict[str, Path] = {}
    for method in WHAT:
        start = {"burn_in_checkpoint": str(runs["labeled_only"] / semi_run.BURN_IN)} if runs else {}
        config = _few_labels_config(name, {"method": method} | start)
        runs[method] = semi_run.train(config, run_folder.folder_of_run(config, name, method), overwrite=True)
    scores = {method: _score(folder) for method, folder in runs.items()}
    print("\naverage mAP of the student on the (synthetic) test videos, in percent, one run each:")
    for method, what in WHAT.items():
        print(f"  {method:13} {100 * scores[method]:5.2f}  {what}")
    print("One run shows that the code works. Another seed or processor moves each figure by a few points, and may")
    print("change the order of target and nt. What the methods are worth, over many draws, is in docs/results.")


def _few_labels_config(name: str, settings: Mapping[str, object]) -> Config:
    config = load_config(ROOT / "configs" / "semi" / f"{name}.yaml")
    config["semi_cfg"] |= dict(settings)
    return config


def _score(folder: Path) -> float:
    result = semi_run.evaluate(load_config(folder / "config.yaml"), folder)["student"].result
    assert result is not None  # None only with save_only
    return result.average_mAP


if __name__ == "__main__":
    sys.exit(tool(sys.modules[__name__]))
