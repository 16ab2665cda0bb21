import json

import numpy as np
import pytest

from libs.datasets.annotations import read_annotations
from libs.evaluation.detections import (
    UNKNOWN_LABEL,
    as_detections,
    make_detections,
    read_results,
    write_ground_truth,
    write_results,
)


def test_written_detections_are_read_back_exactly(tmp_path):
    rng = np.random.default_rng(0)
    found = make_detections(
        ["a", "b", "a"], rng.uniform(size=3), 1 + rng.uniform(size=3), [0, 5, 9], rng.uniform(size=3).astype(np.float32)
    )
    write_results(tmp_path / "r.json", found, {0: "run", 5: "jump"}, note="x")
    again = read_results(tmp_path / "r.json", {"run": 0, "jump": 5, "9": 9})
    order = [0, 2, 1]  # grouped by video
    for a, b in zip(found, again, strict=True):
        np.testing.assert_array_equal(a[order], b)
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["note"] == "x" and content["results"]["b"][0]["label"] == "jump"
    assert list(tmp_path.iterdir()) == [tmp_path / "r.json"]


def test_names_numbers_and_unknown_names(tmp_path):
    entry = {"segment": [0, 1], "score": 0.5}
    results = {
        "a": [entry | {"label": "run"}, entry | {"label": 7}, entry | {"label": "sing"}, entry | {"label_id": 3}]
    }
    (tmp_path / "r.json").write_text(json.dumps({"results": results}))
    assert read_results(tmp_path / "r.json", {"run": 2}).label.tolist()[:3] == [2, 7, UNKNOWN_LABEL]
    assert read_results(tmp_path / "r.json", {"run": 2}).label[3] == 3


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "broken JSON"),
        ("[]", "results"),
        ('{"results": {"v7": [{"label": "x", "score": 1}]}}', "v7"),
        ('{"results": {"v7": [{"label": "x", "score": 1, "segment": [0]}]}}', "v7"),
        ('{"results": {"v7": null}}', "v7"),
        ('{"results": {"v7": [{"label": "x", "score": 1, "segment": [2, 1]}]}}', "v7.*ends before"),
        ('{"results": {"v7": [{"label": "x", "score": 1, "segment": [0, NaN]}]}}', "v7"),
    ],
)
def test_broken_result_files(tmp_path, content, word):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(ValueError, match=word):
        read_results(tmp_path / "r.json", {})


def test_missing_columns_are_named():
    with pytest.raises(ValueError, match="t-end"):
        as_detections({"video-id": [], "t-start": [], "label": [], "score": []})


def test_ground_truth_is_an_annotation_file(tmp_path, reference):
    """Sparse label ids, videos without events and duplicates included."""
    whole = read_annotations(reference / "eval0_annotations.json")
    videos = whole.of_subsets(["test"])
    write_ground_truth(tmp_path / "gt.json", videos, {i: name for name, i in whole.label_ids.items()})
    again = read_annotations(tmp_path / "gt.json")
    assert [(v.id, v.subset, v.duration, v.fps, v.events) for v in again.videos] == [
        (v.id, v.subset, v.duration, v.fps, v.events) for v in videos
    ]
    assert again.label_ids.items() <= whole.label_ids.items()
