"""Two processes on one machine against one process with the same batch.

Two processes add up in another order than one, and a difference in the last bit grows: over a threshold, at the end of
a pseudo segment, in Adam's steps on gradients that are zero but for rounding. So runs are compared in 64 bits, where
such differences stay near 1e-16, a hundred thousand times below what is shown to decide nothing.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from libs.core import distributed
from libs.training.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]


def tool(name, *args, processes=1, bits=32):
    start = [sys.executable] if processes == 1 else LAUNCH
    wide = [str(Path(__file__).with_name("in_64_bits.py"))] if bits == 64 else []
    found = subprocess.run(
        [*start, *wide, str(ROOT / "tools" / f"{name}.py"), *map(str, args)],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return found.stdout


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_records(first, second, rel):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"seconds"}:
            assert a[key] == pytest.approx(b[key], rel=rel, abs=rel), key


def assert_same_run(one, two):
    """The same losses and counts after every step, the same student and teacher at the end."""
    assert_same_records(records(one), records(two), rel=1e-11)
    x, y = (load_checkpoint(folder / "last.pth.tar") for folder in (one, two))
    assert x["loss_normalizer"] == y["loss_normalizer"]
    for key in ("state_dict", "state_dict_ema"):
        for name, value in x[key].items():
            assert value.dtype == torch.float64
            torch.testing.assert_close(value, y[key][name], rtol=0, atol=1e-11, msg=f"{key} {name}")


def plain(path, **semi):
    """Without what draws random numbers inside the network; batches of both parts have four videos."""
    raw = yaml.safe_load(path.read_text())
    raw["train_cfg"] |= {"dropout": 0.0, "droppath": 0.0}
    raw["loader"] |= {"batch_size": 4}
    if "semi_cfg" in raw:
        raw["semi_cfg"] |= {"unlabeled_batch_size": 4} | semi
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.mark.two_paths
def test_two_processes_train_and_evaluate_as_one_does(make_data, tmp_path):
    config = plain(make_data(opt={"epochs": 19, "warmup_epochs": 1, "learning_rate": 1e-3}))  # one batch an epoch
    one, two = (tmp_path / "ckpt" / f"tiny_{name}" for name in ("one", "two"))
    tool("train", config, "--output", "one", bits=64)
    tool("train", config, "--output", "two", processes=2, bits=64)
    assert len(records(one)) == 20
    assert_same_run(one, two)
    alone = tool("eval", config, one)
    files = [f"epoch_020_ema_{what}.json" for what in ("detections", "metrics")]
    results = [json.loads((one / file).read_text()) for file in files]
    together = tool("eval", config, one, processes=2)
    assert together == alone  # printed once
    for file, result in zip(files, results, strict=True):
        again = json.loads((one / file).read_text())
        for content in (again, result):
            content.pop("provenance", None)
        assert again == result


ROUNDS = [
    {"learn": "labeled", "iterations": 4},
    {"learn": "pseudo", "iterations": 3, "labels": "stored", "repeat": 2, "student": "fresh"},
]


def always(line):
    """The curves of a record without rates, which are left out where their denominator is 0 or too small."""
    return {name for name in line if not name.startswith(("hidden/", "watch/class_"))}


@pytest.mark.two_paths
@pytest.mark.parametrize(
    "semi",
    [
        {"method": "nt", "pseudo": {"threshold": 0.012, "select": "per_class"}, "watch": {"videos": 6}},
        {"method": "complementary", "pseudo": {"threshold": 0.012, "source": "refresh", "refresh_every": 2}},
        {"method": "nt", "pseudo": {"threshold": 0.012, "select": "per_class"}, "stages": ROUNDS},
        {
            "method": "nt",
            "teacher_views": [{"shift": 3}],
            "pseudo": {
                "select": "rate",
                "rate_floor": 0.012,
                "ignore_from": 0.011,
                "overlap": "labels",
                "boundary_weight": "spread",
                "second_class": "ignore",
                "without_segments": "skip",
            },
        },
        {"method": "nt+npl", "method_options": {"npl": {"window": 5}}, "pseudo": {"threshold": 0.012}},
        {"method": "target+sstap", "method_options": {"sstap": {"gate": 0.01}}, "pseudo": {"threshold": 0.012}},
        {"method": "nt+plr", "pseudo": {"threshold": 0.012}},
        {
            "method": "apl",
            "method_options": {"apl": {"discriminator_after": 1, "drop": 0.3, "mine": 0.4}},
            "pseudo": {"threshold": 0.012},
            "pretrain": 2,
        },
    ],
)
def test_two_processes_train_semi_supervised_as_one_does(make_semi, tmp_path, semi):
    path = make_semi(
        ratio=0.5, labeled_view="strong", strong={"flip": 0.5, "snippet_mask": 0.3}, log_hidden=True,
        dataset={"num_classes": 4},
    )  # fmt: skip
    lengths = {} if "stages" in semi else {"burn_in": 4, "iterations": 6}
    config = plain(path, **{"burn_in": 0, "iterations": 0, "ckpt_every": 4} | lengths | semi)
    if semi["method"] == "apl":
        raw = yaml.safe_load(config.read_text())
        raw["model"] |= {"quality": True}
        raw["train_cfg"] |= {"soft_labels": True, "cls_prior_prob": 0.1}
        config.write_text(yaml.safe_dump(raw))
    one, two, nudged, short = (tmp_path / "ckpt" / f"semi_{name}" for name in ("one", "two", "nudged", "short"))
    tool("train", config, "--output", "one", bits=64)
    tool("train", config, "--output", "two", processes=2, bits=64)
    assert_same_run(one, two)
    assert records(two)[-1]["pseudo/segments"] > 0 and records(two)[-1]["watch/coverage"] > 0
    assert (
        load_checkpoint(one / "last.pth.tar")["watch"]["warnings"]
        == (load_checkpoint(two / "last.pth.tar")["watch"]["warnings"])
    )
    # steps a billionth longer turn no decision: none is so near its threshold that rounding could
    tool("train", config, "--output", "nudged", "--set", "opt.learning_rate=0.001000000001", bits=64)
    assert_same_records(records(one), records(nudged), rel=1e-6)
    tool("train", config, "--output", "short", processes=2)  # in 32 bits, as it is used
    assert [always(line) for line in records(short)] == [always(line) for line in records(one)]
    assert all(np.isfinite(value) for line in records(short) for value in line.values())


def test_spot_trains_in_two_processes(make_semi, tmp_path):
    config = plain(make_semi(arch="SPOT", ratio=0.5, pretrain=2))
    tool("train", config, "--output", "two", processes=2)
    lines = records(tmp_path / "ckpt" / "semi_two")
    assert len(lines) == 10 and all(np.isfinite(line.get("labeled/final_loss", 0.0)) for line in lines)


def test_a_lost_process_ends_the_job_and_the_run_goes_on(make_data, tmp_path):
    config = plain(make_data(opt={"epochs": 400, "warmup_epochs": 1, "learning_rate": 1e-3}))
    folder = tmp_path / "ckpt" / "tiny_lost"
    command = [*LAUNCH, str(ROOT / "tools" / "train.py"), str(config), "--output", "lost"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as job:
        began = time.monotonic()
        while not (folder / "last.pth.tar").is_file():
            assert time.monotonic() - began < 120 and job.poll() is None
            time.sleep(0.2)
        children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        assert job.wait(timeout=60) != 0
    done = load_checkpoint(folder / "last.pth.tar")["epoch"]
    assert 0 < done < 400
    raw = yaml.safe_load(config.read_text())
    raw["opt"]["epochs"] = done + 1
    config.write_text(yaml.safe_dump(raw))
    tool("train", config, "--resume", folder, processes=2)
    assert len(records(folder)) == done + 2  # the schedule's epochs include one of warmup


def test_mistakes(make_data, tmp_path):
    config = make_data(loader={"batch_size": 1, "num_workers": 0})
    for name, args, word in (
        ("train", [config, "--output", "x"], "loader.batch_size: 1 is that of all processes"),
        ("evaluate", ["x.json", "--annotations", "y.json", "--split", "test"], "runs in one process"),
    ):
        with pytest.raises(AssertionError, match=f"error: .*{word}"):
            tool(name, *args, processes=2)


ENDS = """
import os, sys
import torch
from libs.core import distributed

