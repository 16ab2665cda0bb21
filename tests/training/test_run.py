"""Whole runs: what they leave behind, and that an interruption changes nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from libs.core import load_config
from libs.evaluation import run as evaluation
from libs.modeling.criterion import Criterion
from libs.training import run as engine
from libs.training.checkpoint import load_checkpoint
from libs.training.checks import check_parts
from libs.utils import NonFiniteLossError

ROOT = Path(__file__).parents[2]


def train(path, folder, **options):
    return engine.train(load_config(path), folder, progress=False, **options)


def weights(folder, key="state_dict"):
    return load_checkpoint(folder / "last.pth.tar")[key]


def assert_same_end(a, b):
    one, two = load_checkpoint(a / "last.pth.tar"), load_checkpoint(b / "last.pth.tar")
    for key in ("state_dict", "state_dict_ema"):
        assert one[key].keys() == two[key].keys()
        for name in one[key]:
            assert torch.equal(one[key][name], two[key][name]), (key, name)
    for key in ("epoch", "scheduler", "loss_normalizer", "ema_num_updates"):
        assert one[key] == two[key], key


def test_tensorboard_has_hyper_parameters_and_final_metrics(make_data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    path = make_data(opt={"epochs": 1, "warmup_epochs": 0})
    folder = train(path, tmp_path / "run")
    metrics = None
    for _ in range(2):  # a second evaluation replaces the first
        metrics = evaluation.evaluate(load_config(path), folder, weights="raw", progress=False).result
    for name, tag, value in (
        (
            "training",
            "final/final_loss",
            json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["final_loss"],
        ),
        ("epoch_001_raw", "mAP/average", metrics.average_mAP),
    ):
        (file,) = (folder / "logs" / name).iterdir()
        events = EventAccumulator(str(file)).Reload()
        assert [(scalar.step, scalar.value) for scalar in events.Scalars(tag)] == [(1, pytest.approx(value))]
        content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        given = HParamsPluginData.FromString(content).session_start_info.hparams
        assert given["opt.learning_rate"].number_value == 1e-3 and given["train_cfg.ema_ramp"].bool_value is False
        assert given["model.backbone_arch"].string_value == "[1, 1, 2]" and "model.train_cfg.dropout" not in given


def test_what_a_run_leaves_behind(make_data, tmp_path):
    path = make_data()
    folder = train(path, tmp_path / "run", ckpt_freq=2)
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "config.yaml", "classes.json", "run.json", "log.txt", "metrics.jsonl", "logs", "run.lock",
        "last.pth.tar", "epoch_002.pth.tar", "epoch_003.pth.tar",
    }  # fmt: skip
    assert load_config(folder / "config.yaml") == load_config(path)
    (info,) = json.loads((folder / "run.json").read_text())
    assert info["seed"] == 1234567891 and info["command"] and "commit" in info and info["torch"] == torch.__version__
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3] and all(np.isfinite(line["final_loss"]) for line in lines)
    text = (folder / "log.txt").read_text()
    line = r"epoch \d/3 cls_loss [\d.]+ reg_loss [\d.]+ final_loss [\d.]+ lr \S+ [\d.]+ videos/s ETA \d\d:\d\d:\d\d"
    assert text.count("epoch ") == len(re.findall(line, text)) == 3
    last, checkpoint = (load_checkpoint(folder / f"{name}.pth.tar") for name in ("last", "epoch_003"))
    assert last["epoch"] == 3 and last["scheduler"]["last_epoch"] == 6 and "optimizer" in last
    assert all(name.startswith("module.") for name in checkpoint["state_dict"])
    assert checkpoint.keys() == {"epoch", "state_dict", "state_dict_ema", "loss_normalizer", "ema_num_updates"}
    for key in ("state_dict", "state_dict_ema"):
        assert all(torch.equal(value, last[key][name]) for name, value in checkpoint[key].items())


def test_tensorboard_has_the_tags_of_actionformer(make_data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train(make_data(loader={"batch_size": 1}), tmp_path / "run", print_freq=1)
    events = EventAccumulator(str(folder / "logs")).Reload()
    assert set(events.Tags()["scalars"]) == {"train/learning_rate", "train/final_loss"}
    assert [e.step for e in events.Scalars("train/final_loss")] == [1, 2, 3, 5, 6, 7, 9, 10, 11]
    group = sorted(p.name for p in (folder / "logs").glob("train_*"))
    assert group == ["train_all_losses_cls_loss", "train_all_losses_reg_loss"]


def test_same_seed_same_run_and_another_seed_another(make_data, tmp_path):
    path = make_data(steps=150, train_cfg={"dropout": 0.1})
    a, b = train(path, tmp_path / "a"), train(path, tmp_path / "b")
    assert_same_end(a, b)
    c = train(make_data(steps=150, train_cfg={"dropout": 0.1}, init_rand_seed=7), tmp_path / "c")
    assert any(not torch.equal(weights(a)[name], weights(c)[name]) for name in weights(a))


def test_kill_in_the_middle_of_an_epoch_and_resume_with_other_workers(make_data, tmp_path):
    """SIGKILL during an epoch; the resumed run, with another number of workers, ends bit-equal."""
    path = make_data(
        {f"v{i}": [{"segment": [1.0, 3.0 + i / 10], "label_id": i % 2, "label": f"c{i % 2}"}] for i in range(24)},
        subsets={f"v{i}": "training" for i in range(24)},
        steps=200, opt={"epochs": 9, "warmup_epochs": 1}, train_cfg={"dropout": 0.1, "clip_grad_l2norm": 1.0},
    )  # fmt: skip
    whole = train(path, tmp_path / "whole")
    script = (
        "import sys, torch; torch.set_num_threads(int(sys.argv[3]));"
        "from libs.training import run as engine; from libs.core import load_config;"
        "engine.train(load_config(sys.argv[1]), sys.argv[2], progress=False)"
    )
    killed = tmp_path / "killed"
    command = [sys.executable, "-c", script, str(path), str(killed), str(torch.get_num_threads())]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = killed / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if metrics.is_file() and len(metrics.read_text().splitlines()) >= 4:
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = load_checkpoint(killed / "last.pth.tar")["epoch"]
    assert 1 <= done < 10
    config = load_config(path)
    config["loader"]["num_workers"] = 2
    engine.train(config, killed, resume=killed, progress=False)
    assert_same_end(whole, killed)
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 11))


def test_resume_from_a_numbered_checkpoint(make_data, tmp_path):
    path = make_data(opt={"epochs": 3, "warmup_epochs": 1}, train_cfg={"numbered_checkpoints": "full"})
    whole = train(path, tmp_path / "whole", ckpt_freq=1)
    half = train(path, tmp_path / "half", resume=whole / "epoch_002.pth.tar")
    assert_same_end(whole, half)
    train(make_data(), tmp_path / "small", ckpt_freq=1)
    with pytest.raises(ValueError, match=r"epoch_002\.pth\.tar: cannot resume.*last\.pth\.tar has them.*: full"):
        train(make_data(), tmp_path / "again", resume=tmp_path / "small" / "epoch_002.pth.tar")
    assert not (tmp_path / "again").exists()


def test_a_checkpoint_without_our_own_keys_resumes_too(make_data, tmp_path, caplog):
    path = make_data()
    folder = train(path, tmp_path / "run")
    checkpoint = load_checkpoint(folder / "last.pth.tar") | {"epoch": 2}
    for key in ("loss_normalizer", "ema_num_updates"):
        del checkpoint[key]
    torch.save(checkpoint, tmp_path / "old.pth.tar")
    again = train(path, tmp_path / "again", resume=tmp_path / "old.pth.tar")
    assert "no loss normaliser" in caplog.text
    assert load_checkpoint(again / "last.pth.tar")["ema_num_updates"] == 2 * 2 + 2


def test_folders_that_cannot_be_used(make_data, tmp_path):
    path = make_data()
    folder = train(path, tmp_path / "run")
    with pytest.raises(ValueError, match=r"already holds a run.*--resume"):
        train(path, folder)
    evaluation.evaluate(load_config(path), folder, progress=False)
    with pytest.raises(ValueError, match=r"8 channels.*expected 9"):
        train(make_data(dataset={"input_dim": 9}, name="other"), folder, overwrite=True)
    assert (folder / "last.pth.tar").is_file()  # nothing is removed before the new run is known to start
    train(make_data(), folder, overwrite=True, ckpt_freq=0)
    assert not list(folder.glob("*_detections.json")) and len(list(folder.glob("epoch_*"))) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"output folder .*file.*cannot be written"):
        train(path, tmp_path / "file" / "run")


def test_resuming_with_another_optimizer_is_refused(make_data, tmp_path):
    folder = train(make_data(), tmp_path / "run")
    with pytest.raises(ValueError, match=r"another kind than opt\.type: 'SGD'"):
        train(make_data(opt={"type": "SGD"}), folder, resume=folder)


def test_every_start_is_recorded(make_data, tmp_path, caplog):
    folder = train(make_data(), tmp_path / "run")
    train(make_data(opt={"epochs": 3}), folder, resume=folder)
    assert len(json.loads((folder / "run.json").read_text())) == 2
    assert "configuration differs" in caplog.text


def test_a_loss_that_is_not_finite_names_the_videos(make_data, tmp_path, monkeypatch):
    path = make_data()
    np.save(path.parent / "features" / "v2.npy", np.full((64, 8), 3e38, np.float32))
    with pytest.raises(NonFiniteLossError, match=r"epoch 1.*'v2'"):
        train(path, tmp_path / "run")


def test_a_training_video_without_events_is_background(make_data, tmp_path, event):
    path = make_data(
        {"a": [event(1, 2, 0)], "b": [], "c": [event(1, 2, 1)], "d": []}, subsets=dict.fromkeys("abcd", "training")
    )
    train(path, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["reg_loss"] > 0 and line["cls_loss"] > 0 for line in lines)


@pytest.mark.parametrize(
    ("devices", "word"),
    [(["cuda:0", "cuda:1"], "one process runs on one device"), (["cpu", "cpu"], "one device"), (["gpu7"], "gpu7")],
)
def test_devices(make_data, tmp_path, devices, word):
    with pytest.raises(ValueError, match=word):
        train(make_data(devices=devices), tmp_path / "run")


def test_evaluation_writes_what_it_found(make_data, tmp_path):
    path = make_data()
    folder = train(path, tmp_path / "run")
    found = evaluation.evaluate(load_config(path), folder, progress=False)
    assert set(found.files) == {"detections", "metrics", "per_class"} and all(p.is_file() for p in found.files.values())
    metrics = json.loads(found.files["metrics"].read_text())
    assert metrics["average_mAP"] == found.result.average_mAP
    assert metrics["provenance"]["checkpoint"].endswith("epoch_003.pth.tar")
    assert len(found.detections.score) > 0
    config = load_config(path)
    top = evaluation.evaluate(config, folder, topk=3, save_only=True, progress=False)
    assert len(top.detections.score) == 6 and top.result is None
    assert config == load_config(path)  # the caller's dict is unchanged


@pytest.mark.two_paths
def test_evaluation_in_batches_gives_the_same(in_64_bits, make_data, tmp_path):
    path = make_data()
    folder = train(path, tmp_path / "run")
    batched = load_config(make_data(loader={"eval_batch_size": 2}))
    one, two = (evaluation.evaluate(c, folder, progress=False).detections for c in (load_config(path), batched))
    assert len(one.score) and one.label.tolist() == two.label.tolist()
    for a, b in ((one.t_start, two.t_start), (one.t_end, two.t_end), (one.score, two.score)):
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_no_detection_at_all(make_data, tmp_path):
    folder = train(make_data(), tmp_path / "run")
    strict = load_config(make_data(test_cfg={"pre_nms_thresh": 1.0}))
    found = evaluation.evaluate(strict, folder, progress=False)
    assert len(found.detections.score) == 0 and found.result.average_mAP == 0.0
    assert found.result.counts["videos_without_predictions"] == 2


def test_checkpoint_of_another_configuration(make_data, tmp_path):
    folder = train(make_data(), tmp_path / "run")
    wide = load_config(make_data(model={"embd_dim": 16, "fpn_dim": 16}))
    with pytest.raises(ValueError, match=r"another configuration[\s\S]*backbone.*shape \(8,"):
        evaluation.evaluate(wide, folder, progress=False)
    checkpoint = load_checkpoint(folder / "last.pth.tar")
    del checkpoint["state_dict_ema"]
    torch.save(checkpoint, tmp_path / "raw.pth.tar")
    with pytest.raises(ValueError, match="--weights raw"):
        evaluation.evaluate(load_config(make_data()), tmp_path / "raw.pth.tar", progress=False)


def test_one_class_has_no_name(make_data, tmp_path):
    path = make_data(dataset_name="anet", dataset={"num_classes": 1}, test_cfg={"multiclass_nms": False})
    found = evaluation.evaluate(load_config(path), train(path, tmp_path / "run"), save_only=True, progress=False)
    entries = [e for v in json.loads(found.files["detections"].read_text())["results"].values() for e in v]
    assert {(e["label"], e["label_id"]) for e in entries} == {("0", 0)}


def test_missing_external_scores_are_found_before_the_work(make_data, tmp_path, monkeypatch):
    folder = train(make_data(), tmp_path / "run")
    monkeypatch.setattr(evaluation, "predict", lambda *a, **k: pytest.fail("inference ran first"))
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        evaluation.evaluate(load_config(make_data(test_cfg={"ext_score_file": "none.json"})), folder)


def test_external_scores_change_labels(make_data, tmp_path):
    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps({"results": {"v4": [0.0, 1.0], "v5": [1.0, 0.0]}}))
    path = make_data(test_cfg={"ext_score_file": str(scores), "ext_score_topk": 1})
    folder = train(path, tmp_path / "run")
    found = evaluation.evaluate(load_config(path), folder, progress=False)
    assert {(v, int(y)) for v, y in zip(found.detections.video_id, found.detections.label, strict=True)} == {
        ("v4", 1), ("v5", 0),
    }  # fmt: skip
    assert json.loads(found.files["metrics"].read_text())["provenance"]["external_scores"] == str(scores)


def test_the_average_of_few_updates_is_called_out(make_data, tmp_path, caplog):
    train(make_data(), tmp_path / "a")
    assert "still the random initialisation" in caplog.text
    caplog.clear()
    train(make_data(train_cfg={"ema_ramp": True}), tmp_path / "b")
    assert "still the random initialisation" not in caplog.text


def test_bucketing_trains(make_data, tmp_path):
    path = make_data(loader={"bucketing": True, "num_workers": 1})
    assert len((train(path, tmp_path / "run") / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_trains_and_resumes(make_data, tmp_path, amp):
    path = make_data(train_cfg={"amp": amp, "numbered_checkpoints": "full"})
    folder = train(path, tmp_path / "run", ckpt_freq=2)
    resumed = train(path, tmp_path / "resumed", resume=folder / "epoch_002.pth.tar")
    assert_same_end(folder, resumed)
    scaler = load_checkpoint(folder / "last.pth.tar")["scaler"]
    assert ("scale" in scaler) == (amp == "fp16")


@pytest.mark.two_paths
def test_accumulated_gradients_are_those_of_the_whole_batch(in_64_bits, make_data, tmp_path, monkeypatch):
    """With a normaliser that stays: of a part it is half of that of the whole."""
    monkeypatch.setattr(Criterion, "MOMENTUM", 1.0)

    def trained(name, norm, parts):
        found = {"init_loss_norm": norm, "droppath": 0.0, "clip_grad_l2norm": 1.0, "accumulate": parts}
        return train(make_data(name=name, train_cfg=found, loader={"batch_size": 4}), tmp_path / f"run_{name}")

    whole, parts = trained("whole", 20, 1), trained("parts", 10, 2)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, rtol=0, atol=1e-11, msg=name)
    one, two = ([json.loads(line)["final_loss"] for line in (f / "metrics.jsonl").open()] for f in (whole, parts))
    assert one == pytest.approx(two, rel=1e-11)
    with pytest.raises(ValueError, match=r"loader\.batch_size: 4 must be a multiple of train_cfg\.accumulate: 3"):
        trained("odd", 10, 3)
    monkeypatch.setattr(engine.distributed, "world_size", lambda: 2)
    with pytest.raises(ValueError, match=r"accumulate: 4 times the number of processes, 2"):
        check_parts(4, {"loader.batch_size": 4})


@pytest.mark.two_paths
def test_a_compiled_network_trains_the_same(in_64_bits, make_data, tmp_path, monkeypatch):
    """The graphs are captured, forward and backward, and run by PyTorch: making machine code of them takes minutes.
    Their last step is to 32 bits."""
    compiled, original = [], torch.compile

    def capture(function, **options):
        compiled.append(original(function, backend="aot_eager", **options))
        return compiled[-1]

    monkeypatch.setattr(torch, "compile", capture)
    plain = train(make_data(name="plain", train_cfg={"droppath": 0.0}), tmp_path / "plain")
    path = make_data(name="compiled", train_cfg={"droppath": 0.0, "compile": True})
    other = train(path, tmp_path / "compiled")
    assert len(compiled) == 1
    for key in ("state_dict", "state_dict_ema"):
        one, two = weights(plain, key), weights(other, key)
        assert one.keys() == two.keys()
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=0, atol=1e-7, msg=name)
    one, two = ([json.loads(line) for line in (tmp_path / n / "metrics.jsonl").open()] for n in ("plain", "compiled"))
    assert [line["final_loss"] for line in one] == pytest.approx([line["final_loss"] for line in two], rel=1e-7)
