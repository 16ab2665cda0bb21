"""Runs the rungs of a ladder, one change at a time: python docs/results/recipe/ladder.py docs/results/recipe/hapt.yaml

Every result is a line of `<ladder>.jsonl`; a second call runs only what is missing, also beside the first. `--table`
prints the table.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import yaml
from filelock import FileLock, Timeout

from actionformer_nt import run
from libs.core import load_config
from libs.core.markdown import markdown_table
from libs.training.run_folder import source_commit

SHOWN = ("hidden/precision", "hidden/recall", "hidden/target_accuracy")


def keys_of(ladder: dict, name: str) -> dict:
    """The keys that a rung sets, with those of the rungs it stands on."""
    rung = ladder["rungs"][name]
    below = keys_of(ladder, rung["after"]) if "after" in rung else ladder.get("set", {})
    return below | rung.get("set", {})


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def train(ladder: dict, name: str, draw: int, runs: Path, device: str) -> dict:
    rung, folder = ladder["rungs"][name], runs / f"{name}_{draw}"
    keys = keys_of(ladder, name) | {"semi_cfg.method": rung.get("method", "target"), "semi_cfg.split.fold": draw}
    burn_in = runs / f"{rung.get('burn_in')}_{draw}" / "burn_in.pth.tar"
    if burn_in.is_file():  # else the run makes the same one itself
        keys["semi_cfg.burn_in_checkpoint"] = str(burn_in)
    keys["devices"] = [device]
    overrides = [f"{key}={json.dumps(value)}" for key, value in keys.items()]
    config = load_config(
        ladder["base"], overrides=[*overrides, "semi_cfg.log_hidden=true", "semi_cfg.samples.videos=0"]
    )
    began = time.perf_counter()
    last = folder / "last.pth.tar"
    run.train(config, folder, resume=folder if last.is_file() else None, progress=False)
    scores = {name: e.result.average_mAP for name, e in run.evaluate(config, folder, progress=False).items()}
    metrics = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    return {
        "rung": name, "draw": draw, **scores, "seconds": round(time.perf_counter() - began), "set": keys,
        "metrics": {key: round(value, 4) for key, value in metrics.items()}, "commit": source_commit(),
    }  # fmt: skip


def table(ladder: dict, lines: list[dict]) -> str:
    rows = []
    for name, rung in ladder["rungs"].items():
        found = sorted((line for line in lines if line["rung"] == name), key=lambda line: line["draw"])
        if not found:
            continue
        scores = [100 * line["student"] for line in found]
        hidden = [
            f"{statistics.mean(line['metrics'][key] for line in found):.2f}" if key in found[0]["metrics"] else ""
            for key in SHOWN
        ]
        cells = " / ".join(f"{score:.1f}" for score in scores)
        rows.append([name, rung["what"], cells, f"{statistics.mean(scores):.1f}", *hidden])
    return markdown_table(["rung", "what", "draws", "mean", "precision", "recall", "class right"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ladder", type=Path)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--runs", type=Path, default=Path("ckpt/recipe"))
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ladder = yaml.safe_load(args.ladder.read_text(encoding="utf-8"))
    path, runs = args.ladder.with_suffix(".jsonl"), args.runs / args.ladder.stem
    if args.table:
        print(table(ladder, read(path)))
        return
    runs.mkdir(parents=True, exist_ok=True)
    for name, rung in ladder["rungs"].items():
        for draw in rung.get("draws", ladder["draws"]):
            try:
                with FileLock(runs / f"{name}_{draw}.lock", timeout=0):
                    if any((line["rung"], line["draw"]) == (name, draw) for line in read(path)):
                        continue
                    result = train(ladder, name, draw, runs, args.device)
                    with path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(result) + "\n")
            except Timeout:
                continue  # another call is at it
            print(name, draw, {key: round(100 * result[key], 2) for key in ("student", "teacher")}, flush=True)


if __name__ == "__main__":
    main()
