"""Nothing to learn or to measure is not success: check-data ends with 4, training and evaluation with 2."""

import json

import numpy as np
import pytest

from actionformer_nt.commands.main import main
from actionformer_nt.protocol.splits import write_splits
from libs.core import load_config
from libs.datasets.annotations import read_annotations
from libs.datasets.checks import check_data


def change(path, edit):
    annotations = path.parent / "annotations.json"
    content = json.loads(annotations.read_text())
    edit(content["database"])
    annotations.write_text(json.dumps(content))


def other_key(database):
    for name in ("v0", "v1", "v4"):
        database[name]["actions"] = database[name].pop("annotations")


def no_training_event(database):
    for video in database.values():
        video["annotations"] = [] if video["subset"] == "training" else video["annotations"]


def points(database):
    for video in database.values():
        for event in video["annotations"]:
            event["segment"] = [event["segment"][0]] * 2


def no_test_event(database):
    for video in database.values():
        video["annotations"] = [] if video["subset"] == "test" else video["annotations"]


CASES = {  # fault: (check, where, words of the check, words of train, words of eval)
    other_key: ("other-key", "v0", "under ['actions']", "'v0': no 'annotations', but events under ['actions']", None),
    no_training_event: ("nothing-to-learn", "train_split", "no event in 4", "the 4 training videos", None),
    points: (
        "nothing-to-learn",
        "train_split",
        "8 events, none of which has a length",
        "8 events, none of",
        "no event",
    ),
    no_test_event: ("nothing-to-evaluate", "val_split", "no event in 2", None, "holds no event in 2 labeled videos"),
}


@pytest.mark.parametrize("fault", CASES, ids=lambda f: f.__name__)
def test_supervised(make_data, tmp_path, capsys, fault):
    check, where, words, trained, evaluated = CASES[fault]
    path = make_data()
    assert main(["-q", "train", str(path), "--output", "good"]) == 0
    change(path, fault)
    report = check_data(load_config(path))
    assert (where, words) in [(p, w if words not in w else words) for p, w in report.findings[check].places]
    assert main(["-q", "check-data", str(path)]) == 4
    capsys.readouterr()
    assert main(["-q", "train", str(path), "--output", "x"]) == (0 if trained is None else 2)
    assert trained is None or trained in capsys.readouterr().err
    if evaluated:
        assert main(["-q", "eval", str(path), str(tmp_path / "ckpt" / "tiny_good")]) == 2
        assert evaluated in capsys.readouterr().err
    if fault is other_key:
        assert [p for p, _ in report.findings[check].places] == ["v0", "v1", "v4"]


def test_percentages_are_true(make_data):
    path = make_data()
    change(path, points)
    assert check_data(load_config(path)).facts["events shorter than two grid steps"] == "100 %"
    lengths = np.append(np.full(399, 300), 389)
    from libs.datasets.checks.pyramid import percent

    assert percent(np.mean(lengths <= 384)) == "99.8 %" and percent(0.9999) == "99.9 %" and percent(1.0) == "100 %"
    assert percent(0.00901) == "0.9 %" and percent(0.0001) == "0.1 %" and percent(0.0) == "0 %"


@pytest.fixture
def semi(make_semi, tmp_path):
    """A semi-supervised configuration, and its labeled videos."""
    path = make_semi()
    labeled = json.loads((tmp_path / "semi_split.json").read_text())["orders"][0][:2]
    return path, labeled


