import json
import logging

import numpy as np
import pytest

from libs.datasets.annotations import duplicate_mask, read_annotations


def write(tmp_path, database, **extra):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"database": database, **extra}))
    return path


def entry(*events, subset="Training", **keys):
    return {"subset": subset, "duration": 10.0, "fps": 25, "annotations": list(events)} | keys


def test_reads_what_actionformer_reads(tmp_path):
    events = {"segment": [1, 2.5], "label": "run", "label_id": 4}
    path = write(tmp_path, {"a": entry(events, url="x"), "b": entry(subset="TEST"), "c": {"subset": "test"}})
    annotations = read_annotations(path)
    a, b, c = annotations.videos
    assert a.subset == "training" and a.events[0] == (1.0, 2.5, 4) and a.extra == {"url": "x"}
    assert b.events == c.events == () and c.fps is None and c.duration is None
    assert annotations.label_ids == {"run": 4}
    assert [v.id for v in annotations.of_subsets(["Test"])] == ["b", "c"]
    with pytest.raises(ValueError, match=r"validation.*\['test', 'training'\]"):
        annotations.of_subsets(["validation"])


def test_names_without_ids_are_numbered(tmp_path):
    database = {"a": entry({"segment": [0, 1], "label": "walk"}, {"segment": [0, 1], "label": "run"})}
    assert read_annotations(write(tmp_path, database)).label_ids == {"run": 0, "walk": 1}
    path = write(tmp_path, database, classes=["walk", "run", "sit"])
    assert read_annotations(path).label_ids == {"walk": 0, "run": 1, "sit": 2}
    assert [e.label_id for e in read_annotations(path).videos[0].events] == [0, 1]


GOOD = {"segment": [0, 1], "label": "run", "label_id": 0}


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"annotations": [GOOD | {"segment": [3, 2]}]}, ["ends before it starts", "[3, 2]"]),
        ({"annotations": [GOOD | {"segment": [3]}]}, ["[start, end]", "[3]"]),
        ({"annotations": [GOOD | {"segment": ["x", 2]}]}, ["not a number"]),
        ({"annotations": [GOOD | {"segment": [float("nan"), 2]}]}, ["not finite"]),
        ({"annotations": [{"segment": [0, 1]}]}, ["neither 'label' nor 'label_id'"]),
        ({"annotations": [GOOD | {"label_id": "0"}]}, ["label_id '0'"]),
        ({"annotations": [GOOD, GOOD | {"label_id": 1}]}, ["'run'", "1", "0"]),
        ({"annotations": ["x"]}, ["list of objects"]),
        ({"duration": -1}, ["duration", "-1"]),
        ({"duration": "long"}, ["duration", "long"]),
        ({"fps": 0}, ["fps"]),
    ],
)
def test_broken_videos_are_named(tmp_path, broken, words):
    path = write(tmp_path, {"fine": entry(GOOD), "v13": entry() | broken})
    with pytest.raises(ValueError) as error:
        read_annotations(path)
    for word in [str(path), "'v13'", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(("text", "word"), [("{", "broken JSON"), ("[1]", "database"), ('{"data": {}}', "database")])
def test_broken_files(tmp_path, text, word):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=word):
        read_annotations(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match=r"b\.json"):
        read_annotations(tmp_path / "b.json")


def test_odd_times_are_counted(tmp_path, caplog):
    times = [[2, 2], [11, 12], [8, 10.6], [9, 10.4], [-0.5, 3]]
    odd = [GOOD | {"segment": segment} for segment in times]
    with caplog.at_level(logging.WARNING):
        read_annotations(write(tmp_path, {"a": entry(*odd)}))
    assert "1 events have no length" in caplog.text and "2 events end more than 0.5 s past" in caplog.text
    assert "1 events start before" in caplog.text


def test_changes_of_a_file_are_seen(tmp_path):
    read_annotations(write(tmp_path, {"a": entry(GOOD)}))
    assert read_annotations(write(tmp_path, {"a": entry(GOOD), "b": entry(GOOD)})).videos[1].id == "b"


def test_duplicate_rule():
    start = np.array([0.0, 0.0005, 0.0, 0.0, 5.0, 0.0015])
    end = np.array([1.0, 1.0005, 1.0, 1.1, 5.0005, 1.0])
    label = np.array([0, 0, 1, 0, 0, 0])
    # within 1 ms of the first; another class; another end; too short; 1.5 ms from the first, the second is gone
    assert duplicate_mask(start, end, label).tolist() == [True, False, True, True, False, True]
