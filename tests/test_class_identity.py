"""Class names and ids are those of the run, whatever file is read after it."""

import json
import logging

import pytest
import yaml

from actionformer_nt.commands.main import main
from libs.core import load_config
from libs.evaluation import run as evaluation
from libs.inference.operating_point import stored_thresholds, thresholds_file
from libs.inference.predictor import Predictor
from libs.training import run as engine

NAMES = ("carry", "run", "sit")  # ids 0, 1, 2


@pytest.fixture
def run(make_data, tmp_path, event):
    """A trained run of three classes, the configuration of a test file of one's own, and the detections' mAP on it."""
    times = [(0.5, 2.0), (3.0, 5.0), (6.0, 8.0)]
    events = {
        f"v{i}": [event(a + i / 20, b, (k + i) % 3, NAMES[(k + i) % 3]) for k, (a, b) in enumerate(times)]
        for i in range(6)
    }
    path = make_data(events, dataset={"num_classes": 3}, test_cfg={"max_seg_num": 200})
    folder = engine.train(load_config(path), tmp_path / "run", progress=False)
    annotations = path.parent / "annotations.json"
    content = json.loads(annotations.read_text())
    predictor = Predictor.from_checkpoint(folder, weights="raw")
    for i in (4, 5):  # events that the detector meets: the third detection of each class
        table = predictor(path.parent / "features" / f"v{i}.npy", fps=30, duration=9.0)
        third = [table[table["label_id"] == k].iloc[2] for k in range(3)]
        content["database"][f"v{i}"]["annotations"] = [event(t.start, t.end, k, NAMES[k]) for k, t in enumerate(third)]
    annotations.write_text(json.dumps(content))

    class Case:
        config, folder_, features = path, folder, path.parent / "features"
        content = json.loads((path.parent / "annotations.json").read_text())

        def other(self, change, name="other", **sections):
            """A configuration with a changed copy of the annotations."""
            database = json.loads(json.dumps(self.content["database"]))
            change(database)
            file = tmp_path / f"{name}.json"
            file.write_text(json.dumps({"database": database}))
            raw = yaml.safe_load(path.read_text())
            raw["dataset"]["json_file"] = str(file)
            for section, values in sections.items():
                raw[section] = raw[section] | values if isinstance(values, dict) else values
            other = tmp_path / f"{name}.yaml"
            other.write_text(yaml.safe_dump(raw))
            return other

        def evaluate(self, config):
            return evaluation.evaluate(load_config(config), self.folder_, weights="raw", progress=False)

    return Case()


def without_first_class(database):
    """Of the test videos only events of the classes 1 and 2 are left; alphabetically they would be 0 and 1."""
    for video in database.values():
        if video["subset"] == "test":
            video["annotations"] = [e for e in video["annotations"] if e["label"] != "carry"]


def without_ids(database):
    without_first_class(database)
    for name in [name for name, video in database.items() if video["subset"] != "test"]:
        del database[name]
    for video in database.values():
        for found in video["annotations"]:
            del found["label_id"]


def test_a_test_file_without_ids_that_lacks_a_class(run):
    expected = run.evaluate(run.other(without_first_class, "with_ids")).result
    assert expected.label.tolist() == [1, 2] and expected.average_mAP > 0
    found = run.evaluate(run.other(without_ids)).result
    assert found.label.tolist() == [1, 2] and found.average_mAP == expected.average_mAP
    by_name = json.loads(next(run.folder_.glob("epoch_003_raw_other-test-*_metrics.json")).read_text())
    assert [row["label"] for row in by_name["per_class"]] == ["run", "sit"]


def test_ids_that_contradict_the_run(run, capsys):
    def swap(database):
        for video in database.values():
            for found in video["annotations"]:
                found["label_id"] = {"run": 2, "sit": 1}.get(found["label"], 0)

    def unknown(database):
        database["v5"]["annotations"][0] |= {"label": "swim", "label_id": 7}

    for change, words in (
        (swap, ["label '", "has label_id", "in the classes of the run"]),
        (unknown, ["label 'swim' (label_id 7) is not in the classes of the run", "classes.json"]),
    ):
        config = str(run.other(change))
        for command in (
            ["eval", config, str(run.folder_)],
            ["train", config, "--resume", str(run.folder_)],
            ["predict", config, str(run.folder_), str(run.features), "--fps", "30", "--threshold", "auto"],
        ):
            assert main(["-q", *command]) == 2, command
            error = capsys.readouterr().err
            assert all(word in error for word in words), error


