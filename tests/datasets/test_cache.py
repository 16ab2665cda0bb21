import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from libs.datasets.cache import ArrayCache
from libs.datasets.features import FeatureFiles


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 5)), max_size=60))
def test_it_holds_what_was_used_last_and_never_more_than_its_size(calls):
    sizes, cache, slow = {}, ArrayCache(8 * 10), []  # `slow`: keys, the longest unused first
    for key, size in calls:
        size = sizes.setdefault(key, size)
        found = cache.get(str(key))
        assert (found is not None) == (key in slow)
        if found is None:
            cache.put(str(key), np.full(size, key, dtype=np.float64))
        else:
            assert (found == key).all() and not found.flags.writeable
        slow = [k for k in slow if k != key] + [key]
        while sum(sizes[k] for k in slow) > 10:
            slow.pop(0)
        assert cache.used == 8 * sum(sizes[k] for k in slow) <= 80


def test_an_array_that_is_too_large_displaces_nothing():
    cache = ArrayCache(80)
    cache.put("a", np.zeros(5))
    cache.put("b", np.zeros(11))
    assert cache.get("a") is not None and cache.get("b") is None


def test_features_are_read_from_disk_once(tmp_path):
    rows = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float16)
    for video in ("a", "b"):
        np.savez(tmp_path / f"{video}.npz", feats=rows)
    plain, cached = (FeatureFiles(str(tmp_path), ext=".npz", channels=6, cache_bytes=n) for n in (0, 600))
    for start, stop, step in ((0, None, 1), (3, 17, 1), (2, 39, 4)):
        assert np.array_equal(cached.read("a", start, stop, step), plain.read("a", start, stop, step))
        assert cached.read("a", start, stop, step).dtype == np.float32
    (tmp_path / "a.npz").unlink()
    assert np.array_equal(cached.read("a"), rows.astype(np.float32))  # 480 bytes, as on disk
    cached.read("b")  # displaces it
    np.savez(tmp_path / "a.npz", feats=rows + 1)
    assert np.array_equal(cached.read("a"), (rows + 1).astype(np.float32))
