"""Labels of every honest type, in ground truth and results: each case has the mAP that a reader expects."""

import json

import numpy as np
import pandas as pd
import pytest

from actionformer_nt.commands.main import main
from libs.datasets.annotations import read_annotations
from libs.datasets.labels import UNKNOWN_LABEL
from libs.evaluation.anet_detection import ANETdetection
from libs.evaluation.detections import as_detections, make_detections, read_results

TIMES = [[1.0, 3.0], [5.0, 8.0]]  # of the events of the first and the second class
NOT_THERE = object()


def annotate(path, labels, ids=(NOT_THERE, NOT_THERE), **top):
    """Two videos, in each an event of either class."""
    events = [
        {"segment": segment} | {key: value for key, value in (("label", a), ("label_id", b)) if value is not NOT_THERE}
        for segment, a, b in zip(TIMES, labels, ids, strict=True)
    ]
    database = {v: {"subset": "test", "duration": 9.0, "fps": 30, "annotations": events} for v in ("v1", "v2")}
    path.write_text(json.dumps(top | {"database": database}))
    return path


def detect(path, labels, ids=(NOT_THERE, NOT_THERE)):
    """Detections that lie on the events, of the given labels."""
    found = [
        {"segment": segment, "score": 0.9 - 0.1 * k}
        | {key: value for key, value in (("label", a), ("label_id", b)) if value is not NOT_THERE}
        for k, (segment, a, b) in enumerate(zip(TIMES, labels, ids, strict=True))
    ]
    path.write_text(json.dumps({"results": {"v1": found, "v2": found}}))
    return path


def average(tmp_path, truth, results):
    truth, results = annotate(tmp_path / "gt.json", *truth), detect(tmp_path / "r.json", *results)
    evaluator = ANETdetection(str(truth), "test")
    return 100 * evaluator.evaluate(str(results), verbose=False)[1]


NAMES = ("run", "jump")
RIGHT = {
    # name: (labels and ids of the ground truth, labels and ids of the results)
    "names": ((NAMES,), (NAMES,)),
    "integers name classes": (((1, 2),), ((1, 2),)),
    "integers against texts": (((1, 2),), (("1", "2"),)),
    "texts against integers": ((("1", "2"),), ((1, 2),)),
    "floats": (((0.0, 1.0),), ((0, 1),)),
    "floats against texts": (((0.0, 1.0),), (("0", "1"),)),
    "integers with ids of another order": (((1, 0), (0, 1)), ((1, 0),)),
    "integers that are ids": ((NAMES, (1, 0)), ((1, 0),)),
    "floats that are ids": ((NAMES, (1, 0)), ((1.0, 0.0),)),
    "numeric texts that are ids": ((NAMES, (1, 0)), (("1", "0"),)),
    "floats as label_id": ((NAMES, (1.0, 0.0)), (NAMES,)),
    "label_id beside an unknown name": ((NAMES, (1, 0)), (("running", "jumping"), (1, 0))),
    "label_id alone": ((NAMES, (1, 0)), ((NOT_THERE, NOT_THERE), (1, 0))),
    "label_id alone in both": (((NOT_THERE, NOT_THERE), (4, 2)), ((NOT_THERE, NOT_THERE), (4, 2))),
    "unnamed classes beside names": (((NOT_THERE, NOT_THERE), (1, 0)), (NAMES, (1, 0))),
    "a name is stronger than another file's id": ((NAMES,), (NAMES, (0, 1))),  # alphabetical: run 1, jump 0
    "ids in some events, names in others": ((("run", 0), (0, NOT_THERE)), (("run", "run"),)),
}


@pytest.mark.parametrize("case", RIGHT)
def test_labels_that_mean_the_classes(tmp_path, case):
    truth, results = RIGHT[case]
    expected = 100.0
    if case == "ids in some events, names in others":  # the second event is of class 0, too
        assert read_annotations(annotate(tmp_path / "a.json", *truth)).label_ids == {"run": 0}
    assert average(tmp_path, truth, results) == pytest.approx(expected)


