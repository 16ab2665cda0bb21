import zipfile

import numpy as np
import pytest

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
