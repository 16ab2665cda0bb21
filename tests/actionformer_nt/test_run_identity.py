"""Semi-supervised runs: their classes are the split's, and videos may be marked as unlabeled."""

import json
from dataclasses import replace

import numpy as np
import pytest

from actionformer_nt import run as semi_run
from actionformer_nt.commands.main import main
from actionformer_nt.protocol import splits
from actionformer_nt.protocol.split_file import digest
from actionformer_nt.protocol.splits import marked_split, published_split, read_split, write_splits
from libs.core import load_config
from libs.datasets.annotations import read_annotations
from libs.datasets.sidecar import Sidecar
from libs.training import run as engine


def test_semi_supervised_runs_have_the_splits_classes(make_semi, tmp_path, capsys):
    path = make_semi()
    folder = semi_run.train(load_config(path), tmp_path / "run", progress=False)
    assert json.loads((folder / "classes.json").read_text()) == {"class0": 0, "class1": 1}
    expected = {
        n: e.result.mAP.tolist() for n, e in semi_run.evaluate(load_config(path), folder, progress=False).items()
    }
    annotations = path.parent / "annotations.json"
    content = json.loads(annotations.read_text())
    for video in content["database"].values():  # no ids, and in the training videos no event of class 0
        for found in video["annotations"]:
            del found["label_id"]
    annotations.write_text(json.dumps(content))
    again = semi_run.evaluate(load_config(path), folder, progress=False)
    assert {name: e.result.mAP.tolist() for name, e in again.items()} == expected
    assert main(["-q", "eval", str(path), str(folder), "--weights", "raw"]) == 0  # the plain command, too
    split = tmp_path / "semi_split.json"
    content = json.loads(split.read_text()) | {"label_ids": {"class0": 1, "class1": 0}}
    content["hash"] = digest(content)
    split.write_text(json.dumps(content))
    for attempt in (
        lambda: semi_run.evaluate(load_config(path), folder, progress=False),
        lambda: semi_run.train(load_config(path), folder, resume=folder, progress=False),
    ):
        with pytest.raises(ValueError, match=r"class 'class0' has id 1, but 0 in the run"):
            attempt()


def mark(path, videos, value=False):
    annotations = path.parent / "annotations.json"
    content = json.loads(annotations.read_text())
    for video in videos:
        content["database"][video]["labeled"] = value
    annotations.write_text(json.dumps(content))
    return annotations


def test_marked_videos_take_no_part_in_supervised_training(make_data, tmp_path, caplog):
    """As if they were not in the file: not background, and no events either."""
    path = make_data()
    annotations = mark(path, ["v1", "v2"])
    with caplog.at_level("INFO"):
        marked = engine.train(load_config(path), tmp_path / "marked", progress=False)
    assert "2 of 4 videos are marked labeled: false and left out" in caplog.text
    content = json.loads(annotations.read_text())
    for video in ("v1", "v2"):
        del content["database"][video]
    annotations.write_text(json.dumps(content))
    without = engine.train(load_config(path), tmp_path / "without", progress=False)
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (marked, without)]
    losses = [[json.loads(line)["final_loss"] for line in found] for found in lines]
    assert losses[0] == losses[1]
    content["database"]["v0"]["labeled"] = content["database"]["v3"]["labeled"] = False
    annotations.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="nothing to learn: all 2 videos"):
        engine.train(load_config(path), tmp_path / "none", progress=False)


def test_marks_become_a_split(make_semi, tmp_path):
    path = make_semi(ratio=None)
    annotations = mark(path, [f"v{i}" for i in range(3, 8)])
    out = tmp_path / "semi_split.json"
    assert main(["-q", "splits", str(annotations), "--subset", "training", "--marked", "--out", str(out)]) == 0
    split = read_split(out, None)
    assert split.labeled == ("v0", "v1", "v2") and set(split.unlabeled) == {f"v{i}" for i in range(3, 8)}
    config = load_config(path)
    config["semi_cfg"]["log_hidden"] = True  # of marked videos nobody knows an event
    folder = semi_run.train(config, tmp_path / "run", progress=False)
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert "unlabeled/loss" in last and not any(np.isnan(list(last.values())))
    assert not any(name.startswith("hidden/") for name in last)
    annotations = mark(path, ["v0"])
    with pytest.raises(ValueError, match=r"labeled videos \['v0'\] are marked labeled: false"):
        semi_run.train(config, tmp_path / "again", progress=False)
    with pytest.raises(ValueError, match=r"list: labeled videos \['v0'\] are marked"):
        published_split(read_annotations(annotations), ["training"], {"labeled": ["v0", "v1"]}, "list")
    with pytest.raises(ValueError, match=r"ratio 0\.5 asks for 4 labeled videos of 8, but only 2 are not marked"):
        splits.make_splits(read_annotations(annotations), ["training"], kind="stratified", ratios=[0.5])
    mark(path, [f"v{i}" for i in range(8)], value=True)
    with pytest.raises(ValueError, match="8 of 8 videos"):
        marked_split(read_annotations(annotations), ["training"])