WRONG = {  # half of the events are found, or none
    "an unknown name counts nowhere": ((NAMES, (1, 0)), (("run", "swim"),), 50.0),
    "an unknown name with another file's id": ((NAMES,), (("swim", "run"), (0, 1)), 0.0),
    "a negative id is no class": ((NAMES, (1, 0)), (("run", -1),), 50.0),
    "texts that Python would read as numbers": ((NAMES, (1, 0)), ((" 1 ", "0_0"),), 0.0),
    "numbers of another script": ((NAMES, (1, 0)), (("١", "1e0"),), 0.0),
    "a negative id beside an unknown name": ((NAMES, (1, 0)), (("run", "swim"), (1, -1)), 50.0),
}


@pytest.mark.parametrize("case", WRONG)
def test_labels_of_no_class(tmp_path, case):
    truth, results, expected = WRONG[case]
    assert average(tmp_path, truth, results) == pytest.approx(expected)


def test_an_unknown_name_does_not_meet_a_negative_id(tmp_path, capsys):
    truth = annotate(tmp_path / "gt.json", NAMES, (-1, 0))
    results = detect(tmp_path / "r.json", ("swim", "jump"))
    assert main(["evaluate", str(results), "--annotations", str(truth), "--split", "test"]) == 2
    error = capsys.readouterr().err
    assert "video 'v1'" in error and "label_id -1 is negative" in error
    with pytest.raises(ValueError, match="negative label id"):
        from libs.datasets.annotations import Event, Video
        from libs.evaluation.average_precision import ground_truth

        ground_truth([Video("v1", "test", 9.0, 30.0, (Event(1.0, 2.0, -1),))])


