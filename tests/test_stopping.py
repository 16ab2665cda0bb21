"""Runs that are stopped leave a checkpoint from which they end the same; no folder is shared or left empty."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from actionformer_nt.commands.main import main
from libs.core.lock import locked
from libs.training.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[1]
STOP_AT = """
import os, signal, sys
from actionformer_nt.commands import main as cli
from libs.training import ema
kind, at = getattr(signal, sys.argv.pop(1)), int(sys.argv.pop(1))
update = ema.ModelEma.update
def counted(self, model):
    update(self, model)
    if self.num_updates == at:
        os.kill(os.getpid(), kind)
ema.ModelEma.update = counted
sys.exit(cli.main(sys.argv[1:]))
"""


def command(*words, stop=None):
    """A call of the command line in a process of its own; `stop`: signal and update at which it is sent."""
    start = ["-c", STOP_AT, *map(str, stop)] if stop else ["-m", "actionformer_nt"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *start, *map(str, words)], env=environment, capture_output=True, text=True, timeout=300
    )


def assert_same_end(a, b):
    one, two = load_checkpoint(a / "last.pth.tar"), load_checkpoint(b / "last.pth.tar")
    for key in ("state_dict", "state_dict_ema"):
        assert one[key].keys() == two[key].keys()
        assert all(torch.equal(one[key][name], two[key][name]) for name in one[key]), key
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (a, b)]
    first, second = ([{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in found] for found in lines)
    assert first == second


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_supervised_training_stopped_within_an_epoch(make_data, tmp_path, name, status, workers):
    """With dropout, batches of one and a record of each epoch's mean loss; four iterations an epoch."""
    path = make_data(
        steps=150, loader={"batch_size": 1, "num_workers": workers}, train_cfg={"dropout": 0.1},
        opt={"epochs": 3, "warmup_epochs": 0},
    )  # fmt: skip
    whole, half = (tmp_path / "ckpt" / f"tiny_{run}" for run in ("whole", "half"))
    assert command("-q", "train", path, "--output", "whole").returncode == 0
    done = command("-q", "train", path, "--output", "half", stop=(name, 6))
    assert done.returncode == status, done.stderr
    assert f"stopped after 2 of 4 iterations of epoch 2; go on with --resume {half}" in done.stderr
    assert load_checkpoint(half / "last.pth.tar")["part_of_epoch"]["iterations"] == 2
    assert command("-q", "train", path, "--resume", half).returncode == 0
    assert_same_end(whole, half)
    ended = command("-q", "train", path, "--output", "ended", stop=(name, 8))  # at the end of an epoch
    assert ended.returncode == status and "stopped after epoch 2" in ended.stderr
    assert command("-q", "train", path, "--resume", tmp_path / "ckpt" / "tiny_ended").returncode == 0
    assert_same_end(whole, tmp_path / "ckpt" / "tiny_ended")


@pytest.mark.parametrize("at", [3, 6])  # in the burn-in, in self-training
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_semi_supervised_training_stopped_between_checkpoints_and_records(make_data, tmp_path, name, at):
    from actionformer_nt.protocol.splits import make_splits, write_splits
    from libs.datasets.annotations import read_annotations

    semi = {
        "split": {"file": str(tmp_path / "split.json"), "ratio": 0.5}, "method": "nt", "burn_in": 4, "iterations": 6,
        "pseudo": {"threshold": 0.012}, "ckpt_every": 500, "log_every": 5, "strong": {"flip": 0.5},
    }  # fmt: skip
    path = make_data(train_cfg={"ema_ramp": True, "dropout": 0.1}, plugins=["actionformer_nt"], semi_cfg=semi)
    annotations = read_annotations(path.parent / "annotations.json")
    write_splits(tmp_path / "split.json", make_splits(annotations, ["training"], kind="uniform", ratios=[0.5]))
    whole, half = (tmp_path / "ckpt" / f"tiny_{run}" for run in ("whole", "half"))
    assert command("-q", "train", path, "--output", "whole").returncode == 0
    done = command("-q", "train", path, "--output", "half", stop=(name, at))
    assert done.returncode == {"SIGINT": 130, "SIGTERM": 143}[name], done.stderr
    assert f"stopped after iteration {at}" in done.stderr
    assert command("-q", "train", path, "--resume", half).returncode == 0
    assert_same_end(whole, half)


def test_a_second_run_in_the_folder_is_refused(make_data, tmp_path, capsys):
    path = make_data()
    folder = tmp_path / "ckpt" / "tiny_x"
    assert main(["-q", "train", str(path), "--output", "x"]) == 0
    hold = (
        "import sys, pathlib; from libs.core.lock import locked\nwith locked(pathlib.Path(sys.argv[1]), 'run.lock'):\n"
    )
    hold += "    print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", hold, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout.readline() == "held\n"
    before = (folder / "run.json").read_bytes()
    capsys.readouterr()
    for how in (["--resume", str(folder)], ["--output", "x", "--overwrite"]):
        assert main(["-q", "train", str(path), *how]) == 2
        assert f"{folder}: another process is writing there" in capsys.readouterr().err
    assert (folder / "run.json").read_bytes() == before and (folder / "last.pth.tar").is_file()
    process.kill()  # a crash frees the lock
    process.wait()
    assert main(["-q", "train", str(path), "--resume", str(folder)]) == 0


def test_one_lock_at_a_time(tmp_path):
    with locked(tmp_path / "new", "a.lock"):
        with (
            pytest.raises(ValueError, match=r"new: another process is writing there \(it holds a\.lock\)"),
            locked(tmp_path / "new", "a.lock"),
        ):
            pass
        with locked(tmp_path / "new", "b.lock"):
            pass
    with locked(tmp_path / "new", "a.lock"):
        pass


