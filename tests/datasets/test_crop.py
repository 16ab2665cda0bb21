import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.datasets.crop import random_crop


def slow_crop(num_steps, segments, offset, rng, max_seq_len, trunc_thresh, crop_ratio):
    """ActionFormer's rules, an event at a time."""
    if num_steps <= max_seq_len:
        if crop_ratio is None:
            return None
        length = rng.randint(max(round(crop_ratio[0] * num_steps), 1), min(round(crop_ratio[1] * num_steps), num_steps))
        if length == num_steps:
            return None
    else:
        length = max_seq_len
    for _ in range(200):
        start = rng.randint(0, num_steps - length)
        kept = []
        for n, (s, e) in enumerate(segments):
            low, high = max(start - offset, s), min(start + length + offset, e)
            if e != s and max(high - low, 0) / abs(e - s) >= trunc_thresh:
                kept.append((n, low - start, high - start))
        if kept:
            break
    return start, length, kept


@settings(max_examples=200)
@given(
    st.integers(4, 200),
    st.lists(st.tuples(st.integers(-2, 180), st.integers(0, 60)), min_size=1, max_size=6),
    st.integers(0, 10**6),
    st.sampled_from([None, (0.9, 1.0), (0.3, 0.7)]),
)
def test_equals_the_rules(num_steps, events, seed, crop_ratio):
    segments = np.array([(s, s + d) for s, d in events], np.float32)
    options = {"max_seq_len": 64, "trunc_thresh": 0.5, "crop_ratio": crop_ratio}
    found = random_crop(num_steps, segments, 0.5, random.Random(seed), **options)
    expected = slow_crop(num_steps, segments, 0.5, random.Random(seed), **options)
    if expected is None:
        assert found is None
        return
    start, length, kept = expected
    assert (found.start, found.length) == (start, length) and 0 <= start <= num_steps - length
    assert np.flatnonzero(found.kept).tolist() == [n for n, _, _ in kept]
    np.testing.assert_allclose(found.segments, np.array([k[1:] for k in kept]).reshape(-1, 2), atol=1e-4)


def test_a_video_without_events_is_cropped_too():
    crop = random_crop(
        100, np.zeros((0, 2), np.float32), 0.5, random.Random(0), max_seq_len=64, trunc_thresh=0.5, crop_ratio=None
    )
    assert crop.length == 64 and crop.segments.shape == (0, 2)