@pytest.mark.parametrize("label", [["run"], {"name": "run"}, True, None])
def test_labels_that_are_no_labels(tmp_path, capsys, label):
    good_truth = annotate(tmp_path / "gt.json", NAMES)
    good_results = detect(tmp_path / "r.json", NAMES)
    bad_truth = annotate(tmp_path / "bad_gt.json", ("run", label))
    bad_results = detect(tmp_path / "bad_r.json", ("run", label))
    for truth, results in ((bad_truth, good_results), (good_truth, bad_results)):
        assert main(["evaluate", str(results), "--annotations", str(truth), "--split", "test"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "'v1'" in line


def test_contradictions_are_named(tmp_path):
    for labels, ids, classes, word in (
        (("run", "run"), (0, 1), None, r"label 'run' has label_id 1, but 0 elsewhere"),
        (("run", "swim"), (0, NOT_THERE), None, r"no label_id for the labels \['swim'\]"),
        (("run", "jump"), (NOT_THERE, NOT_THERE), ["run"], r"labels \['jump'\] are not in the file's list 'classes'"),
        (("run", "jump"), (NOT_THERE, NOT_THERE), ["run", "run", "jump"], r"names \['run'\] more than once"),
    ):
        with pytest.raises(ValueError, match=word):
            read_annotations(annotate(tmp_path / "gt.json", labels, ids, **({"classes": classes} if classes else {})))


def test_columns_of_names_and_numbers():
    columns = {"video-id": ["a", "a"], "t-start": [0, 1], "t-end": [1, 2], "score": [0.5, 0.4]}
    ids = {"run": 3, "7": 5}
    for label, expected in (
        (["run", "swim"], [3, UNKNOWN_LABEL]),
        (np.array([3, 7]), [3, 7]),  # a model's numbers are ids
        (np.array([3.0, 2.0]), [3, 2]),
        (["7", 7], [5, 5]),
    ):
        for form in (columns | {"label": label}, pd.DataFrame(columns | {"label": label})):
            assert as_detections(form, ids).label.tolist() == expected
    with pytest.raises(ValueError, match="label nan"):
        as_detections(columns | {"label": [np.nan, 1.0]}, ids)


def test_result_tables(tmp_path):
    """Our own columns, ActionFormer's, and ids alone; ids of videos stay text."""
    expected = make_detections(["0301", "b,c"], [0.5, 1.25], [2.0, 3.0], [4, 2], [0.75, 0.5])
    ids = {"run": 4, "jump": 2}
    for text in (
        'video,start,end,label,label_id,score\n0301,0.5,2,run,0,.75\n"b,c",1.25,3,jump,1,0.5\n',
        'video-id,t-start,t-end,label,score\n0301,0.5,2,run,.75\n"b,c",1.25,3,jump,0.5\n',
        'video-id,t-start,t-end,label,score\n0301,0.5,2,4,.75\n"b,c",1.25,3,2.0,0.5\n',
        'score,video_id,label_id,t-end,t-start\n.75,0301,4,2,0.5\n.5,"b,c",2,3,1.25\n',
    ):
        (tmp_path / "r.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
        for a, b in zip(read_results(tmp_path / "r.csv", ids, {2, 4}), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    (tmp_path / "r.tsv").write_text("video\tstart\tend\tlabel\tscore\n0301\t0.5\t2\trun\t.75\n")
    assert read_results(tmp_path / "r.tsv", ids).video_id.tolist() == ["0301"]
    for text, word in (
        ("video,start,end,score\n", r"columns \['label'\] are missing"),
        ("video,start,end,label,score\na,0,x,run,1\n", r"line 2: end 'x' is not a number"),
        ("video,start,end,label,score\na,0,1,run,1\na,3,2,run,1\n", r"line 3: the detection ends before"),
        ("", "not a table"),
    ):
        (tmp_path / "r.csv").write_text(text)
        with pytest.raises(ValueError, match=word):
            read_results(tmp_path / "r.csv", ids)
    with pytest.raises(ValueError, match=r"python -c .*import pickle, pandas.*to_csv"):
        read_results(tmp_path / "eval_results.pkl", ids)


def test_the_one_line_that_converts_a_pickle_does(tmp_path, monkeypatch):
    import pickle
    import re
    import subprocess
    import sys

    found = {"video-id": ["a"], "t-start": np.array([0.5]), "t-end": np.array([2.0]), "label": np.array([4])}
    (tmp_path / "eval_results.pkl").write_bytes(pickle.dumps(found | {"score": np.array([0.75])}))
    with pytest.raises(ValueError) as error:
        read_results(tmp_path / "eval_results.pkl", {})
    command = re.search(r"python (-c .*)", str(error.value))[1]
    subprocess.run(["bash", "-c", f"{sys.executable} {command}"], cwd=tmp_path, check=True)
    assert read_results(tmp_path / "results.csv", {}).label.tolist() == [4]


def test_videos_that_nobody_has_annotated(tmp_path):
    path = annotate(tmp_path / "gt.json", NAMES)
    content = json.loads(path.read_text())
    content["database"]["v2"]["labeled"] = False
    path.write_text(json.dumps(content))
    annotations = read_annotations(path)
    assert [(v.labeled, len(v.events)) for v in annotations.videos] == [(True, 2), (False, 0)]
    detect(tmp_path / "r.json", NAMES)
    evaluator = ANETdetection(str(path), "test")
    assert evaluator.evaluate(str(tmp_path / "r.json"), verbose=False)[1] == pytest.approx(1.0)
    assert evaluator.result.counts["videos"] == 1 and evaluator.result.counts["predictions"] == 2
    content["database"]["v2"]["labeled"] = "no"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"video 'v2': labeled 'no': expected true or false"):
        read_annotations(path)


@pytest.mark.parametrize("key", ["actions", "events"])
def test_events_under_another_key(tmp_path, key):
    path = annotate(tmp_path / "gt.json", NAMES)
    content = json.loads(path.read_text())
    content["database"]["v2"][key] = content["database"]["v2"].pop("annotations")
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"video 'v2': no 'annotations', but events under \['{key}'\]"):
        read_annotations(path)


def test_several_subsets(tmp_path):
    path = annotate(tmp_path / "gt.json", NAMES)
    content = json.loads(path.read_text())
    content["database"]["v2"]["subset"] = "extra"
    path.write_text(json.dumps(content))
    detect(tmp_path / "r.json", NAMES)
    for subsets in (["test", "extra"], ["extra", "Test"]):
        evaluator = ANETdetection(str(path), subsets)
        assert evaluator.evaluate(str(tmp_path / "r.json"), verbose=False)[1] == pytest.approx(1.0)
    one = ANETdetection(str(path), "test")
    one.evaluate(str(tmp_path / "r.json"), verbose=False)
    assert one.result.counts["predictions_in_unknown_videos"] == 2
