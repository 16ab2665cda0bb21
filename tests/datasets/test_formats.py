"""Feature files as people have them: each is read to the right rows, or the message says what to do."""

import json

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from actionformer_nt.commands.main import main
from libs.datasets.features import FeatureFiles
from libs.inference.unannotated import find_features


@pytest.fixture
def rows():
    return np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)


def read(folder, ext, **options):
    files = FeatureFiles(str(folder), ext=ext, channels=3, **options)
    found = files.read("v")
    assert files.length("v") == len(found) and files.shape("v") == found.shape  # the header says the same
    return found


@pytest.mark.parametrize("ending", [".mp4.npy", "-rgb.npz", ".mp4.csv", "_x.pt"])
def test_the_end_of_the_ending_decides_the_format(tmp_path, rows, ending):
    path = tmp_path / f"v{ending}"
    if ending.endswith(".npy"):
        np.save(path, rows)
    elif ending.endswith(".npz"):
        np.savez(path, feats=rows)
    elif ending.endswith(".csv"):
        pd.DataFrame(rows).to_csv(path, index=False, header=False)
    else:
        torch.save(torch.from_numpy(rows), path)
    np.testing.assert_allclose(read(tmp_path, ending), rows, rtol=1e-6)
    for given in (path, tmp_path):
        found = find_features([given], channels=3, ext=ending)
        assert list(found) == ["v"]
        np.testing.assert_allclose(found["v"].read(), rows, rtol=1e-6)


def test_archives_by_another_key(tmp_path, rows):
    np.savez(tmp_path / "v.npz", i3d=rows)
    np.testing.assert_array_equal(read(tmp_path, ".npz"), rows)
    np.savez(tmp_path / "v.npz", rgb=rows, flow=rows)
    files = FeatureFiles(str(tmp_path), ext=".npz", channels=3)
    for look in (files.read, files.length):
        with pytest.raises(ValueError, match=r"v\.npz: it holds the arrays \['rgb', 'flow'\]; expected one"):
            look("v")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_tensors(tmp_path, rows, dtype):
    tensor = torch.from_numpy(rows).to(dtype)
    for content in (tensor, {"any": tensor}, {"feats": tensor, "mean": tensor[0]}, tensor.requires_grad_()):
        torch.save(content, tmp_path / "v.pt")
        np.testing.assert_array_equal(read(tmp_path, ".pt"), tensor.detach().float().numpy())
    torch.save({"rgb": tensor, "flow": tensor}, tmp_path / "v.pt")
    with pytest.raises(ValueError, match=r"v\.pt: it holds the arrays \['rgb', 'flow'\]"):
        read(tmp_path, ".pt")
    torch.save([rows.tolist()], tmp_path / "v.pt")
    with pytest.raises(ValueError, match=r"v\.pt: .*holds a list; expected a tensor"):
        read(tmp_path, ".pt")


def test_a_tensor_file_runs_no_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    torch.save(Bomb(), tmp_path / "v.pt")
    with pytest.raises(ValueError, match=r"v\.pt"):
        read(tmp_path, ".pt")
    assert not (tmp_path / "exploded").exists()