def test_resuming_with_other_data_is_told_and_never_renumbers(run, caplog):
    classes = (run.folder_ / "classes.json").read_bytes()

    def fewer(database):
        del database["v0"]
        for video in database.values():
            for found in video["annotations"]:
                del found["label_id"]
            video["annotations"] = [e for e in video["annotations"] if e["label"] != "carry"]

    config = run.other(fewer, opt={"epochs": 3})
    with caplog.at_level(logging.WARNING):
        engine.train(load_config(config), run.folder_, resume=run.folder_, progress=False)
    assert "content of the annotation file has changed" in caplog.text
    assert "number of training videos has changed since the last start: 4 then, 3 now" in caplog.text
    assert (run.folder_ / "classes.json").read_bytes() == classes
    assert json.loads(classes) == {"carry": 0, "run": 1, "sit": 2}


def test_a_test_set_without_labels(run, tmp_path, capsys):
    """Detections carry the run's names, and evaluate gives the right mAP once there are labels."""

    def unlabeled(database):
        for name in [name for name, video in database.items() if video["subset"] != "test"]:
            del database[name]
        for video in database.values():
            video["annotations"] = []

    for preset in ("generic", "thumos"):
        config = run.other(unlabeled, f"unlabeled_{preset}", dataset_name=preset)
        assert main(["-q", "eval", str(config), str(run.folder_), "--weights", "raw", "--saveonly"]) == 0
        assert main(["-q", "eval", str(config), str(run.folder_)]) == 2
        error = capsys.readouterr().err
        assert "holds no event" in error and "--saveonly" in error and "num_classes: 0" not in error
    (detections,) = run.folder_.glob("epoch_003_raw_unlabeled_generic-test-*_detections.json")
    labels = {e["label"] for v in json.loads(detections.read_text())["results"].values() for e in v}
    assert labels == set(NAMES)
    for change, name in ((without_first_class, "with_ids"), (without_ids, "without_ids")):
        expected = run.evaluate(run.other(change, name)).result
        capsys.readouterr()
        arguments = ["--annotations", str(tmp_path / f"{name}.json"), "--split", "test", "--tiou", "0.3:0.7:0.1"]
        assert main(["evaluate", str(detections), *arguments, "--json", str(tmp_path / "m.json")]) == 0
        assert json.loads((tmp_path / "m.json").read_text())["average_mAP"] == expected.average_mAP


def test_no_advice_to_have_no_class(make_data, capsys):
    path = make_data({f"v{i}": [] for i in range(6)}, dataset_name="thumos")
    for command in ("train", "check-data"):
        main(["-q", command, str(path), *(["--output", "x"] if command == "train" else [])])
        shown = "".join(capsys.readouterr())
        assert "num_classes: 0" not in shown and "no event" in shown, shown


def test_external_scores_by_name(run, tmp_path, capsys):
    """A list of names says which class each score is of; without it their number must be right."""
    scores = {"v4": [0.9, 0.1, 0.0], "v5": [0.0, 0.2, 0.8]}

    def fused(content):
        (tmp_path / "scores.json").write_text(json.dumps(content))
        raw = yaml.safe_load(run.config.read_text())
        raw["test_cfg"] |= {"ext_score_file": str(tmp_path / "scores.json"), "ext_score_topk": 1}
        (tmp_path / "fused.yaml").write_text(yaml.safe_dump(raw))
        return main(["-q", "eval", str(tmp_path / "fused.yaml"), str(run.folder_), "--weights", "raw"])

    def classes():
        results = json.loads((run.folder_ / "epoch_003_raw_detections.json").read_text())["results"]
        return {video: {e["label"] for e in found} for video, found in results.items()}

    assert fused({"results": scores}) == 0 and classes() == {"v4": {"carry"}, "v5": {"sit"}}
    assert fused({"class": ["sit", "carry", "run"], "results": scores}) == 0
    assert classes() == {"v4": {"sit"}, "v5": {"run"}}
    for content, words in (
        ({"results": {"v4": [0.1, 0.9], "v5": [0.5, 0.5]}}, "video 'v4' has 2 class scores, but there are 3 classes"),
        ({"class": ["sit", "carry", "swim"], "results": scores}, "names ['swim']"),
        ({"class": ["sit", "carry"], "results": scores}, "has 3 class scores, its list 'class' 2 names"),
        ({"class": ["sit", "sit", "run"], "results": scores}, "names ['sit'] more than once"),
    ):
        capsys.readouterr()
        assert fused(content) == 2
        assert words in capsys.readouterr().err