def test_a_mistake_leaves_no_empty_folder(make_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = make_data()
    assert main(["-q", "train", str(path), "--output", "good"]) == 0
    there = sorted(p.name for p in (tmp_path / "ckpt").iterdir())
    wrong = "dataset.feat_folder=nowhere"
    for words in (
        ["train", path, "--output", "x", "--set", wrong],
        ["train", path, "--output", "x", "--set", "dataset.num_classes=1"],
        ["train", path, "--output", "x", "--resume", tmp_path / "none"],
        ["predict", path, tmp_path / "ckpt" / "tiny_good", tmp_path / "none.npy", "--fps", "30", "--out", "made"],
    ):
        assert main(["-q", *map(str, words)]) == 2
    assert sorted(p.name for p in (tmp_path / "ckpt").iterdir()) == there and not (tmp_path / "made").exists()


def test_a_read_only_run_folder(make_data, tmp_path, monkeypatch, capsys):
    """Results go to the current folder, with a warning, and thresholds are found there again."""
    import libs.training.run_folder as run_folder

    path = make_data(test_cfg={"max_seg_num": 200})
    assert main(["-q", "train", str(path), "--output", "x"]) == 0
    folder = tmp_path / "ckpt" / "tiny_x"
    before = sorted(folder.rglob("*"))
    check = run_folder.check_writable

    def read_only(path):
        if Path(path) == folder:
            raise OSError(f"output folder {path} cannot be written: Read-only file system")
        check(path)

    monkeypatch.setattr(run_folder, "check_writable", read_only)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["-q", "eval", str(path), str(folder), "--weights", "raw"]) == 0
    shown = capsys.readouterr()
    instead = tmp_path / "tiny_x_results"
    assert f"cannot be written: Read-only file system; results go to {instead}" in shown.err
    names = {"epoch_003_raw_detections.json", "epoch_003_raw_metrics.json", "epoch_003_raw_per_class.csv"}
    assert {p.name for p in instead.iterdir()} == names | {"ground_truth.json"}
    detections = json.loads((instead / "epoch_003_raw_detections.json").read_text())["results"]
    content = json.loads((path.parent / "annotations.json").read_text())
    for video in ("v4", "v5"):  # something that thresholds can be chosen for
        content["database"][video]["annotations"] = [
            {"segment": e["segment"], "label": e["label"], "label_id": e["label_id"]} for e in detections[video][:3]
        ]
    (path.parent / "annotations.json").write_text(json.dumps(content))
    arguments = ["predict", path, folder, path.parent / "features", "--fps", "30", "--weights", "raw"]
    for told in (True, False):  # chosen once
        assert main([*map(str, arguments), "--threshold", "auto", "--formats", "csv", "--out", "out"]) == 0
        assert ("thresholds per class from" in capsys.readouterr().err) == told
    assert (instead / "epoch_003_raw_thresholds.json").is_file()
    assert sorted(folder.rglob("*")) == before


@pytest.fixture
def slow_study(make_data, tmp_path):
    """A study of one long run, and its folder."""
    from actionformer_nt.protocol.splits import make_splits, write_splits
    from libs.datasets.annotations import read_annotations

    semi = {
        "split": {"file": str(tmp_path / "split.json"), "ratio": 0.5}, "method": "nt", "burn_in": 100_000,
        "iterations": 1, "ckpt_every": 100_000,
    }  # fmt: skip
    path = make_data(train_cfg={"ema_ramp": True}, plugins=["actionformer_nt"], semi_cfg=semi)
    annotations = read_annotations(path.parent / "annotations.json")
    write_splits(tmp_path / "split.json", make_splits(annotations, ["training"], kind="uniform", ratios=[0.5]))
    content = {"base": str(path), "output": str(tmp_path / "out"), "methods": ["labeled_only"], "ratios": [0.5]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content | {"folds": [0]}))
    return tmp_path / "study.yaml", tmp_path / "out"


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGKILL", -9)])
def test_a_study_ends_its_runs_when_it_is_ended(slow_study, name, status):
    file, out = slow_study
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    study = subprocess.Popen(
        [sys.executable, "-m", "actionformer_nt", "-q", "study", str(file)],
        env=environment,
        stderr=subprocess.PIPE,
    )
    folder = out / "runs" / "labeled_only_r0.5_f0_s0"
    metrics = folder / "metrics.jsonl"
    wait_for(lambda: metrics.is_file() and metrics.read_text().count("\n") >= 2)
    if name == "SIGTERM":  # a second study of this folder is refused meanwhile
        second = command("-q", "study", file)
        assert second.returncode == 2 and f"{out}: another process is writing there" in second.stderr
    study.send_signal(getattr(signal, name))
    assert study.wait(timeout=60) == status
    wait_for(lambda: (folder / "last.pth.tar").is_file())
    wait_for(lambda: not in_use(folder))
    assert 100 <= load_checkpoint(folder / "last.pth.tar")["iteration"] < 100_000


def in_use(folder):
    try:
        with locked(folder, "run.lock"):
            return False
    except ValueError:
        return True


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_part_of_an_epoch_of_other_length_begins_anew(make_data, tmp_path):
    path = make_data(loader={"batch_size": 1}, opt={"epochs": 2, "warmup_epochs": 0})
    half = tmp_path / "ckpt" / "tiny_half"
    assert command("-q", "train", path, "--output", "half", stop=("SIGTERM", 2)).returncode == 143
    done = command("-q", "train", path, "--resume", half, "--set", "loader.batch_size=2")
    assert done.returncode == 0
    assert "an epoch had 4 iterations, now it has 2: the one in which training was stopped begins anew" in done.stderr
    assert [json.loads(line)["epoch"] for line in (half / "metrics.jsonl").read_text().splitlines()] == [1, 2]