def test_tables_with_and_without_a_header(tmp_path, rows):
    for options in ({"header": False}, {"header": ["a", "b", "c"]}, {}, {"header": ['"x,y"', "b", "c"]}):
        pd.DataFrame(rows).to_csv(tmp_path / "v.csv", index=False, **options)
        np.testing.assert_allclose(read(tmp_path, ".csv"), rows, rtol=1e-6, err_msg=str(options))
    text = (tmp_path / "v.csv").read_text().split("\n", 1)[1]
    (tmp_path / "v.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())  # a mark before the first number
    np.testing.assert_allclose(read(tmp_path, ".csv"), rows, rtol=1e-6)


def test_hdf5_by_either_ending_and_in_groups(tmp_path, rows):
    for name in ("all.h5", "all.hdf5", "ALL.H5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["v"], file["day1/w"] = rows, rows[:5]
        np.testing.assert_array_equal(read(tmp_path / name, ".npy"), rows)
        files = FeatureFiles(str(tmp_path / name), channels=3)
        assert files.ids() == ["day1/w", "v"] and files.exists("day1/w") and files.length("day1/w") == 5


def test_a_folder_may_be_called_anything(tmp_path, rows):
    folder = tmp_path / "from.hdf5.files" / "x.hdf5"
    folder.mkdir(parents=True)
    np.save(folder / "v.npy", rows)
    np.testing.assert_array_equal(read(folder, ".npy"), rows)
    assert list(find_features([folder], channels=3)) == ["v"]


def test_nested_folders_are_found_as_training_finds_them(tmp_path, rows):
    for name in ("a", "day1/a", "day1/deep/b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / f"{name}.npy", rows)
    files = FeatureFiles(str(tmp_path), channels=3)
    assert files.ids() == ["a", "day1/a", "day1/deep/b"] == list(find_features([tmp_path], channels=3))
    np.testing.assert_array_equal(files.read("day1/deep/b"), rows)


def test_pickles_are_told_how_to_become_arrays(tmp_path):
    (tmp_path / "v.pkl").write_bytes(b"x")
    for look in (
        lambda: FeatureFiles(str(tmp_path), ext=".pkl", channels=3),
        lambda: find_features([tmp_path / "v.pkl"], channels=3),
    ):
        with pytest.raises(ValueError, match=r"pickle can run code.*python -c .*numpy\.save"):
            look()


def test_prediction_of_nested_folders_has_files_of_its_own_for_each(make_data, tmp_path):
    path = make_data()
    assert main(["-q", "train", str(path), "--output", "x"]) == 0
    for name in ("a_b", "a/b"):  # one file name, were the folder's name joined with "_"
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "new" / f"{name}.npy", np.random.default_rng(0).standard_normal((64, 8)))
    command = ["-q", "predict", str(path), str(tmp_path / "ckpt" / "tiny_x"), str(tmp_path / "new"), "--fps", "30"]
    assert main([*command, "--formats", "json", "srt", "--out", str(tmp_path / "out")]) == 0
    assert sorted(json.loads((tmp_path / "out" / "predictions.json").read_text())["results"]) == ["a/b", "a_b"]
    assert (tmp_path / "out" / "a" / "b.srt").is_file() and (tmp_path / "out" / "a_b.srt").is_file()


def test_first_rows_of_tables_that_are_neither_names_nor_numbers(tmp_path, rows):
    lines = [",".join(map(str, row)) for row in rows.tolist()]
    for first in ("", "0,1,2", "1,2,3", "0.0,1.0,2.0", "x,y,z"):
        (tmp_path / "v.csv").write_text("\n".join([first, *lines]) + "\n")
        np.testing.assert_allclose(read(tmp_path, ".csv"), rows, rtol=1e-6, err_msg=first)
    for field in ("", "NA"):
        (tmp_path / "v.csv").write_text("\n".join([f"{field},0.3,0.4", *lines]) + "\n")
        with pytest.raises(ValueError, match=r"v\.csv: .*first row holds numbers and"):
            read(tmp_path, ".csv")


def test_arrays_that_are_no_numbers(tmp_path, rows):
    for array, word in (
        (rows.astype(complex), "complex"),
        (np.zeros((4, 3), dtype=[("a", "f4")]), "type"),
        (np.array([["a"] * 3] * 4), "type"),
        (np.array([[object()] * 3] * 4, dtype=object), "Python objects"),
    ):
        np.save(tmp_path / "v.npy", array, allow_pickle=True)
        with pytest.raises(ValueError, match=rf"v\.npy: .*{word}") as error:
            read(tmp_path, ".npy")
        assert "\n" not in str(error.value)
    np.savez(tmp_path / "v.npz", feats=rows)
    (tmp_path / "v.npz").rename(tmp_path / "v.npy")
    with pytest.raises(ValueError, match=r"v\.npy: .*NpzFile"):
        read(tmp_path, ".npy")


def test_an_hdf5_file_beside_folders(tmp_path, rows):
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["v"] = rows
    (tmp_path / "f").mkdir()
    np.savez(tmp_path / "f" / "v.npz", feats=rows[:, :2])
    for folders in ([tmp_path / "one.h5", tmp_path / "f"], [tmp_path / "f", tmp_path / "one.h5"]):
        files = FeatureFiles([str(f) for f in folders], ext=".npz", channels=5)
        assert files.read("v").shape == (12, 5) and files.length("v") == 12


def test_linked_folders_are_read(tmp_path, rows):
    (tmp_path / "disk").mkdir()
    np.save(tmp_path / "disk" / "v.npy", rows)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "day1").symlink_to(tmp_path / "disk")
    (tmp_path / "f" / "loop").symlink_to(tmp_path / "f")
    assert list(find_features([tmp_path / "f"], channels=3)) == ["day1/v"]


def test_nothing_is_written_or_removed_outside_of_the_output(make_data, tmp_path, capsys):
    path = make_data()
    assert main(["-q", "train", str(path), "--output", "x"]) == 0
    with h5py.File(tmp_path / "evil.h5", "w") as file:
        file.create_dataset("a/..b/c", data=np.random.default_rng(0).standard_normal((64, 8)))
    command = ["-q", "predict", str(path), str(tmp_path / "ckpt" / "tiny_x"), str(tmp_path / "evil.h5"), "--fps", "30"]
    out = tmp_path / "deep" / "out"
    assert main([*command, "--formats", "srt", "--out", str(out)]) == 0
    from actionformer_nt.commands.predict import _inside

    assert _inside("../../evil") == "evil" and _inside("/etc/x") == "etc/x" and _inside("..") == "video"
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    for names in ([str(victim)], ["../../victim.txt"], 3):
        (out / ".written.json").write_text(json.dumps(names))
        assert main([*command, "--formats", "srt", "--out", str(out)]) == 2
        assert "not the list of files" in capsys.readouterr().err and victim.is_file()