def test_the_semi_supervised_part_is_checked(make_data, tmp_path, capsys):
    events = {f"v{i}": [{"segment": [1.0, 3.0], "label": f"class{i % 2}", "label_id": i % 2}] for i in range(10)}
    subsets = {f"v{i}": "training" if i < 8 else "test" for i in range(10)}
    split = tmp_path / "split.json"

    def check(edit=None, listing=None, semi=None, **sections):
        section = {"split": {"file": str(split)}, "method": "nt", "burn_in": 2, "iterations": 2} | (semi or {})
        path = make_data(
            events, subsets=subsets, plugins=["actionformer_nt"],
            **{"train_cfg": {"ema_ramp": True}, "semi_cfg": section, **sections},
        )  # fmt: skip
        from actionformer_nt.protocol.splits import published_split

        annotations = read_annotations(path.parent / "annotations.json")
        labeled = {"labeled": listing or ["v0", "v1"]}
        write_splits(split, published_split(annotations, ["training"], labeled, "list"))
        if edit:
            change(path, edit)
        capsys.readouterr()
        status = main(["-q", "check-data", str(path)])
        return status, capsys.readouterr().out, path

    assert check()[0] == 0
    status, shown, path = check(lambda d: [d[v].update(annotations=[]) for v in ("v0", "v1")])
    assert status == 4 and "nothing-to-learn" in shown and "no event in the 2 labeled videos" in shown
    assert main(["-q", "train", str(path), "--output", "x"]) == 2
    assert "nothing to learn: the 2 labeled videos" in capsys.readouterr().err
    for edit, options, words in (
        (None, {"listing": ["v0", "v2"]}, ["class-not-labeled", "class1"]),
        (None, {"train_cfg": {"ema_ramp": False}}, ["semi-cfg", "ema_ramp must be true"]),
        (None, {"semi": {"split": {"file": str(split), "ratio": 0.5}}}, ["split", "a list of 2"]),
        (None, {"semi": {"split": {"file": "nowhere.json"}}}, ["split", "nowhere.json"]),
        (None, {"listing": [f"v{i}" for i in range(8)]}, ["no unlabeled video"]),
        (lambda d: d.pop("v7"), {}, ["split", "names 1 videos", "'v7'"]),
        (lambda d: d["v7"].update(subset="test"), {}, ["split", "not in train_split", "'v7'"]),
        (None, {"val_split": ["training"]}, ["trained-and-tested", "8 videos of the split"]),
    ):
        status, shown, _ = check(edit, **options)
        assert all(word in shown for word in words), shown
        assert status == (0 if words[0] in ("class-not-labeled", "trained-and-tested") else 4)


