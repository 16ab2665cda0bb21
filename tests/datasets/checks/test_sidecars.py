"""`check-data` reads sidecars: what they say need not be typed, and what they contradict is found."""

import json
from dataclasses import replace

import numpy as np
import pytest

from libs.core import load_config
from libs.datasets.checks import check_data
from libs.datasets.sidecar import Sidecar

MADE = Sidecar(
    preset="s3d", weights="ab12", video="v.mp4", fps=30.0, frames=252, duration=8.4, window=16, stride=4, rows=60,
    channels=8, spatial="preset",
)  # fmt: skip


@pytest.fixture
def path(make_data):
    """A data set whose features have sidecars, and whose annotations have neither frame rates nor durations."""
    path = make_data(steps=60)
    for file in (path.parent / "features").glob("*.npy"):
        MADE.write(file.with_suffix(".json"))
    content = json.loads((path.parent / "annotations.json").read_text())
    for video in content["database"].values():
        del video["fps"], video["duration"]
    (path.parent / "annotations.json").write_text(json.dumps(content))
    return path


def checked(path, **options):
    return check_data(load_config(path), **options)


def places(check, kind):
    return dict(check.findings[kind].places)


def test_nothing_is_typed_twice(path):
    for options in ({}, {"features": False}):
        check = checked(path, **options)
        assert not check.findings.count("error"), check.format()
    assert checked(path).facts["features"].startswith("preset s3d, weights ab12, window 16, stride 4")
    (path.parent / "features" / "v1.json").unlink()
    assert places(checked(path), "no-fps").keys() == places(checked(path), "no-duration").keys() == {"v1"}


def test_contradictions_are_found_in_all_videos(path):
    features = path.parent / "features"
    replace(MADE, stride=8).write(features / "v0.json")
    replace(MADE, preset="r3d_18").write(features / "v1.json")
    (features / "v2.json").write_text(json.dumps({"format": 1, "preset": "s3d"}))
    check = checked(path)
    assert places(check, "sidecar").keys() == {"v0", "v2"}
    assert "feat_stride: 4, but 8" in places(check, "sidecar")["v0"] and "missing" in places(check, "sidecar")["v2"]
    assert "with" in next(iter(places(check, "mixed-features").values()))


def test_features_that_were_changed(path):
    np.save(path.parent / "features" / "v0.npy", np.zeros((50, 8), np.float32))
    assert places(checked(path), "sidecar-rows") == {"v0": "50 rows, but 60 in the sidecar"}


def test_events_after_the_end(path):
    content = json.loads((path.parent / "annotations.json").read_text())
    content["database"]["v0"]["annotations"].append({"segment": [7.0, 12.0], "label": "class0", "label_id": 0})
    (path.parent / "annotations.json").write_text(json.dumps(content))
    assert places(checked(path), "past-end") == {"v0": "[7, 12] ends 3.60 s after the video (8.4 s)"}
