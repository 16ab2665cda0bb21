"""The demonstration of `make demo`: trains and evaluates a small detector, on synthetic or on GTEA's data.

python tools/demo.py [--data FOLDER_OF_GTEA]
"""

import argparse
import os
import sys
from pathlib import Path

from actionformer_nt.cli import tool
from libs import engine, run_folder
from libs.core import load_config
from libs.datasets.simulate import Simulation, simulate
from libs.utils.checkpoint import find_checkpoint

ROOT = Path(__file__).resolve().parent.parent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=None, help="folder with GTEA's annotations/ and features/")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if args.data is None:
        config_path, data = ROOT / "configs" / "demo.yaml", Path("demo/data")
        print("making a synthetic data set (features drawn from random prototypes, no real video) ...")
        simulate(data, Simulation(), jobs=os.cpu_count() or 1, progress=True)
        config = load_config(config_path)
    else:
        config_path = ROOT / "configs" / "gtea.yaml"
        config = load_config(config_path)
        config["dataset"]["json_file"] = str(args.data / "annotations" / "gtea_split1.json")
        config["dataset"]["feat_folder"] = str(args.data / "features")
        config["output_folder"] = "./demo/runs"

    folder = run_folder.folder_of_run(config, config_path, "supervised")
    engine.train(config, folder, overwrite=True, ckpt_freq=0)
    found = engine.evaluate(config, folder)
    print(f"\ncheckpoint:  {find_checkpoint(folder)}")
    print(f"TensorBoard: tensorboard --logdir {folder / 'logs'}")
    print(f"config:      {folder / 'config.yaml'}")
    for what, path in found.files.items():
        print(f"{what + ':':12} {path}")


if __name__ == "__main__":
    sys.exit(tool(add_arguments, __doc__))