def test_marks_are_announced(make_data, capsys):
    path = make_data()
    change(path, lambda d: [d[v].update(labeled=False) for v in ("v0", "v1")])
    change(path, lambda d: d["v0"].update(annotations=[]))
    assert main(["-q", "check-data", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "labeled: false (training)" in shown and "left out of supervised training" in shown
    assert "labeled: false, but 2 events, which are not read" in shown


def test_labels_of_any_type_are_checked_as_they_are_read(make_data, event):
    path = make_data()
    for label, kind in (([1], "label-type"), ({"a": 1}, "label-type"), (True, "label-type")):
        change(path, lambda d, label=label: d["v1"]["annotations"][0].update(label=label))
        assert kind in check_data(load_config(path)).findings
    change(path, lambda d: d["v1"]["annotations"][0].update(label=1, label_id=None))  # the id of class1
    report = check_data(load_config(path))
    assert not report.findings.count("error"), report.format()
    change(path, lambda d: d["v1"]["annotations"][0].update(label="class1", label_id=-1))
    assert "label_id -1 is negative" in check_data(load_config(path)).findings["label-id"].places[0][1]


def test_names_that_are_nearly_the_same(make_data, event):
    names = ["pour_water", "pour_waters", "Pour Water", "walk1", "walk2", "polo", "pool", "Curling", "Hurling"]
    events = {f"v{i}": [event(1.0, 3.0, k, name) for k, name in enumerate(names)] for i in range(6)}
    for i in range(1, 6):  # the misspelled one is rare
        events[f"v{i}"][1] = event(1.0, 3.0, 0, "pour_water")
    report = check_data(load_config(make_data(events, dataset={"num_classes": len(names)})))
    places = dict(report.findings["similar-labels"].places)
    assert set(places) == {"pour_waters", "Pour Water"}
    assert "'pour_waters' (1 in train_split, 0 in val_split)" in places["pour_waters"]


@pytest.mark.parametrize(("true", "stated"), [(25.0, 30.0), (24.0, 30.0), (12.5, 25.0)])
def test_a_wrong_frame_rate_that_made_the_durations_too(make_data, event, true, stated):
    """Videos of 9 s: features and stated duration agree, since both count frames, but the events do not fit."""
    seconds = 30.0
    steps = int((seconds * true - 16) // 4) + 1
    events = {f"v{i}": [event(0.5 + i, 3.0 + i, i % 2), event(20.0, seconds - 0.2 * i, 1)] for i in range(6)}
    path = make_data(events, steps=steps)
    change(path, lambda d: [v.update(fps=stated, duration=seconds * true / stated) for v in d.values()])
    report = check_data(load_config(path))
    finding = report.findings["frame-rate"]
    assert finding.level == "error" and f"at {true:g} frames per second all events" in finding.advice
    change(path, lambda d: [v.update(fps=true, duration=seconds) for v in d.values()])
    assert "frame-rate" not in check_data(load_config(path)).findings


def test_events_outside_the_features(make_data, capsys):
    path = make_data()

    def away(database):
        for video in database.values():
            for found in video["annotations"]:
                found["segment"] = [t * 30 + 100 for t in found["segment"]]

    change(path, away)
    assert main(["-q", "check-data", str(path)]) == 4
    assert "all 8 events lie outside the features" in capsys.readouterr().out
    assert main(["-q", "train", str(path), "--output", "x"]) == 2
    assert "8 events, all outside the features of their videos" in capsys.readouterr().err


@pytest.mark.parametrize(
    "entry",
    [
        {"annotations": [], "actions": [{"segment": [1, 2], "label": "class0"}]},
        {"events": [{"start": 1, "end": 2, "label": "class0"}]},
        {"annotations": {}}, {"annotations": ""}, {"annotations": 0}, {"subset": 3}, {"subset": None},
    ],
    ids=str,
)  # fmt: skip
def test_entries_that_only_look_empty(make_data, capsys, entry):
    path = make_data()

    def edit(database):
        if "annotations" not in entry:
            del database["v1"]["annotations"]
        database["v1"].update(entry)

    change(path, edit)
    assert main(["-q", "check-data", str(path)]) == 4
    capsys.readouterr()
    assert main(["-q", "train", str(path), "--output", "x"]) == 2
    assert "'v1'" in capsys.readouterr().err


def test_proposals_beside_no_annotations_are_no_events(make_data):
    path = make_data()
    change(path, lambda d: d["v1"].update(annotations=[], proposals=[{"segment": [1, 2], "score": 0.5}]))
    assert main(["-q", "train", str(path), "--output", "x"]) == 0


@pytest.mark.parametrize("text", ["null", '{"database": {}}', "[" * 100_000, '{"database": {"v0": null}}'])
def test_files_without_a_video(make_data, text, capsys):
    path = make_data()
    (path.parent / "annotations.json").write_text(text)
    assert main(["-q", "check-data", str(path)]) == 4
    assert main(["-q", "train", str(path), "--output", "x"]) == 2


ODD = [None, True, 0, -1, 3.5, 10**400, 10**25, "", "x", "0", [], [1], {}, {"a": 1}, float("nan"), float("inf")]


def test_whatever_stands_in_a_file_is_told_in_one_line(make_data, tmp_path, capsys):
    """Every value of a file in turn by something odd: never a traceback."""
    path = make_data({f"v{i}": [{"segment": [1.0, 3.0], "label": f"c{i % 2}", "label_id": i % 2}] for i in range(6)})
    annotations = path.parent / "annotations.json"
    whole = json.loads(annotations.read_text())
    results = {v: [{"segment": [1.0, 3.0], "label": "c0", "label_id": 0, "score": 0.5}] for v in ("v4", "v5")}
    places = [("database",), ("database", "v1"), ("database", "v1", "annotations", 0)]
    places += [("database", "v1", key) for key in ("subset", "duration", "fps", "labeled", "annotations")]
    places += [("database", "v1", "annotations", 0, key) for key in ("segment", "label", "label_id")]
    places += [("database", "v1", "annotations", 0, "segment", 1), ("classes",)]
    evaluate = ["evaluate", str(tmp_path / "r.json"), "--annotations", str(annotations), "--split", "test"]
    (tmp_path / "r.json").write_text(json.dumps({"results": results}))
    for place in places:
        for value in ODD:
            annotations.write_text(json.dumps(put(whole, place, value)))
            for words, statuses in ((["check-data", str(path)], (0, 4)), (evaluate, (0, 2))):
                assert main(["-q", *words]) in statuses, (place, value, words)
            capsys.readouterr()
    annotations.write_text(json.dumps(whole))
    places = [("results",), ("results", "v4"), ("results", "v4", 0), ("results", "v4", 0, "segment", 0)]
    places += [("results", "v4", 0, key) for key in ("segment", "label", "label_id", "score")]
    for place in places:
        for value in ODD:
            (tmp_path / "r.json").write_text(json.dumps(put({"results": results}, place, value)))
            capsys.readouterr()
            status = main(["-q", *evaluate])
            assert status in (0, 2), (place, value)
            assert status == 0 or "r.json" in capsys.readouterr().err, (place, value)


def put(content, place, value):
    """A copy of nested content with another value in one place."""
    content = json.loads(json.dumps(content))
    part = content
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return content
