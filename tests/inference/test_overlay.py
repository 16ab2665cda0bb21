"""Detections drawn into a video."""

import numpy as np
import pandas as pd
import pytest

from libs.inference.overlay import bar_of, draw
from libs.inference.timeline import class_color

TABLE = pd.DataFrame({
    "start": [2.0, 5.0], "end": [4.0, 6.0], "label": ["jump", "run"], "label_id": [0, 1], "score": [1.0, 0.5],
})  # fmt: skip


def rgb(label_id):
    return np.array([int(class_color(label_id)[k : k + 2], 16) for k in (1, 3, 5)])


def test_the_bar_has_every_detection_at_its_time():
    bar = bar_of(TABLE, duration=10.0, size=(90, 100))
    assert bar.shape == (6, 100, 3)
    assert (bar[:, 20:40] == rgb(0)).all(), "a score of 1 has the full colour"
    assert np.abs(bar[:, 50:60] - (0.6 * rgb(1) + 0.4 * 40)).max() <= 1
    for ground in (bar[:, :20], bar[:, 40:50], bar[:, 60:]):
        assert (ground == 40).all()


def test_a_better_detection_lies_over_a_worse_one():
    table = pd.DataFrame({
        "start": [0.0, 0.0], "end": [10.0, 10.0], "label": ["a", "b"], "label_id": [0, 1], "score": [1.0, 0.9],
    })  # fmt: skip
    assert (bar_of(table, duration=10.0, size=(90, 10)) == rgb(0)).all()


@pytest.mark.parametrize(("time", "named"), [(1.9, False), (2.0, True), (3.9, True), (4.0, False), (5.5, True)])
def test_detections_are_named_at_their_time(time, named):
    picture = np.full((90, 100, 3), 200, np.uint8)
    bar = bar_of(TABLE, duration=10.0, size=picture.shape[:2])
    draw(picture, TABLE, bar, time=time, duration=10.0)
    assert ((picture[:20] != 200).any()) == named
    assert (picture[20:84] == 200).all()
    mark = int(10 * time)
    assert (picture[84:, mark : mark + 2] == 255).all()
    bar[:, mark : mark + 2] = 255
    assert (picture[84:] == bar).all()


def test_a_video_without_detections():
    picture = np.full((90, 100, 3), 200, np.uint8)
    draw(picture, TABLE.iloc[:0], bar_of(TABLE.iloc[:0], duration=3.0, size=(90, 100)), time=3.0, duration=3.0)
    assert (picture[:84] == 200).all() and (picture[84:, :98] == 40).all()
