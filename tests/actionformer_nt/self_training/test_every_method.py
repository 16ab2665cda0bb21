"""What holds for every method on every architecture: it trains, resumes bit for bit, and sees no hidden label."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from actionformer_nt import run as semi_run
from actionformer_nt.methods import METHODS, get_method, needs_truth
from actionformer_nt.protocol.splits import split_of
from actionformer_nt.self_training.setup import check_config
from libs.core import load_config
from libs.training.checkpoint import load_checkpoint

ARCHITECTURES = ("LocPointTransformer", "softmax", "SPOT")
LEARNING = [name for name in METHODS if not needs_truth(name)]
OPTIONS = {  # for networks that know little
    "fixmatch": {"threshold": 0.34}, "dense_teacher": {"share": 0.1},
    "apl": {"discriminator_after": 1, "drop": 0.3, "mine": 0.4},
}  # fmt: skip


@pytest.fixture
def config_of(make_semi):
    """The configuration of a short run of a method, with the settings that it needs on an architecture."""

    def make(method, arch, **semi):
        keys = {"labeled_view": "strong", "weak": {"shift": 1}, "strong": {"flip": 0.5, "crop": 0.2, "warp": 0.2}}
        keys |= {"method_options": {method: OPTIONS[method]}} if method in OPTIONS else {}
        if (found := get_method(method)) is not None and found.at_points and arch != "SPOT":  # points must not move
            keys["pseudo"] = {"partition": "dense"} | ({} if arch == "softmax" else {"background_logit": -4.0})
            keys["strong"] = {"snippet_mask": 0.3, "noise": 0.1}
        config = load_config(make_semi(arch=arch, method=method, **keys | semi))
        if found is not None and found.needs_quality:
            config["model"]["quality"], config["train_cfg"]["cls_prior_prob"] = True, 0.1
            config["train_cfg"]["soft_labels"] = method == "apl" and arch == "LocPointTransformer"
        return config

    return make


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder):
    state = load_checkpoint(folder / "last.pth.tar")
    return [value for key in ("state_dict", "state_dict_ema") for value in state[key].values()]


def same(one, two):
    return all(torch.equal(*pair) for pair in zip(weights(one), weights(two), strict=True))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("method", LEARNING)
def test_every_method_trains(config_of, tmp_path, method, arch):
    config = config_of(method, arch)
    folder = semi_run.train(config, tmp_path / "run", progress=False)
    lines = records(folder)
    assert [line["iteration"] for line in lines] == list(range(1, 9))
    assert all(np.isfinite(v) for line in lines for v in line.values())
    found = get_method(method)
    learns = {"unlabeled/loss"} if found is not None and found.has_lessons else set()
    assert {"unlabeled/loss"} & lines[-1].keys() == learns and "unlabeled/loss" not in lines[3]
    compared = [name for name in lines[-1] if name.startswith("consistency/")]
    assert bool(compared) == (found is not None and found.compares) and not set(compared) & lines[3].keys()
    if "unlabeled/loss" in learns:
        assert lines[-1]["pseudo/segments"] > 0
        parts = sum(lines[-1][f"space/{part}"] for part in ("target", "positive", "negative", "ambiguous"))
        dense = config["semi_cfg"]["pseudo"]["partition"] == "dense"
        assert parts == pytest.approx(2 + (arch == "SPOT" or dense))  # classes of a distribution
    results = semi_run.evaluate(config, folder, progress=False)
    assert set(results) == {"student", "teacher"} and all(e.result is not None for e in results.values())
    assert {"config.yaml", "run.json", "log.txt", "burn_in.pth.tar", "last.pth.tar"} <= {
        path.name for path in folder.iterdir()
    }


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("method", LEARNING)
def test_every_method_resumes_exactly_and_sees_no_hidden_label(config_of, tmp_path, interrupted, method, arch):
    config = config_of(method, arch)
    whole = semi_run.train(config, tmp_path / "whole", progress=False)
    for at in (2, 6):  # in the burn-in, in self-training
        half = tmp_path / f"half{at}"
        with interrupted(at):
            semi_run.train(config, half, progress=False)
        semi_run.train(config, half, resume=half, progress=False)
        assert same(whole, half), at
    file, split = Path(config["dataset"]["json_file"]), split_of(config)
    content = json.loads(file.read_text())
    assert len(split.unlabeled) == 6
    for name in split.unlabeled:
        content["database"][name]["annotations"] = [
            {"segment": [0.1, 8.9], "label": "class0", "label_id": 0},
            {"segment": [4.0, 4.2], "label": "class1", "label_id": 1},
        ]
    file.write_text(json.dumps(content))
    assert same(whole, semi_run.train(config, tmp_path / "corrupted", progress=False))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_pretraining_of_a_method_resumes_exactly(config_of, tmp_path, interrupted, arch):
    config = config_of("apl", arch, pretrain=3)
    whole, half = semi_run.train(config, tmp_path / "whole", progress=False), tmp_path / "half"
    with interrupted(2):
        semi_run.train(config, half, progress=False)
    semi_run.train(config, half, resume=half, progress=False)
    assert same(whole, half)
    first = records(whole)[0]
    assert {"pretext/fine", "pretext/coarse"} <= first.keys() and ("pretext/order_loss" in first) == (arch == "SPOT")
    assert "pretext/fine" not in records(whole)[3]


@pytest.mark.parametrize("key", ["model.quality", "test_cfg.quality_score"])
def test_a_method_that_ranks_by_quality_needs_the_head(config_of, key):
    config = config_of("apl_quality", "LocPointTransformer")
    section, name = key.split(".")
    config[section][name] = False
    with pytest.raises(ValueError, match=rf"{key}: method apl_quality ranks by the quality head; set it to true"):
        check_config(config)


def test_windows_of_spot_may_go_through_the_network_one_by_one(config_of, tmp_path):
    config = config_of("apl", "SPOT", unlabeled_batch_size=4)
    runs = []
    for size in (32, 1):
        config["model"]["window_batch"] = size
        runs.append(semi_run.train(config, tmp_path / str(size), progress=False))
    for a, b in zip(*map(records, runs), strict=True):
        assert a["labeled/final_loss"] == pytest.approx(b["labeled/final_loss"], rel=1e-3)


def test_a_burn_in_of_another_method_has_other_modules(config_of, tmp_path):
    """They have not learned anything by then."""
    stages = [{"learn": "labeled", "iterations": 4}, {"learn": "pseudo", "iterations": 2}]
    keys = {"burn_in": 0, "iterations": 0, "stages": stages}
    folder = semi_run.train(config_of("sstap", "LocPointTransformer", **keys), tmp_path / "one", progress=False)
    config = config_of("plr", "LocPointTransformer", **keys)
    config["semi_cfg"]["burn_in_checkpoint"] = str(folder / "burn_in.pth.tar")
    assert len(records(semi_run.train(config, tmp_path / "two", progress=False))) == 2