def test_a_published_split_has_one_ratio(make_semi, tmp_path, capsys):
    path = make_semi(ratio=0.25)
    annotations = read_annotations(path.parent / "annotations.json")
    listing = {"labeled": [f"v{i}" for i in range(7)], "unlabeled": ["v7"]}
    file = tmp_path / "semi_split.json"
    write_splits(file, published_split(annotations, ["training"], listing, "list"))
    assert main(["-q", "train", str(path), "--output", "x"]) == 2
    error = capsys.readouterr().err
    assert "ratio 0.25 asks for 2 labeled videos of 8" in error and "a list of 7" in error and "leave it out" in error
    for ratio in (None, 0.875):
        assert len(read_split(file, ratio).labeled) == 7
    drawn = splits.make_splits(annotations, ["training"], kind="uniform", ratios=[0.5])
    write_splits(file, drawn)
    with pytest.raises(ValueError, match=r"semi_cfg\.split\.ratio is missing"):
        read_split(file, None)
    for listing, words in (
        ({"labeled": ["v0", "v1", "v0"]}, r"'labeled' names \['v0'\] more than once"),
        ({"labeled": ["v0"], "unlabeled": ["v1", "v_v1"]}, r"'unlabeled' names \['v1'\] more than once"),
    ):
        with pytest.raises(ValueError, match=words):
            published_split(annotations, ["training"], listing, "list")


def test_several_subsets_in_one_split(make_semi, tmp_path):
    path = make_semi()
    annotations = path.parent / "annotations.json"
    content = json.loads(annotations.read_text())
    for i in range(4, 8):
        content["database"][f"v{i}"]["subset"] = "more"
    annotations.write_text(json.dumps(content))
    out = tmp_path / "semi_split.json"
    command = ["-q", "splits", str(annotations), "--subset", "training", "more", "--ratios", "0.5", "--out", str(out)]
    assert main(command) == 0
    assert len(read_split(out, 0.5).labeled) + len(read_split(out, 0.5).unlabeled) == 8
    config = load_config(path)
    with pytest.raises(ValueError, match=r"names 4 videos that are not in train_split \['training'\]"):
        semi_run.train(config, tmp_path / "one", progress=False)
    config["train_split"] = ["training", "more"]
    semi_run.train(config, tmp_path / "both", progress=False)


def test_thresholds_of_a_split_with_other_classes_are_refused(make_semi, tmp_path, capsys):
    path = make_semi()
    folder = semi_run.train(load_config(path), tmp_path / "run", progress=False)
    split = tmp_path / "semi_split.json"
    content = json.loads(split.read_text()) | {"label_ids": {"class0": 1, "class1": 0}}
    content["hash"] = digest(content)
    split.write_text(json.dumps(content))
    annotations = path.parent / "annotations.json"
    content = json.loads(annotations.read_text())
    for video in content["database"].values():
        for found in video["annotations"]:
            found["label_id"] = 1 - found["label_id"]
    annotations.write_text(json.dumps(content))
    features = str(path.parent / "features")
    command = ["-q", "predict", str(path), str(folder), features, "--fps", "30", "--threshold", "auto"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert "class 'class0' has id 1, but 0 in the run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "listing",
    [{"labeled": [1, 2]}, {"labeled": None}, {"labeled": {"v0": 1}}, {"labeled": ["v0"], "unlabeled": None}, None],
)
def test_lists_that_are_no_lists_of_ids(make_semi, listing):
    annotations = read_annotations(make_semi().parent / "annotations.json")
    with pytest.raises(ValueError, match="list: expected"):
        published_split(annotations, ["training"], listing, "list")


@pytest.mark.parametrize("key", ["hash", "kind", "label_ids", "videos", "orders"])
def test_split_files_of_another_shape(make_semi, tmp_path, key, capsys):
    path = make_semi()
    split = tmp_path / "semi_split.json"
    whole = json.loads(split.read_text())
    for value in (None, 3, [] if key != "label_ids" else ["x"]):
        content = whole | {key: value}
        if key != "hash":
            content["hash"] = digest(content)
        split.write_text(json.dumps(content))
        assert main(["-q", "train", str(path), "--output", "x"]) == 2
        assert "not a split file" in capsys.readouterr().err
        assert main(["-q", "check-data", str(path)]) == 4


def test_unlabeled_features_are_made_like_the_labeled_ones(make_semi, tmp_path):
    """Each set of videos is the same within itself."""
    path = make_semi(name="mixed")
    config = load_config(path)
    semi, labeled = config["semi_cfg"], read_split(config["semi_cfg"]["split"]["file"], 0.25, 0).labeled
    made = Sidecar(
        preset="s3d", weights="ab", video="v.mp4", fps=30.0, frames=270, duration=9.0, window=16, stride=4, rows=60,
        channels=8, spatial="preset",
    )  # fmt: skip
    for file in sorted((path.parent / "features").glob("*.npy")):
        own = made if file.stem in labeled else replace(made, weights="cd")
        own.write(file.with_suffix(".json"))
    with pytest.raises(ValueError, match=r"unlabeled videos were made otherwise than .*: weights: cd, exp"):
        semi_run.train(config, tmp_path / "run", progress=False)
    semi["method"] = "labeled_only"
    semi_run.train(config, tmp_path / "run", progress=False)
