import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actionformer_nt.spot.windows import Window, merge, windows
from libs.modeling.decode import Candidates


@settings(max_examples=200)
@given(st.integers(1, 500), st.integers(1, 64), st.floats(0, 0.95))
def test_windows_cover_the_video_and_overlap(length, steps, overlap):
    found = windows(length, steps, overlap)
    assert found[0].start == 0 and found[-1].start + found[-1].length == length
    assert all(w.length == min(steps, length) for w in found)
    for a, b in itertools.pairwise(found):
        assert 0 < b.start - a.start <= max(int(steps * (1 - overlap)), 1)


@settings(max_examples=100)
@given(st.integers(33, 120), st.integers(1, 16), st.data())
def test_what_fits_the_overlap_is_whole_in_some_window(length, span, data):
    start = data.draw(st.integers(0, length - span))
    assert any(w.start <= start and start + span <= w.start + w.length for w in windows(length, 32, 0.5))


def part(*ranges):
    n = len(ranges)
    return Candidates(torch.tensor(ranges).view(-1, 2) - 0.5, torch.ones(n), torch.zeros(n, dtype=torch.long))


def test_cut_candidates_are_dropped_where_the_neighbour_sees_more():
    found = [
        (Window(0, 20), part((0.0, 5.0), (15.0, 20.0), (4.0, 20.0))),  # the last is longer than the overlap
        (Window(10, 20), part((0.0, 8.0), (5.0, 12.0), (0.0, 15.0))),
    ]
    got = (merge(found).segments + 0.5).tolist()
    assert got == [[0, 5], [4, 20], [15, 22], [10, 25]]


def test_ends_of_the_video_are_no_cuts():
    found = [(Window(0, 20), part((0.0, 4.0))), (Window(10, 20), part((15.0, 20.0)))]
    assert (merge(found).segments + 0.5).tolist() == [[0, 4], [25, 30]]
    assert windows(20, 20, 0.5) == [Window(0, 20)]


def test_training_takes_no_longer_video(spot):
    model = spot.make_spot()
    with pytest.raises(ValueError, match="video 'long': 40 steps exceed max_seq_len=32"):
        model([spot.make_video(steps=40, name="long")])
    assert [len(b.index) for b in spot.make_spot(window_batch=2).eval().batches([spot.make_video(steps=90)])] == [
        2,
        2,
        1,
    ]
