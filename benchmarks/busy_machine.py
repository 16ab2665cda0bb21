"""Speed of training beside a busy process, depending on how OpenMP's threads wait.

    python benchmarks/busy_machine.py [--steps 40] [--rounds 5]

Writes docs/benchmarks/busy_machine.{md,json}. A process trains the detector of `configs/demo.yaml` on random features
and reports its steps per second. The policies alternate within a round, first on an idle machine, then beside one
process in an endless loop.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from models import OUT, ROOT, machine

from libs.core.markdown import markdown_table

POLICIES = {
    # KMP_LIBRARY does nothing in GNU's OpenMP; it only makes `choose_waiting` keep torch's default.
    "spinning (torch's default)": {"KMP_LIBRARY": "throughput"},
    "as this project chooses": {},
    "sleeping": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def work(steps: int) -> None:
    """The worker: trains, and prints its steps per second."""
    from libs.core import load_config  # the first import of libs sets how threads wait

    import torch  # isort: skip

    from libs.core.threads import available_cores
    from libs.modeling import make_meta_arch
    from libs.training.optim import make_optimizer

    torch.manual_seed(0)
    config = load_config(ROOT / "configs" / "demo.yaml")
    model = make_meta_arch(config["model_name"], **config["model"])
    optimizer = make_optimizer(model, config["opt"])
    videos = [
        {
            "video_id": str(i), "feats": torch.randn(500 + 20 * i, 64).T, "fps": 30.0, "duration": 70.0,
            "feat_stride": 4, "feat_num_frames": 16,
            "segments": torch.tensor([[30.0, 60.0], [100.0, 180.0]]), "labels": torch.tensor([0, 3]),
        }
        for i in range(2)
    ]  # fmt: skip
    for step in range(steps + 3):
        if step == 3:
            began = time.perf_counter()
        optimizer.zero_grad()
        model(videos)["final_loss"].backward()
        optimizer.step()
    rate = steps / (time.perf_counter() - began)
    print(json.dumps({"rate": rate, "threads": torch.get_num_threads(), "cores": available_cores()}))


def measure(policy: dict[str, str], steps: int) -> float:
    """Steps per second of a worker under this policy."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    environment |= policy | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, "--work", "--steps", str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)["rate"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.steps)
        return
    rates: dict[str, dict[str, list[float]]] = {}
    for place in ("idle", "busy"):
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if place == "busy" else None
        try:
            for _ in range(args.rounds):
                for name, policy in POLICIES.items():
                    rates.setdefault(name, {}).setdefault(place, []).append(measure(policy, args.steps))
        finally:
            if other is not None:
                other.kill()
    first = rates[next(iter(POLICIES))]
    rows = []
    for name, of_policy in rates.items():
        cells = []
        for place in ("idle", "busy"):
            ratio = statistics.median(a / b for a, b in zip(of_policy[place], first[place], strict=True))
            cells.append(f"{statistics.median(of_policy[place]):.2f} ({ratio:.2f})")
        rows.append([name, *cells])
    lines = [
        "# Training beside a busy process",
        "",
        f"`python benchmarks/busy_machine.py --steps {args.steps} --rounds {args.rounds}` on {os.cpu_count()} cores. "
        "Steps a second of the demo's detector, median over rounds in which the policies alternate; in brackets the "
        "median ratio to the first row of the same round.",
        "",
        markdown_table(["threads wait", "idle machine", "beside one busy process"], rows),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    (OUT / "busy_machine.md").write_text(text, encoding="utf-8")
    record = {"machine": machine(0), "rates": rates}
    (OUT / "busy_machine.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
