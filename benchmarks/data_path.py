"""Time of reading an epoch of training videos from disk, without a network: this project and the peer, in turn.

    python benchmarks/data_path.py --annotations thumos14.json --lengths i3d_feature_lengths.json [--videos 100]

Writes docs/benchmarks/data_path.{md,json}. Feature files have THUMOS14's real lengths at 2,048 channels and random
numbers (one block of them, so that making the files is quick). "cold" evicts the files from the page cache before
every epoch, "warm" has read them once. Configuration: thumos_i3d.yaml, batches of 2.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from models import CONFIG, NAMES, machine, ratio_text, write
from peer import ROOT, peer_python

from libs.core.markdown import markdown_table

FOLDER = ROOT / ".bench" / "data_path"
CHANNELS = 2048
# side, data type on disk, workers, MiB of cache
CASES = [
    ("peer", "float32", 2, 0), ("ours", "float32", 2, 0), ("ours", "float16", 2, 0),
    ("ours", "float32", 0, 0), ("ours", "float16", 0, 0), ("ours", "float16", 0, 100_000),
]  # fmt: skip


def make_files(annotations: dict, lengths: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    block = rng.standard_normal((max(lengths.values()), CHANNELS), dtype=np.float32)
    for kind in ("float32", "float16"):
        (FOLDER / kind).mkdir(parents=True, exist_ok=True)
        for video, steps in lengths.items():
            path = FOLDER / kind / f"{video}.npy"
            if not path.is_file():
                np.save(path, block[:steps].astype(kind))
    chosen = {video: annotations["database"][video] for video in lengths}
    (FOLDER / "annotations.json").write_text(json.dumps(annotations | {"database": chosen}))


def evict(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def epochs(side: str, kind: str, workers: int, cache_mib: int) -> dict[str, float]:
    """Seconds of a cold epoch and of the warm epoch after it, in a new process."""
    python = sys.executable if side == "ours" else str(peer_python())
    command = [python, __file__, "--worker", side, kind, str(workers), str(cache_mib)]
    environment = os.environ | {"PYTHONPATH": str(ROOT) if side == "ours" else ""}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def work(side: str, kind: str, workers: int, cache_mib: int) -> None:
    import importlib

    import torch

    package = "libs" if side == "ours" else "actionformer"
    core, datasets = (importlib.import_module(f"{package}.{part}") for part in ("core", "datasets"))
    config = core.load_config(str(CONFIG))
    config["dataset"] |= {"json_file": str(FOLDER / "annotations.json"), "feat_folder": str(FOLDER / kind)}
    if cache_mib:
        config["dataset"]["cache_mib"] = cache_mib
    dataset = datasets.make_dataset(config["dataset_name"], True, config["train_split"], **config["dataset"])
    loader = datasets.make_data_loader(
        dataset, True, torch.Generator().manual_seed(0), batch_size=2, num_workers=workers
    )
    seconds = {}
    for name in ("cold", "warm"):
        if name == "cold":
            evict(FOLDER / kind)
        start = time.perf_counter()
        steps = sum(video["feats"].shape[1] for batch in loader for video in batch)
        seconds[name] = time.perf_counter() - start
    print(json.dumps(seconds | {"steps": steps}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--lengths", required=True)
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    annotations = json.loads(Path(args.annotations).read_text())
    lengths = json.loads(Path(args.lengths).read_text())
    names = [v for v in sorted(lengths) if annotations["database"].get(v, {}).get("subset", "").lower() == "validation"]
    chosen = random.Random(0).sample(
        names, min(args.videos, len(names))
    )  # random, so that all classes occur: the peer requires this
    make_files(annotations, {video: lengths[video] for video in chosen})

    runs: dict[tuple, list[dict[str, float]]] = {case: [] for case in CASES}
    for _ in range(args.repeats):
        for case in CASES:
            runs[case].append(epochs(*case))
    rows = []
    for case, of_case in runs.items():
        side, kind, workers, cache_mib = case
        texts = []
        for name in ("cold", "warm"):
            base = [run[name] for run in runs[CASES[0]]]  # the peer cannot run without workers
            seconds = [run[name] for run in of_case]
            ratio = "" if side == "peer" else ratio_text([a / b for a, b in zip(base, seconds, strict=True)])
            texts += [f"{statistics.median(seconds):.2f}", ratio]
        cache = ", cache" if cache_mib else ""
        rows.append([f"{NAMES[side]}, {kind}{cache}", workers, *texts])
    write(
        "data_path",
        [
            "# Reading an epoch",
            "",
            f"{len(chosen)} training videos of THUMOS14's lengths, {CHANNELS} channels; {machine(1)}. "
            f"Seconds (median of {args.repeats}) and how many times faster than {NAMES['peer']}, which needs workers.",
            "",
            markdown_table(["", "workers", "cold", "", "warm", ""], rows),
            "",
            "Made by `python benchmarks/data_path.py --annotations thumos14.json --lengths i3d_feature_lengths.json "
            f"--videos {args.videos} --repeats {args.repeats}`.",
        ],
        {"machine": machine(1), "runs": [{"case": case, "epochs": of_case} for case, of_case in runs.items()]},
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
