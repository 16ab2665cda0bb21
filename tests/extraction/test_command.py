"""`actionformer-nt extract` on real files, in processes of its own where it is killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from actionformer_nt.commands.extract import videos_of
from actionformer_nt.commands.main import main
from libs.datasets.sidecar import read_sidecar
from libs.inference.videos import extractor_of

ROOT = Path(__file__).parents[2]
RANDOM = ["--preset", "i3d-rgb", "--random-weights", "0", "--window", "9", "--stride", "9", "--device", "cpu"]


@pytest.fixture
def folder(video_file, tmp_path):
    """Three videos in a folder and one below it."""
    (tmp_path / "videos" / "more").mkdir(parents=True)
    for k, name in enumerate(("a.mp4", "b.mkv", "c.avi", "more/d.mp4")):
        video_file(f"videos/{name}", count=18 + 9 * k, rate=25)
    (tmp_path / "videos" / "notes.txt").write_text("no video")
    return tmp_path / "videos"


def test_a_folder_of_videos(folder, tmp_path, capsys):
    out = tmp_path / "features"
    assert main(["-q", "extract", str(folder), str(out), *RANDOM, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("would be extracted") == 4 and not out.exists()
    (folder / "e.mp4").write_text("broken")
    assert main(["-q", "extract", str(folder), str(out), *RANDOM]) == 5
    said = capsys.readouterr()
    assert "extracted 4 of 5 videos (126 frames" in said.out and "failed: 1\n" in said.out
    assert "failed.csv says why" in said.out
    assert "e.mp4: no video file" in said.err
    for name, rows in zip("abcd", (2, 3, 4, 5), strict=True):
        assert np.load(out / f"{name}.npy").shape == (rows, 1024)
        sidecar = read_sidecar(out / f"{name}.json")
        assert (sidecar.preset, sidecar.weights, sidecar.fps, sidecar.window) == ("i3d-rgb", "random 0", 25, 9)
    (folder / "e.mp4").unlink()
    assert main(["-q", "extract", str(folder), str(out), *RANDOM]) == 0
    assert "extracted 0 of 4 videos (0 frames, 0 a second); there already: 4, failed: 0" in capsys.readouterr().out


def test_shards_together_are_the_whole(folder, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["-q", "extract", str(folder), str(whole), *RANDOM, "--batch", "3"]) == 0
    for shard in ("1/2", "2/2"):
        assert main(["-q", "extract", str(folder), str(parts), *RANDOM, "--batch", "3", "--shard", shard]) == 0
    for file in whole.iterdir():
        assert (parts / file.name).read_bytes() == file.read_bytes()


def test_killed_and_started_again(folder, tmp_path):
    """kill -9 at any time leaves whole files only, and the next call makes the rest: the same bytes."""
    command = [sys.executable, "-m", "actionformer_nt", "-q", "extract", str(folder)]
    calls = {"cwd": ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1"}}
    whole, out = tmp_path / "whole", tmp_path / "out"
    process = subprocess.Popen([*command, str(out), *RANDOM, "--batch", "3"], **calls)
    while process.poll() is None and not (out / "a.json").is_file():
        time.sleep(0.01)
    process.kill()
    process.wait()
    made = {file.name for file in out.glob("*.json")}
    for folder in (out, whole):
        subprocess.run([*command, str(folder), *RANDOM, "--batch", "3"], check=True, **calls)
    assert made and {file.name for file in out.iterdir()} == {file.name for file in whole.iterdir()}
    for file in whole.iterdir():
        assert (out / file.name).read_bytes() == file.read_bytes()


def test_ctrl_c_says_how_to_go_on(folder, tmp_path, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("libs.extraction.extract.extract", stop)
    assert main(["-q", "extract", str(folder), str(tmp_path / "out"), *RANDOM]) == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on with the videos that are left\n"


def test_a_missing_package_is_one_line(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["-q", "extract", str(folder), str(tmp_path / "out"), *RANDOM]) == 2
    assert capsys.readouterr().err == (
        "error: decoding videos needs the package av: pip install 'actionformer-nt[video]'\n"
    )


def test_two_streams(video_file, tmp_path):
    """With flow, by the names of the presets; the sidecar is enough to make the extractor again."""
    path, out = str(video_file("v.mp4", count=20)), tmp_path / "out"
    arguments = ["--preset", "i3d-rgb-flow", "--flow", "dis", *RANDOM[2:]]
    assert main(["-q", "extract", path, str(out), *arguments]) == 0
    sidecar = read_sidecar(out / "v.json")
    assert (sidecar.flow, sidecar.channels, sidecar.rows) == ("dis", 2048, 2)
    assert np.load(out / "v.npy").shape == (2, 2048)
    assert sidecar.versions.keys() == {"torch", "torchvision", "av", "opencv-contrib-python-headless"}
    again = extractor_of(sidecar.settings())
    assert again.settings() == sidecar.settings()


def test_a_preset_has_its_own_rate(torchvision, video_file, tmp_path, capsys):
    path = str(video_file("v.mp4", count=90))
    command = ["-q", "extract", path, str(tmp_path / "out"), "--preset", "tsp", "--random-weights", "0"]
    assert main([*command, "--device", "cpu", "--batch", "1"]) == 0
    assert read_sidecar(tmp_path / "out" / "v.json").fps == 15
    assert main([*command, "--dry-run"]) == 0 and "is there" in capsys.readouterr().out
    assert main([*command, "--fps", "native"]) == 2
    assert "v.npy has other settings (fps: 15.0, expected 30.0)" in capsys.readouterr().err


def test_mistakes(folder, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["-q", "extract", str(folder / "a.mp4"), str(folder / "b.mkv"), *RANDOM]) == 2
    assert "the last argument, is a file" in capsys.readouterr().err
    for arguments, word in (
        ([str(tmp_path / "none.mp4"), out, "--preset", "s3d"], "video or folder not found"),
        ([str(folder / "more" / ".."), out, "--preset", "i3d-rgb"], "needs a weight file"),
        ([str(folder), out, "--preset", "i3d"], "preset 'i3d' is not one of"),
        ([str(folder), out, *RANDOM[:-1], "cuda:99"], "--device cuda:99"),
    ):
        assert main(["-q", "extract", *arguments]) == 2
        assert word in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no video files in this folder"):
        videos_of([str(tmp_path / "empty")])
    for option, value in (("--fps", "fast"), ("--fps", "0"), ("--shard", "3/2"), ("--stride", "0")):
        with pytest.raises(SystemExit):
            main(["extract", str(folder), out, *RANDOM, option, value])
