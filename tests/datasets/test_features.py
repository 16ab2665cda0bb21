import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.datasets.features import FeatureFiles


@pytest.fixture
def rows():
    return np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)


def write(folder, name, rows):
    folder.mkdir(exist_ok=True)
    if name.endswith(".npz"):
        np.savez(folder / name, feats=rows, other=1)
    elif name.endswith(".csv"):
        np.savetxt(
            folder / name, rows, fmt="%.9g", delimiter=",", header="rgb-0,rgb-1,rgb-2,flow-0,flow-1,flow-2", comments=""
        )
    else:
        np.save(folder / name, rows)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("ext", [".npy", ".npz", ".csv", ".hdf5"])
def test_formats_read_alike(tmp_path, rows, ext, dtype):
    rows = rows.astype(dtype)
    folder = tmp_path / "f"
    if ext == ".hdf5":
        h5py = pytest.importorskip("h5py")
        folder = tmp_path / "all.hdf5"
        with h5py.File(folder, "w") as file:
            file["p_v1"] = rows
    else:
        write(folder, f"p_v1{ext}", rows)
    features = FeatureFiles(str(folder), prefix="p_", ext=ext, channels=6)
    assert features.exists("v1") and not features.exists("v2") and features.length("v1") == 40
    for start, stop, step in ((0, None, 1), (3, 17, 1), (2, 39, 4)):
        found = features.read("v1", start, stop, step)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, rows[start:stop:step].astype(np.float32))
    with pytest.raises(FileNotFoundError, match="v2"):
        features.read("v2")


def test_folders_are_concatenated_and_cut_to_the_shortest(tmp_path, rows):
    write(tmp_path / "a", "v.npy", rows[:, :4])
    write(tmp_path / "b", "v.npy", rows[:38, 4:])
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    for channels in ([4, 2], 6):
        features = FeatureFiles(folders, prefix=None, channels=channels)
        assert features.length("v") == 38
        np.testing.assert_array_equal(features.read("v", 1, None, 2), rows[1:38:2])
    write(tmp_path / "b", "v.npy", rows[:30, 4:])
    with pytest.raises(ValueError, match=r"disagree.*40 steps.*30 steps"):
        features.length("v")
    with pytest.raises(ValueError, match=r"2 channels.*expected 5"):
        FeatureFiles(folders, prefix=None, channels=[4, 5]).read("v")


def test_bad_files_are_named(tmp_path, rows):
    features = FeatureFiles(str(tmp_path), prefix=None, channels=6)
    write(tmp_path, "swapped.npy", rows.T)
    write(tmp_path, "narrow.npy", rows[:, :5])
    write(tmp_path, "flat.npy", rows[0])
    write(tmp_path, "empty.npy", rows[:0])
    write(tmp_path, "text.npy", np.array([["a"] * 6] * 4))
    bad = rows.copy()
    bad[7, 2] = np.nan
    write(tmp_path, "nan.npy", bad)
    write(tmp_path, "good.npy", rows)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:-100])
    (tmp_path / "noise.npy").write_bytes(b"not numpy at all")
    for name, word in (
        ("swapped", "look swapped"),
        ("narrow", r"5 channels \(shape \(40, 5\)\), expected 6"),
        ("flat", r"\(T, C\)"),
        ("empty", r"\(T, C\)"),
        ("text", "numbers"),
        ("nan", "not finite, first in row 7"),
        ("cut", "damaged"),
        ("noise", "damaged"),
    ):
        with pytest.raises(ValueError, match=rf"{name}\.npy.*{word}"):
            features.read(name)
    assert features.read("nan", 8, 20).shape == (12, 6)  # only what is read is checked


def test_bad_archives(tmp_path, rows):
    features = FeatureFiles(str(tmp_path), prefix=None, ext=".npz", channels=6)
    np.savez(tmp_path / "other.npz", rgb=rows, flow=rows)
    (tmp_path / "noise.npz").write_bytes(b"PK?")
    with zipfile.ZipFile(tmp_path / "odd.npz", "w") as archive:
        archive.writestr("feats.npy", b"nothing")
    for name in ("other", "noise", "odd"):
        for read in (features.read, features.length):
            with pytest.raises(ValueError, match=rf"{name}\.npz"):
                read(name)


def test_bad_places(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        FeatureFiles(str(tmp_path / "nowhere"), channels=6)
    with pytest.raises(ValueError, match=r"\.pkl"):
        FeatureFiles(str(tmp_path), ext=".pkl", channels=6)
    (tmp_path / "noise.hdf5").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"noise\.hdf5: damaged"):
        FeatureFiles(str(tmp_path / "noise.hdf5"), channels=6).exists("v")
    with pytest.raises(FileNotFoundError, match=r"none\.hdf5"):
        FeatureFiles(str(tmp_path / "none.hdf5"), channels=6).exists("v")


class Recorder(FeatureFiles):
    """Videos of one channel and `sizes[video]` steps (4 bytes each), all with the video's number plus .1; `asked` holds
    the videos that were read from disk."""

    def __init__(self, sizes, *, cache_bytes):
        super().__init__(str(Path(__file__).parent), channels=1, cache_bytes=cache_bytes)
        self.sizes, self.asked = sizes, []

    def _read(self, video_id, start, stop, step):
        self.asked.append(video_id)
        return np.full((self.sizes[video_id], 1), int(video_id) + 0.1, dtype=np.float32)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 5)), max_size=60))
def test_it_holds_what_was_used_last_and_never_more_than_its_size(calls):
    sizes, slow = {}, []  # `slow`: videos, the longest unused first
    files = Recorder(sizes, cache_bytes=4 * 10)
    for number, size in calls:
        video = str(number)
        sizes.setdefault(video, size)
        before = len(files.asked)
        feats = files.read(video)
        assert (len(files.asked) == before) == (video in slow)
        assert feats.shape == (sizes[video], 1) and np.allclose(feats, number + 0.1) and not feats.flags.writeable
        slow = [v for v in slow if v != video] + [video]
        while sum(sizes[v] for v in slow) > 10:
            slow.pop(0)
        assert files.cache.currsize == 4 * sum(sizes[v] for v in slow) <= 40


def test_an_array_that_is_too_large_displaces_nothing():
    files = Recorder({"0": 5, "1": 11}, cache_bytes=4 * 10)
    for video in ("0", "1", "0", "1"):
        files.read(video)
    assert files.asked == ["0", "1", "1"] and list(files.cache) == ["0"]


def test_a_cache_travels_to_another_process(tmp_path, rows):
    write(tmp_path, "v.npy", rows)
    files = FeatureFiles(str(tmp_path), channels=6, cache_bytes=2 * rows.nbytes)
    files.read("v")
    (tmp_path / "v.npy").unlink()
    assert np.array_equal(pickle.loads(pickle.dumps(files)).read("v"), rows)


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
