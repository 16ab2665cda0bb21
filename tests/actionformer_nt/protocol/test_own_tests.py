"""Splits whose folds have test videos of their own: training and evaluation use exactly the split's lists."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from actionformer_nt import run as semi_run
from actionformer_nt.commands.main import main
from actionformer_nt.protocol.hidden_labels import HiddenLabels
from actionformer_nt.protocol.split_file import digest
from actionformer_nt.protocol.split_record import read_tested
from actionformer_nt.protocol.splits import (
    check_split,
    read_hidden,
    read_split,
    split_of,
    splits_with_tests,
    write_splits,
)
from actionformer_nt.self_training.setup import set_up
from libs.core import load_config
from libs.datasets.annotations import read_annotations
from libs.training.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[3]
TESTS = (["v0", "v1", "v8"], ["v2", "v9"])  # v0 to v7 are `training` in the annotation file, v8 and v9 `test`
USED = [f"v{i}" for i in range(10) if i != 3]  # v3 is in no part


@pytest.fixture
def with_tests(make_semi, tmp_path):
    """A configuration whose split has two folds with test videos of their own."""

    def make(fold=0, **semi):
        path = make_semi(ratio=0.5, log_hidden=True, **semi)
        annotations = read_annotations(path.parent / "annotations.json")
        write_splits(tmp_path / "semi_split.json", splits_with_tests(annotations, USED, TESTS, ratios=[0.5], seed=0))
        raw = yaml.safe_load(path.read_text())
        raw["semi_cfg"]["split"]["fold"] = fold
        path.write_text(yaml.safe_dump(raw))
        return path

    return make


def same_weights(a, b):
    one, two = (load_checkpoint(folder / "last.pth.tar")["state_dict"] for folder in (a, b))
    return all(np.array_equal(value, two[name]) for name, value in one.items())


@pytest.mark.parametrize("fold", [0, 1])
def test_every_part_of_a_run_uses_the_splits_lists(with_tests, tmp_path, fold):
    config = load_config(with_tests(fold))
    split = split_of(config)
    assert sorted(split.test) == sorted(TESTS[fold])
    assert not {*split.labeled, *split.unlabeled} & {*split.test, "v3"}
    assert sorted((*split.labeled, *split.unlabeled, *split.test)) == USED
    run = set_up(config)
    assert {video.id for video in run.stages.labeled.videos} == set(split.labeled)
    assert {video.id for video in run.stages.unlabeled.videos} == set(split.unlabeled)
    assert {video.id for video in HiddenLabels(config, split).videos} == set(split.unlabeled)
    folder = semi_run.train(config, tmp_path / "run", progress=False)
    for evaluation in semi_run.evaluate(config, folder, progress=False).values():
        assert set(evaluation.detections.video_id) <= set(split.test)
        metrics = json.loads(evaluation.files["metrics"].read_text())
        assert metrics["provenance"]["tested_videos"] == sorted(split.test)
    truth = json.loads((folder / "ground_truth.json").read_text())["database"]
    assert set(truth) == set(split.test) and all(video["annotations"] for video in truth.values())


def test_the_labels_of_unlabeled_test_and_unused_videos_change_no_weight(with_tests, tmp_path):
    path = with_tests()
    whole = semi_run.train(load_config(path), tmp_path / "whole", progress=False)
    file = path.parent / "annotations.json"
    content, split = json.loads(file.read_text()), split_of(load_config(path))
    for number, events in enumerate(([{"segment": [0.2, 0.9], "label": "class1", "label_id": 1}], [])):
        for video in (*split.unlabeled, *split.test, "v3"):
            content["database"][video]["annotations"] = events
        file.write_text(json.dumps(content))
        assert same_weights(whole, semi_run.train(load_config(path), tmp_path / f"other{number}", progress=False))
    for video in split.labeled:  # the test itself can fail
        content["database"][video]["annotations"][0]["segment"] = [4.0, 8.0]
    file.write_text(json.dumps(content))
    assert not same_weights(whole, semi_run.train(load_config(path), tmp_path / "changed", progress=False))


def test_a_run_is_not_tested_on_the_videos_of_another_fold(with_tests, tmp_path, capsys):
    path = with_tests()
    folder = semi_run.train(load_config(path), tmp_path / "run", progress=False)
    other = load_config(path, overrides=["semi_cfg.split.fold=1"])
    with pytest.raises(ValueError, match=r"trained with fold 0 of semi_split\.json: it may have seen them"):
        semi_run.evaluate(other, folder, progress=False)
    with pytest.raises(ValueError, match="trained with fold 0"):
        read_tested(other, split_of(other), folder / "last.pth.tar")
    assert main(["-q", "eval", str(path), str(folder), "--set", "semi_cfg.split.fold=1"]) == 2
    assert "trained with fold 0" in capsys.readouterr().err
    assert main(["-q", "eval", str(path), str(folder)]) == 0
    detections = json.loads((folder / "last_ema_detections.json").read_text())
    assert set(detections["results"]) <= set(TESTS[0])


def without_entry(folder):
    """Makes the checkpoint of a run that of an earlier version."""
    state = load_checkpoint(folder / "last.pth.tar")
    del state["made_with"]
    torch.save(state, folder / "last.pth.tar")


@pytest.mark.parametrize("older", [False, True])
def test_neither_is_it_with_a_file_of_the_same_name(with_tests, tmp_path, older):
    """The files differ, although their names, the ratio and the fold are the same."""
    path = with_tests()
    folder = semi_run.train(load_config(path), tmp_path / "run", progress=False)
    if older:
        without_entry(folder)
    annotations = read_annotations(path.parent / "annotations.json")
    other = tmp_path / "other" / "semi_split.json"
    other.parent.mkdir()
    config = load_config(path, overrides=[f"semi_cfg.split.file={other}"])
    write_splits(other, splits_with_tests(annotations, USED, TESTS[::-1], ratios=[0.5], seed=1))
    with pytest.raises(ValueError, match=r"trained with fold 0 of semi_split\.json: it may have seen them"):
        semi_run.evaluate(config, folder, progress=False)
    content = splits_with_tests(annotations, USED, [TESTS[0], TESTS[1]], ratios=[0.5], seed=3)
    assert content["orders"][0][:3] != list(split_of(load_config(path)).labeled)
    write_splits(other, content)
    with pytest.raises(ValueError, match=r"other labels, those of ratio 0\.5, fold 0"):
        semi_run.evaluate(config, folder, progress=False)


def test_a_file_with_further_folds_and_the_same_lists_will_do(with_tests, tmp_path):
    path = with_tests()
    folder = semi_run.train(load_config(path), tmp_path / "run", progress=False)
    content = json.loads((tmp_path / "semi_split.json").read_text())
    content |= {key: [*content[key], content[key][1]] for key in ("orders", "tests")}
    write_splits(tmp_path / "more.json", content | {"hash": digest(content)})
    config = load_config(path, overrides=[f"semi_cfg.split.file={tmp_path / 'more.json'}"])
    assert semi_run.evaluate(config, folder, progress=False)


def test_a_supervised_run_and_one_that_says_nothing(with_tests, tmp_path, caplog):
    path = with_tests()
    raw = yaml.safe_load(path.read_text())
    del raw["semi_cfg"]
    (tmp_path / "supervised.yaml").write_text(yaml.safe_dump(raw))
    supervised = semi_run.train(tmp_path / "supervised.yaml", tmp_path / "supervised", progress=False)
    with pytest.raises(
        ValueError, match=r"trained without semi_cfg, on all videos of train_split .'training'.: it may"
    ):
        read_tested(load_config(path), split_of(load_config(path)), supervised)
    folder = semi_run.train(load_config(path), tmp_path / "run", progress=False)
    without_entry(folder)
    semi_run.evaluate(load_config(path), folder, progress=False)
    assert "does not say with which videos" not in caplog.text
    (folder / "config.yaml").unlink()
    semi_run.evaluate(load_config(path), folder, progress=False)
    assert "does not say with which videos it was trained" in caplog.text


def test_check_data_counts_the_splits_lists(with_tests, tmp_path, capsys):
    path = with_tests()
    main(["-q", "check-data", str(path), "--json", str(tmp_path / "check.json")])
    facts = json.loads((tmp_path / "check.json").read_text())
    assert "6 videos" in facts["facts"]["train_split"] and "3 videos" in facts["facts"]["val_split"]
    assert "trained-and-tested" not in json.dumps(facts) and "extra-file" not in json.dumps(facts)


def test_mistakes(with_tests, tmp_path):
    path = with_tests()
    file = tmp_path / "semi_split.json"
    whole = json.loads(file.read_text())
    for change, word in (
        ({"tests": [TESTS[0]]}, "2 folds, but test videos of 1"),
        ({"tests": [[], TESTS[1]]}, "fold 0 has no test video"),
        ({"tests": [[whole["orders"][0][0]], TESTS[1]]}, "fold 0 labels 1 of its test videos"),
        ({"tests": [["v3"], TESTS[1]]}, "fold 0 tests 1 unknown videos, the first is 'v3'"),
        ({"tests": None}, "not a split file: .*tests"),
        ({"format": "actionformer-nt split 3"}, "not a split file"),
    ):
        content = whole | change
        content["hash"] = digest(content)
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=word):
            read_split(file, 0.5, 0)
    path = with_tests()
    config = load_config(path)
    split, json_file = split_of(config), config["dataset"]["json_file"]
    config["val_split"] = ["validation"]
    with pytest.raises(ValueError, match=r"train_split must be \[training\] and val_split \[test\]"):
        check_split(config, read_hidden(json_file, split), split)
    content = json.loads(Path(json_file).read_text())
    del content["database"]["v8"]
    Path(json_file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"names 1 videos that .* does not have, the first is 'v8'"):
        read_hidden(json_file, split)


def test_draws_label_every_class_and_different_people(tmp_path):
    """20 people with two videos each; half of the videos lack a class."""
    database = {
        f"p{i:02}-{k}": {"subset": "training", "annotations": [
            {"segment": [c, c + 1], "label": f"c{c}", "label_id": c} for c in range(3 if (i + k) % 2 else 2)
        ]} for i in range(20) for k in range(2)
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps({"database": database}))
    annotations = read_annotations(tmp_path / "a.json")
    people = {video: video[:3] for video in database}
    tests = [sorted(v for v in database if int(v[1:3]) % 4 == i % 4) for i in range(12)]
    options = {"ratios": [1 / 30, 3 / 30], "seed": 5, "groups": people}
    content = splits_with_tests(annotations, sorted(database), tests, **options)
    assert content == splits_with_tests(annotations, sorted(database), tests, **options)
    for fold, order in enumerate(content["orders"]):
        assert len(order) == 3 == len({people[video] for video in order})
        assert len(database[order[0]]["annotations"]) == 3  # a single labeled video has every class
        others = [content["orders"][i] for i in range(fold) if tests[i] == tests[fold]]
        assert not {video for other in others for video in other} & set(order)
    with pytest.raises(ValueError, match=r"fold 0: 1000 draws .* none in which every class is labeled"):
        splits_with_tests(annotations, [v for v in database if len(database[v]["annotations"]) == 2], [["p00-0"]],
                          ratios=[0.1], seed=0)  # fmt: skip


def test_the_committed_draws_of_the_trial_are_those_that_the_tool_makes(real_data):
    made = runpy.run_path(str(ROOT / "tools/trial_splits.py"))["make"](real_data)
    assert len(made) == 7
    for name, content in made.items():
        assert json.loads((ROOT / f"configs/splits/{name}.json").read_text()) == content


@pytest.mark.parametrize("name", ["hapt", "salads50", "an4"])
def test_nobody_is_tested_in_the_trial_and_while_the_recipe_is_chosen(name):
    trial, valid = (
        json.loads((ROOT / f"configs/splits/{name}_{part}.json").read_text()) for part in ("trial", "valid")
    )
    tested = {video for test in trial["tests"] for video in test}
    assert not tested & {video for test in valid["tests"] for video in test}
    if name == "an4":  # the people tested in the trial have no part at all in choosing
        assert not tested & set(valid["videos"])
