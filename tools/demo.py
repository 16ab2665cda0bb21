"""The demonstration of `make demo`: trains a supervised detector and, on synthetic data, learns from few labels.

python tools/demo.py [--data FOLDER_OF_GTEA] [--head spot]
"""

import argparse
import os
import sys
from pathlib import Path

from actionformer_nt import run as semi_run
from actionformer_nt.commands.main import tool
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
    """Trains with 4 of 40 training videos labeled: without the other 36 videos, and with them as unlabeled videos."""
    content = splits.make_splits(
        read_annotations(DATA / "annotations.json"), ["training"], kind="stratified", ratios=[0.1]
    )
    splits.write_splits(DATA / "split.json", content)
    scores, burn_in = {}, None
    for method in ("labeled_only", "nt"):
        config = load_config(ROOT / "configs" / "semi" / f"{name}.yaml")
        config["semi_cfg"] |= {"method": method, "burn_in_checkpoint": burn_in}
        folder = run_folder.folder_of_run(config, name, method)
        semi_run.train(config, folder, overwrite=True)
        burn_in = str(folder / semi_run.BURN_IN)
        result = semi_run.evaluate(config, folder)["student"].result
        assert result is not None  # None only with save_only
        scores[method] = result.average_mAP
    print("\nwith 4 of the 40 training videos labeled, average mAP on the (synthetic) test videos:")
    print(f"  labeled videos only:                                    {100 * scores['labeled_only']:.2f}")
    print(f"  and the others unlabeled, by their non-target classes:  {100 * scores['nt']:.2f}")


if __name__ == "__main__":
    sys.exit(tool(sys.modules[__name__]))
