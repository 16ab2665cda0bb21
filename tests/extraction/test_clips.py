"""Clips against a slow version."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from libs.extraction.clips import batches, clips, rows


@given(st.integers(0, 40), st.integers(1, 9), st.integers(1, 12))
def test_clips_against_slices(count, window, stride):
    video = torch.arange(count)
    taken = []

    def frames():
        for frame in video:
            taken.append(int(frame))
            yield frame

    found = [clip.tolist() for clip in clips(frames(), window=window, stride=stride)]
    if 0 < count < window:
        assert found == [[*range(count), *[count - 1] * (window - count)]]
    else:
        assert found == [list(range(a, a + window)) for a in range(0, count - window + 1, stride)]
    assert len(found) == rows(count, window, stride)
    assert taken == list(range(count)), "every frame is taken once"


def test_no_more_than_a_clip_is_kept():
    alive = []

    def frames():
        for k in range(1000):
            alive.append(k)
            yield torch.full((2,), k)

    stream = clips(frames(), window=8, stride=2)
    for k, clip in enumerate(stream):
        assert len(alive) == 8 + 2 * k and clip[0, 0] == 2 * k


def test_batches():
    assert [b.tolist() for b in batches(map(torch.tensor, range(5)), 2)] == [[0, 1], [2, 3], [4]]