def test_thresholds_of_other_classes_are_not_used(run, caplog):
    config, checkpoint = load_config(run.config), run.folder_ / "epoch_003.pth.tar"
    from libs.inference.operating_point import choose_thresholds

    chosen = choose_thresholds(config, checkpoint, weights="raw")
    assert stored_thresholds(config, checkpoint, weights="raw") == chosen
    file = thresholds_file(checkpoint, "raw")
    content = json.loads(file.read_text())
    names = list(content["classes"])
    content["classes"] = {("swim" if name == names[0] else name): p for name, p in content["classes"].items()}
    file.write_text(json.dumps(content))
    with caplog.at_level(logging.INFO):
        assert stored_thresholds(config, checkpoint, weights="raw") is None
    assert "another set of classes" in caplog.text


def test_predictions_have_the_runs_names_whatever_the_file_says_now(run):
    def rename(database):
        for video in database.values():
            for found in video["annotations"]:
                found["label"] = found["label"].upper()

    config = load_config(run.other(rename))
    assert Predictor.from_checkpoint(run.folder_, config=config).names == dict(enumerate(NAMES))


def test_several_subsets_are_evaluated_whatever_their_order(run, capsys):
    def two(database):
        database["v5"]["subset"] = "extra"

    both = run.other(two, val_split=["test", "extra"])
    expected = run.evaluate(run.config).result
    for config in (both, run.other(two, "turned", val_split=["extra", "test"])):
        found = run.evaluate(config)
        assert found.result.mAP.tolist() == expected.mAP.tolist()
        assert found.result.counts["predictions_in_unknown_videos"] == 0 and found.result.counts["videos"] == 2
    assert "other test, extra (raw weights)" in capsys.readouterr().out
    (file,) = run.folder_.glob("epoch_003_raw_other-extra-test-*_ground_truth.json")
    truth = json.loads(file.read_text())["database"]
    assert {name: video["subset"] for name, video in truth.items()} == {"v4": "test", "v5": "extra"}


def test_results_on_other_data_stand_beside_the_runs_own(run):
    own = run.evaluate(run.config)
    before = {kind: path.read_bytes() for kind, path in own.files.items()}
    other = run.other(without_first_class)
    saved = evaluation.evaluate(load_config(other), run.folder_, weights="raw", save_only=True, progress=False)
    assert saved.files["detections"] != own.files["detections"]
    assert {kind: path.read_bytes() for kind, path in own.files.items()} == before
    from actionformer_nt.report.runs import gather

    run.evaluate(other)
    (page,) = gather([run.folder_])["runs"]
    assert len(page["evaluations"]) == 2 and all(found["curves"] for found in page["evaluations"])


def test_a_subset_that_is_not_there_is_told(run, tmp_path, capsys):
    config, folder, annotations = str(run.config), str(run.folder_), str(run.config.parent / "annotations.json")
    (tmp_path / "r.json").write_text(json.dumps({"results": {}}))
    for words in (
        ["train", config, "--output", "x", "--set", "train_split=[training, nope]"],
        ["eval", config, folder, "--set", "val_split=[test, nope]"],
        ["evaluate", str(tmp_path / "r.json"), "--annotations", annotations, "--split", "test", "nope"],
        ["splits", annotations, "--subset", "training", "--subset", "nope", "--out", str(tmp_path / "s.json")],
        ["predict", config, folder, str(run.features), "--fps", "30", "--threshold", "auto", "--labeled-split", "nope"],
    ):
        assert main(["-q", *words]) == 2, words
        assert "no video with subset in ['nope']" in capsys.readouterr().err
    command = ["evaluate", str(tmp_path / "r.json"), "--annotations", annotations]
    assert main([*command, "--split", "test", "--split", "training"]) == 0  # an option that is given twice adds up
    assert "annotations test, training" in capsys.readouterr().out


