"""Runs the network of this project (`libs`) or of the peer (`actionformer`), which have the same functions. Reads one
job per line from stdin and writes its result to stdout, both as JSON.

    python model_worker.py PACKAGE CONFIG THREADS
"""

from __future__ import annotations

import hashlib
import importlib
import json
import resource
import sys
import time
from typing import Any


def seeded_weights(model: Any) -> None:
    """The same weights in both packages, whose state dicts have the same names."""
    import torch

    state = model.state_dict()
    for name, value in state.items():
        seed = int(hashlib.sha256(name.removeprefix("module.").encode()).hexdigest()[:8], 16)
        noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(seed))
        if value.dim() == 3 and value.shape[1] > 1 and value.shape[0] > 1:  # weights of convolutions and linear layers
            value.copy_(noise / (value.shape[1] * value.shape[2]) ** 0.5)
    model.load_state_dict(state)


def make_video(length: int, channels: int, seed: int, by_time: bool) -> dict[str, Any]:
    """Random features and three events. `by_time`: they lie in memory as in a file; else as the peer's reader gives."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    feats = torch.randn(length, channels, generator=generator).t()
    segments = torch.tensor([[0.1, 0.2], [0.4, 0.45], [0.6, 0.9]]) * length
    return {
        "video_id": f"v{seed}", "feats": feats if by_time else feats.contiguous(), "segments": segments,
        "labels": torch.tensor([0, 3, 7]), "fps": 30.0, "duration": length * 4 / 30 + 1, "feat_stride": 4,
        "feat_num_frames": 16,
    }  # fmt: skip


def main() -> None:
    package, config_file, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    core, modeling, utils = (importlib.import_module(f"{package}.{part}") for part in ("core", "modeling", "utils"))
    config = core.load_config(config_file)
    model = modeling.make_meta_arch(config["model_name"], **config["model"])
    seeded_weights(model)
    optimizer, ema = utils.make_optimizer(model, config["opt"]), utils.ModelEma(model)
    channels, clip = config["dataset"]["input_dim"], config["train_cfg"]["clip_grad_l2norm"]

    def train(videos: list[dict[str, Any]]) -> float:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        losses = model(videos)
        losses["final_loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        ema.update(model)
        return float(losses["final_loss"])

    def infer(videos: list[dict[str, Any]]) -> float:
        model.eval()
        with torch.no_grad():
            return float(sum(float(model([video])[0]["scores"].sum()) for video in videos))

    def peak(videos: list[dict[str, Any]]) -> None:
        a = torch.randn(2048, 2048)
        for _ in range(20):  # 20 * 2 * 2048^3 operations
            a @ a

    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        seeds = range(len(job["lengths"]))
        videos = [make_video(t, channels, i, package == "libs") for t, i in zip(job["lengths"], seeds, strict=True)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        result = {"train": train, "infer": infer, "peak": peak}[job["what"]](videos)
        seconds = time.process_time() - began
        mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "result": result, "mib": mib, "before": before / 1024}), flush=True)


if __name__ == "__main__":
    main()
