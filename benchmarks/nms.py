"""Speed of NMS against the compiled NMS of the peer, on the same inputs, in turn.

    python benchmarks/nms.py [--lengths i3d_feature_lengths.json] [--repeats 9]

Writes docs/benchmarks/nms.{md,json}. `--lengths` (video -> steps of its feature sequence) adds a batch of videos with
the candidates of a pyramid over these lengths; without it this part is left out, which the table mentions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer import PEER, ROOT, peer_python

from libs.core.markdown import markdown_table
from libs.nms import fallback, kernels
from libs.nms import suppress as nms
from libs.nms.suppress import nms_videos
from libs.training.run_folder import source_commit

OUT = ROOT / "docs" / "benchmarks"
OPTIONS: dict[str, Any] = {"iou_threshold": 0.1, "min_score": 0.001, "max_seg_num": 200, "sigma": 0.5}
VOTING = 0.7

# Runs in the peer's environment: a case and a number of threads per line on stdin, seconds and a checksum on stdout.
PEER_SCRIPT = """
import json, sys, time
import numpy as np, torch
from actionformer.utils.nms import batched_nms
for line in sys.stdin:
    job = json.loads(line)
    torch.set_num_threads(job["threads"])
    data = np.load(job["file"])
    keys = ("segs", "scores", "labels")
    videos = [tuple(torch.from_numpy(data[f"{k}{i}"]) for k in keys) for i in range(job["videos"])]
    o = job["options"]
    began = time.perf_counter()
    out = [batched_nms(*v, o["iou_threshold"], o["min_score"], o["max_seg_num"], use_soft_nms=job["soft"],
                       multiclass=job["multiclass"], sigma=o["sigma"], voting_thresh=job["voting"]) for v in videos]
    seconds = time.perf_counter() - began
    print(json.dumps([seconds, float(sum(o[1].double().sum() for o in out)), sum(len(o[1]) for o in out)]), flush=True)