def test_thresholds_are_of_the_labels_that_they_were_chosen_on(run, capsys):
    arguments = ["predict", str(run.config), str(run.folder_), str(run.features), "--fps", "30", "--weights", "raw"]
    arguments += ["--threshold", "auto", "--formats", "csv", "--out", str(run.folder_ / "out")]
    for told in (True, False):
        assert main(arguments) == 0
        assert ("written to" in capsys.readouterr().err) == told
    annotations = run.config.parent / "annotations.json"
    content = json.loads(annotations.read_text())
    content["database"]["v4"]["annotations"].pop()  # a label is corrected
    annotations.write_text(json.dumps(content))
    assert main(arguments) == 0
    error = capsys.readouterr().err
    assert "made with another annotations and labeled videos" in error and "written to" in error


def test_resuming_into_another_folder_tells_of_other_data_too(run, tmp_path, caplog):
    def fewer(database):
        del database["v0"]

    config = run.other(fewer, opt={"epochs": 3})
    engine.train(load_config(config), tmp_path / "new", resume=run.folder_, progress=False)
    assert "number of training videos has changed since the last start: 4 then, 3 now" in caplog.text
    assert (tmp_path / "new" / "classes.json").read_bytes() == (run.folder_ / "classes.json").read_bytes()


def test_a_run_folder_without_its_classes_is_told(run, caplog):
    (run.folder_ / "classes.json").unlink()
    run.evaluate(run.config)
    assert "classes.json is missing: class names and ids of files cannot be compared" in caplog.text
    (run.folder_ / "classes.json").write_text("[]")
    with pytest.raises(ValueError, match=r"classes\.json: expected an object of class names and ids"):
        run.evaluate(run.config)


def test_a_run_that_never_came_to_a_checkpoint_does_not_bind_the_next(make_data, tmp_path):
    folder = tmp_path / "ckpt" / "tiny_x"
    folder.mkdir(parents=True)
    (folder / "classes.json").write_text('{"old": 0}')
    assert main(["-q", "train", str(make_data()), "--output", "x"]) == 0
    assert json.loads((folder / "classes.json").read_text()) == {"class0": 0, "class1": 1}


def test_one_class_for_all_and_scores_by_name(make_data, event, tmp_path, capsys):
    """A test file that lacks a class: names and order are those of training."""
    events = {f"v{i}": [event(1.0, 3.0, i % 3, NAMES[i % 3]), event(5.0, 7.0, 1, "run")] for i in range(6)}
    path = make_data(events, dataset_name="anet", dataset={"num_classes": 1}, test_cfg={"multiclass_nms": False})
    assert main(["-q", "train", str(path), "--output", "x"]) == 0
    annotations = path.parent / "annotations.json"
    content = json.loads(annotations.read_text())
    for video in content["database"].values():
        video["annotations"] = [e for e in video["annotations"] if e["label"] != "carry"]
        for found in video["annotations"]:
            del found["label_id"]
    annotations.write_text(json.dumps(content))
    scores = {"class": ["sit", "carry", "run"], "results": {"v4": [0.1, 0.9, 0.0], "v5": [0.8, 0.1, 0.1]}}
    for form in (
        scores,
        {"class": scores["class"], **scores["results"]},
        {"classes": scores["class"], **scores["results"]},
    ):
        (tmp_path / "scores.json").write_text(json.dumps(form))
        fused = ["--set", f"test_cfg.ext_score_file={tmp_path / 'scores.json'}", "--set", "test_cfg.ext_score_topk=1"]
        assert main(["-q", "eval", str(path), str(tmp_path / "ckpt" / "tiny_x"), *fused]) == 0
        results = json.loads((tmp_path / "ckpt" / "tiny_x" / "epoch_003_ema_detections.json").read_text())["results"]
        assert {(v, e["label"]) for v, found in results.items() for e in found} == {("v4", "carry"), ("v5", "sit")}