distributed.start()
parameter = torch.nn.Parameter(torch.ones(2))
torch.optim.AdamW([parameter])
distributed.gather(distributed.total_count(distributed.from_main(1)))
torch.distributed.destroy_process_group()
names = {open(f"/proc/self/task/{thread}/comm").read().strip() for thread in os.listdir("/proc/self/task")}
sys.exit(any("gloo" in name for name in names))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not name its threads")
def test_threads_of_the_processes_end_before_the_interpreter_does(tmp_path):
    """One that is left would ask for the interpreter's lock while that shuts down, and abort the process."""
    (tmp_path / "ends.py").write_text(ENDS)
    ended = subprocess.run([*LAUNCH, str(tmp_path / "ends.py")], env=ENVIRONMENT, capture_output=True, timeout=120)
    assert ended.returncode == 0, ended.stderr.decode()


def test_alone_everything_is_the_identity():
    losses = {"a": torch.tensor(1.5)}
    assert distributed.total({"a": 1.5}) == {"a": 1.5} and distributed.parts_of_mean(losses) == losses
    assert distributed.share([1, 2, 3]) == distributed.gather_shares([1, 2, 3]) == [1, 2, 3]
    assert distributed.gather("x") == ["x"] and distributed.from_main(3) == 3 and distributed.is_main()
