"""Inference of the network at full size, with decoding and NMS, against the peer's, alternating in one run.

    python benchmarks/inference.py --lengths i3d_feature_lengths.json [--videos 40] [--threads 1]

Writes docs/benchmarks/inference.{md,json}: throughput over test videos with their real lengths and random features,
peak memory by length, and how time grows with the length and with the number of classes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from models import (
    CONFIG,
    NAMES,
    Worker,
    machine,
    network_operations,
    peak_rate,
    ratio_text,
    read_lengths,
    sample,
    write,
)

from libs.core.markdown import markdown_table


def one_by_one(side: str, lengths: list[int], threads: int) -> list[dict]:
    """Runs each length in a new process, to measure its peak memory."""
    runs = []
    for length in lengths:
        worker = Worker(side, threads=threads)
        runs.append(worker.run("infer", [length]) | {"steps": length})
        worker.close()
        print(side, runs[-1], flush=True)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", required=True)
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--growth", type=int, nargs="*", default=[500, 2000, 12534, 100000])
    parser.add_argument("--peer-longest", type=int, default=12534, help="the peer gets no longer video")
    parser.add_argument("--classes", type=int, nargs="*", default=[20, 200])
    args = parser.parse_args()

    lengths = sample(read_lengths(args.lengths, "test"), args.videos)
    workers = {side: Worker(side, threads=args.threads) for side in ("peer", "ours")}
    rate = peak_rate(workers["ours"])
    for worker in workers.values():
        worker.run("infer", [1000])  # warms up
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in workers}
    for length in lengths:
        for side, worker in workers.items():
            runs[side].append(worker.run("infer", [length]))
        a, b = runs["peer"][-1]["result"], runs["ours"][-1]["result"]
        assert abs(a - b) <= 1e-3 * abs(a), (length, a, b)  # sums of the scores
    for worker in workers.values():
        worker.close()
    seconds = {side: [run["seconds"] for run in of_side] for side, of_side in runs.items()}
    total = {side: sum(of_side) for side, of_side in seconds.items()}
    share = network_operations(sum(lengths)) / total["ours"] / rate

    growth = {
        "peer": one_by_one("peer", [n for n in args.growth if n <= args.peer_longest], args.threads),
        "ours": one_by_one("ours", args.growth, args.threads),
    }
    by_classes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in args.classes:
            config = Path(folder) / "classes.yaml"
            config.write_text(CONFIG.read_text().replace("num_classes: 20", f"num_classes: {count}"))
            for side in ("peer", "ours"):
                worker = Worker(side, threads=args.threads, config=config)
                repeats = [worker.run("infer", [1159])["seconds"] for _ in range(4)][1:]  # the first one warms up
                by_classes.setdefault(count, {})[side] = statistics.median(repeats)
                worker.close()

    record = {
        "machine": machine(args.threads), "peak_flops": rate, "lengths": lengths, "seconds": seconds,
        "throughput": total["peer"] / total["ours"], "operations_of_peak": share, "growth": growth,
        "classes": by_classes,
    }  # fmt: skip
    made_by = (
        f"`python benchmarks/inference.py --lengths i3d_feature_lengths.json --videos {args.videos} "
        f"--threads {args.threads}`"
    )
    write("inference", describe(record, made_by), record)


def describe(record: dict[str, Any], made_by: str) -> list[str]:
    """The lines of the page."""
    lengths, seconds, growth, rate = (record[key] for key in ("lengths", "seconds", "growth", "peak_flops"))
    peer_growth = {run["steps"]: run for run in growth["peer"]}

    def cell(length: int, key: str, form: str) -> str:
        return format(peer_growth[length][key], form) if length in peer_growth else ""

    steps, operations = sum(lengths), network_operations(sum(lengths))
    total = {side: sum(of_side) for side, of_side in seconds.items()}
    ratios = [a / b for a, b in zip(seconds["peer"], seconds["ours"], strict=True)]
    rates = [
        (NAMES[side], f"{steps / total[side]:,.0f}", f"{100 * operations / total[side] / rate:.0f} %") for side in NAMES
    ]
    long_videos = [
        (
            f"{run['steps']:,}", cell(run["steps"], "seconds", ".2f"), f"{run['seconds']:.2f}",
            cell(run["steps"], "mib", ",.0f"), f"{run['mib']:,.0f}", f"{run['before']:,.0f}",
        )
        for run in growth["ours"]
    ]  # fmt: skip
    return [
        "# Inference", "",
        f"`{CONFIG.name}` at full size, {len(lengths)} videos of THUMOS14's test lengths one by one, with decoding "
        f"and NMS, {record['machine']}; CPU time; the sums of the scores agree to 1e-3. The measured peak of "
        f"a matrix product is {rate / 1e9:.0f} GFLOP/s.", "",
        markdown_table(["", "steps a second", "of the peak"], rates), "",
        f"Throughput: {record['throughput']:.2f} times the peer's; ratio a video {ratio_text(ratios)}. The share of "
        "the peak counts operations on valid steps, with direct convolutions.", "",
        "One video in a fresh process, the features in memory included:", "",
        markdown_table(
            ["steps", *(f"{NAMES[s]}, {what}" for what in ("s", "peak MiB") for s in NAMES), "of it before the call"],
            long_videos,
        ), "",
        markdown_table(
            ["classes", f"{NAMES['peer']}, s for 1,159 steps", f"{NAMES['ours']}, s"],
            [(count, f"{median['peer']:.2f}", f"{median['ours']:.2f}") for count, median in record["classes"].items()],
        ), "",
        f"Made by {made_by}.",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