"""


def candidates(rng: np.random.Generator, n: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random candidates that resemble a detector's: clusters around events, most with low scores."""
    events = rng.uniform(0, 2304, (max(n // 100, 1), 1))
    length = rng.lognormal(2.5, 0.9, n)
    centre = events[rng.integers(0, len(events), n), 0] + rng.normal(0, 6, n)
    segs = np.stack([centre - length / 2, centre + length / 2], axis=1).astype(np.float32)
    return segs, (rng.uniform(size=n) ** 4).astype(np.float32), rng.integers(0, classes, n)


def pyramid_candidates(rng: np.random.Generator, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At most 2,000 candidates on each of six pyramid levels, at most four per point."""
    parts = []
    for level in range(6):
        points = -(-steps // 2**level)
        count = min(2000, 4 * points)
        centre = rng.integers(0, points, count) * 2.0**level
        segs = np.stack(
            [centre - rng.uniform(0, 4, count) * 2**level, centre + rng.uniform(0.1, 4, count) * 2**level], axis=1
        )
        parts.append(
            (segs.astype(np.float32), (rng.uniform(size=count) ** 4).astype(np.float32), rng.integers(0, 20, count))
        )
    segs, scores, labels = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return segs, scores, labels


def cases(lengths: Path | None) -> list[dict]:
    rng = np.random.default_rng(0)
    all_cases = []
    for n, classes in ((2000, 20), (8000, 20), (12000, 20), (5000, 200)):
        data = [candidates(rng, n, classes)]
        for soft in (True, False):
            for multiclass in (True, False):
                kind = ("soft" if soft else "hard") + (", per class" if multiclass else ", agnostic with voting")
                all_cases.append(dict(name=f"{n:,} x {classes}, {kind}", data=data, soft=soft, multiclass=multiclass))
    if lengths is not None:
        steps = [t for video, t in json.loads(lengths.read_text()).items() if "test" in video]
        data = [pyramid_candidates(rng, t) for t in steps]
        total = sum(len(d[1]) for d in data)
        name = f"{len(data)} videos of THUMOS14's test lengths, {total:,} candidates, soft, per class"
        all_cases.append(dict(name=name, data=data, soft=True, multiclass=True))
    return all_cases


def run_ours(case: dict, device: str) -> tuple[float, float, int]:
    videos = [
        (torch.from_numpy(segs).to(device), torch.from_numpy(scores).to(device), torch.from_numpy(labels).to(device))
        for segs, scores, labels in case["data"]
    ]
    if device != "cpu":
        torch.cuda.synchronize()
    began = time.perf_counter()
    results = nms_videos(
        videos, **OPTIONS, method="gaussian" if case["soft"] else "hard", multiclass=case["multiclass"],
        voting_thresh=VOTING,
    )  # fmt: skip
    if device != "cpu":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return seconds, float(sum(f.scores.double().sum() for f in results)), sum(len(f.scores) for f in results)


def measure(case: dict, threads: int, repeats: int, peer: subprocess.Popen, folder: str) -> dict:
    file = f"{folder}/case.npz"
    keys = ("segs", "scores", "labels")
    np.savez(
        file,
        **{f"{k}{i}": column for i, video in enumerate(case["data"]) for k, column in zip(keys, video, strict=True)},
    )
    job = {
        "file": file, "videos": len(case["data"]), "threads": threads, "options": OPTIONS, "soft": case["soft"],
        "multiclass": case["multiclass"], "voting": VOTING,
    }  # fmt: skip
    torch.set_num_threads(threads)
    theirs, ours, cuda = [], [], []
    assert peer.stdin is not None and peer.stdout is not None
    for _ in range(repeats + 1):  # the first one warms up
        peer.stdin.write(json.dumps(job) + "\n")
        peer.stdin.flush()
        seconds, total, count = json.loads(peer.stdout.readline())
        theirs.append(seconds)
        seconds, own_total, own_count = run_ours(case, "cpu")
        ours.append(seconds)
        assert own_count == count and abs(own_total - total) < 1e-3 * max(total, 1), (case["name"], own_total, total)
        if torch.cuda.is_available():
            cuda.append(run_ours(case, "cuda")[0])
    ratios = sorted(t / o for t, o in zip(theirs[1:], ours[1:], strict=True))
    return {
        "case": case["name"], "threads": threads, "peer_ms": 1000 * statistics.median(theirs[1:]),
        "ours_ms": 1000 * statistics.median(ours[1:]), "ratio": statistics.median(ratios), "ratios": ratios,
        "cuda_ms": 1000 * statistics.median(cuda[1:]) if cuda else None,
    }  # fmt: skip


def _cell(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.3f}"


def median_ms(function: Callable[[], object], repeats: int = 31) -> float:
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds[1:])


def where_time_goes(n: int, classes: int, multiclass: bool) -> dict:
    """Milliseconds of the parts of one call on one thread, and of the kernel without lazy decay and without the voting
    grid."""
    torch.set_num_threads(1)
    segs, scores, labels = (torch.from_numpy(x) for x in candidates(np.random.default_rng(0), n, classes))
    run: dict[str, Any] = dict(**OPTIONS, multiclass=multiclass, voting_thresh=VOTING)
    parts: dict[str, str | float] = {"case": f"{n:,} x {classes}" + ("" if multiclass else ", agnostic with voting")}
    parts["whole call"] = median_ms(lambda: nms_videos([(segs, scores, labels)], **run))
    parts["finite?"] = median_ms(lambda: nms._check(segs, scores, labels))
    order, groups, videos, bounds = nms._group(labels, [n], multiclass)
    parts["group by class"] = median_ms(lambda: nms._group(labels, [n], multiclass))
    if order is not None:
        parts["gather"] = median_ms(lambda: (segs.index_select(0, order), scores.index_select(0, order)))
        segs, scores = segs[order], scores[order]
    ops = torch.ops.actionformer_nt
    arguments = (segs, scores, groups, videos, 0.1, 0.5, 0.001, 200, 2)
    parts["kernel"] = median_ms(lambda: ops.nms_1d(*arguments))
    parts["kernel, every decay at once"] = median_ms(lambda: ops.nms_1d_greedy(*arguments), 5)
    if not multiclass:
        index, _, count = ops.nms_1d(*arguments)
        kept, kept_bounds = segs[index[: int(count)]], torch.tensor([0, int(count)])
        parts["voting"] = median_ms(lambda: ops.segment_voting(kept, kept_bounds, segs, scores, bounds, VOTING))
        parts["voting, all candidates"] = median_ms(lambda: fallback._vote(kept, segs, scores, VOTING), 5)
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=Path, default=None)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    if not kernels.compiled():
        raise SystemExit("the kernels are not compiled")
    python, rows = peer_python(), []
    with tempfile.TemporaryDirectory() as folder:
        for threads in (1, 2):
            environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
            command = [str(python), "-c", PEER_SCRIPT]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            ) as peer:
                for case in cases(args.lengths):
                    rows.append(measure(case, threads, args.repeats, peer, folder))
                    print("{case}, {threads} threads: {ratio:.1f}".format(**rows[-1]), flush=True)
                if peer.stdin is not None:
                    peer.stdin.close()
    parts = [where_time_goes(8000, 20, True), where_time_goes(5000, 200, True), where_time_goes(12000, 20, False)]
    columns = list(parts[-1] | parts[0])
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    titles = ["candidates x classes", "threads", "peer, ms", "this project, ms", "ratio (spread)"]
    cells = []
    for r in rows:
        ratio = f"{r['ratio']:.0f} ({r['ratios'][0]:.0f} to {r['ratios'][-1]:.0f})"
        on_cuda = [f"{r['cuda_ms']:.3f}"] if cuda else []
        cells.append([r["case"], r["threads"], f"{r['peer_ms']:.2f}", f"{r['ours_ms']:.3f}", ratio, *on_cuda])
    lines = [
        "# NMS",
        "",
        f"Against the compiled NMS of {PEER}, same inputs, alternating, medians of {args.repeats} repeats; sigma .5, "
        "200 kept, min_score .001, IoU .1 (hard), voting .7. Sorting by class and putting results in order included.",
        "",
        f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, commit {source_commit()}"
        + (f", {cuda}" if cuda else "; no GPU here: CUDA kernels compiled, not run"),
        "",
        markdown_table([*titles, *(["CUDA, ms"] if cuda else [])], cells),
        "",
        "Where the time of a call goes, in ms on one thread, and what its two ideas save: decays are made up for only "
        "when a candidate comes to the top of a heap, and stop when the classes together have given 200 (against "
        "decaying everything at each pick of every class, the algorithm of the CUDA kernel); voting looks only at "
        "candidates that start near enough (against all of them, in PyTorch). The rest of a call is some twenty small "
        "torch operations.",
        "",
        markdown_table(columns, [[_cell(row.get(c)) for c in columns] for row in parts]),
        "",
        *([] if args.lengths else ["No lengths were given: the batch of videos is left out.", ""]),
        "Made by `python benchmarks/nms.py --lengths i3d_feature_lengths.json`.",
        "",
    ]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "nms.md").write_text("\n".join(lines))
    (OUT / "nms.json").write_text(json.dumps({"peer": PEER, "rows": rows, "parts": parts}, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
