"""Training steps of the network at full size against the peer's, alternating in one run.

    python benchmarks/train_step.py --lengths i3d_feature_lengths.json [--steps 8] [--batch-size 2] [--threads 1]

Writes docs/benchmarks/train_step.{md,json}. A step is one iteration of `thumos_i3d.yaml`: losses, gradients, clipping,
AdamW, moving average; features are random. "bucketing" puts videos of similar length into one batch, which helps only
if a batch is padded to its longest video.
"""

from __future__ import annotations

import argparse
import statistics
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", required=True)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    longest = 2304  # longest training sample; longer videos are cropped to it
    lengths = sample(read_lengths(args.lengths, "validation"), args.steps * args.batch_size)
    lengths = [min(steps, longest) for steps in lengths]
    size = args.batch_size
    orders = {"plain shuffling": lengths, "bucketing": sorted(lengths)}
    workers = {side: Worker(side, threads=args.threads) for side in ("peer", "ours")}
    rate = peak_rate(workers["ours"])
    rows, record = [], {"machine": machine(args.threads), "peak_flops": rate, "lengths": lengths}
    for worker in workers.values():
        worker.run("train", lengths[:size])  # warms up
    for order, ordered in orders.items():
        batches = [ordered[i : i + size] for i in range(0, len(ordered), size)]
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in workers}
        for batch in batches:
            for side, worker in workers.items():
                runs[side].append(worker.run("train", batch))
        seconds = {side: [run["seconds"] for run in of_side] for side, of_side in runs.items()}
        ratios = [a / b for a, b in zip(seconds["peer"], seconds["ours"], strict=True)]
        total = {side: sum(of_side) for side, of_side in seconds.items()}
        share = 3 * network_operations(sum(ordered)) / total["ours"] / rate
        record[order] = {"seconds": seconds, "operations_of_peak": share, "throughput": total["peer"] / total["ours"]}
        median = {side: f"{statistics.median(of_side):.2f}" for side, of_side in seconds.items()}
        throughput = f"{total['peer'] / total['ours']:.2f}"
        rows.append((order, median["peer"], median["ours"], ratio_text(ratios), throughput, f"{100 * share:.0f} %"))
    memory = {side: worker.run("train", [longest] * size)["mib"] for side, worker in workers.items()}
    record["mib"] = memory
    lines = [
        "# Training steps", "",
        f"`{CONFIG.name}` at full size, batches of {size}, {args.steps} steps each, THUMOS14's validation "
        f"lengths, {record['machine']}; seconds of CPU time. The measured peak of a matrix product is "
        f"{rate / 1e9:.0f} GFLOP/s.", "",
        markdown_table(
            ["order", *(f"{NAMES[side]}, s a step" for side in ("peer", "ours")), "ratio, median (range)",
             "throughput", "share of the peak"],
            rows,
        ), "",
        "The share counts three times the operations of a forward pass on the valid steps, with direct convolutions: "
        "Winograd's need a third fewer, so that it may exceed what a matrix product reaches.", "",
        f"Peak memory after a step on {size} x {longest} steps: {NAMES['peer']} {memory['peer']:,.0f} MiB, "
        f"{NAMES['ours']} {memory['ours']:,.0f} MiB.", "",
        f"Made by `python benchmarks/train_step.py --lengths i3d_feature_lengths.json --steps {args.steps} "
        f"--batch-size {size} --threads {args.threads}`.",
    ]  # fmt: skip
    write("train_step", lines, record)
    for worker in workers.values():
        worker.close()


if __name__ == "__main__":
    main()
