"""Whole extractions on real files, with a network that tells which frames it saw."""

import csv
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from libs.datasets.sidecar import Sidecar, find_sidecar, read_sidecar
from libs.extraction.decode import VideoFile, at_rate
from libs.extraction.extract import NATIVE, extract
from libs.extraction.extractor import Extractor
from libs.extraction.failures import Failures
from libs.extraction.output import OutputFolder
from libs.extraction.pipeline import PRODUCER, ahead, in_order

ROOT = Path(__file__).parents[2]


class Brightness(torch.nn.Module):
    """Mean brightness of a clip, of its first and of its last frame; `batches` are the sizes of what it was given."""

    def __init__(self):
        super().__init__()
        self.scale, self.batches = torch.nn.Parameter(torch.ones(())), []

    def forward(self, clips):
        self.batches.append(len(clips))
        frames = clips.mean(dim=(1, 3, 4)) * self.scale
        return torch.stack([frames.mean(dim=1), frames[:, 0], frames[:, -1]], dim=1)


def brightness(window=8, stride=3, weights="random 0"):
    transform = lambda image: torch.from_numpy(image[30:, 30:]).permute(2, 0, 1).float()  # noqa: E731
    return Extractor(
        name="brightness", window=window, stride=stride, channels=3, spatial="corner", transform=transform,
        network=Brightness(), weights=weights,
    )  # fmt: skip


def visible(folder):
    return [file for file in folder.iterdir() if not file.name.startswith(".")]


def by_hand(path, extractor, fps=None):
    """Decode all, slice, one clip at a time."""
    file = VideoFile(path)
    frames = [extractor.transform(image) for image in at_rate(file.frames(), fps or file.rate)]
    frames += [frames[-1]] * (extractor.window - len(frames))
    starts = range(0, len(frames) - extractor.window + 1, extractor.stride)
    return torch.cat([extractor(torch.stack(frames[a : a + extractor.window])[None]) for a in starts]).numpy()


@pytest.mark.parametrize("workers", [0, 3])
def test_features_are_those_of_the_plain_loop_in_full_batches(video_file, tmp_path, workers):
    paths = [str(video_file(f"v{k}.mp4", count=count)) for k, count in enumerate((40, 5, 8, 23))]
    extractor, seen = brightness(), []
    result = extract(paths, tmp_path / "out", extractor, batch=4, workers=workers, on_video=seen.append)
    assert result.made == paths == seen and not result.failed and not result.there
    assert extractor.network.batches == [4] * 5, "batches span videos, and the last is filled up"
    for path in paths:
        features = np.load(tmp_path / "out" / f"{Path(path).stem}.npy")
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, by_hand(path, brightness()), rtol=1e-6)
        sidecar = read_sidecar(tmp_path / "out" / f"{Path(path).stem}.json")
        assert (sidecar.rows, sidecar.channels) == features.shape and sidecar.fps == 30
        assert sidecar.video == Path(path).name and set(sidecar.versions) == {"torch", "torchvision", "av"}
    assert read_sidecar(tmp_path / "out" / "v0.json").duration == pytest.approx(40 / 30)
    assert not list((tmp_path / "out").glob("*.part")) and not (tmp_path / "out" / "failed.csv").exists()


@pytest.mark.parametrize(
    ("window", "stride", "fps"), [(16, 4, None), (9, 1, None), (8, 8, Fraction(15)), (1, 1, Fraction(10))]
)
@pytest.mark.parametrize("kind", ["b_frames", "varying"])
def test_a_flash_peaks_in_the_row_of_its_time(video_file, tmp_path, window, stride, fps, kind):
    """A video is bright from 2.0 to 2.2 s. The row whose middle is nearest to 2.1 s is among the brightest."""
    rate, low, high = 30, 60, 66
    kept = [k for k in range(120) if kind == "b_frames" or k % 4 != 1]
    images = [np.full((48, 64, 3), 230 if low <= k < high else 20, np.uint8) for k in kept]
    path = video_file("flash.mkv", images, times=[Fraction(k, rate) for k in kept], options={"bf": "3"})
    extract([str(path)], tmp_path / "out", brightness(window, stride), fps=fps)
    features, sidecar = np.load(tmp_path / "out" / "flash.npy")[:, 0], read_sidecar(tmp_path / "out" / "flash.json")
    middle = (np.arange(len(features)) * sidecar.stride + sidecar.window / 2) / sidecar.fps
    expected = int(np.abs(middle - 2.1).argmin())
    assert features[expected] >= features.max() - 0.2 * (features.max() - features.min())
    bright = middle[features > 0.5 * (features.max() + features.min())]
    assert abs(bright.mean() - 2.1) <= max(stride, 1) / sidecar.fps


def test_an_extraction_that_ended_early_goes_on(video_file, tmp_path):
    paths = [str(video_file(f"v{k}.mp4", count=20 + k)) for k in range(4)]
    extract(paths, tmp_path / "whole", brightness())
    broken = brightness()

    def stop(path):
        if path == paths[1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(paths, tmp_path / "half", broken, on_video=stop, batch=1)
    before = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "half").iterdir()}
    assert {"v0.npy", "v0.json", "v1.npy", "v1.json"} == before.keys()
    result = extract(paths, tmp_path / "half", brightness())
    assert result.there == paths[:2] and result.made == paths[2:]
    for file in (tmp_path / "whole").iterdir():
        again = tmp_path / "half" / file.name
        assert again.read_bytes() == file.read_bytes()
        assert file.name not in before or again.stat().st_mtime_ns == before[file.name]


def test_a_bad_video_does_not_stop_the_others(video_file, tmp_path):
    good, bad = str(video_file("good.mp4")), tmp_path / "bad.mp4"
    bad.write_text("no video")
    long = video_file("long.mkv", count=150)
    part = tmp_path / "part.mkv"
    part.write_bytes(long.read_bytes()[: long.stat().st_size // 2])
    result = extract([str(bad), str(part), good, str(tmp_path / "none.mp4")], tmp_path / "out", brightness())
    assert result.made == [good] and list(result.failed) == [str(bad), str(part), str(tmp_path / "none.mp4")]
    assert {f.name for f in visible(tmp_path / "out")} == {"good.npy", "good.json", "failed.csv"}
    rows = list(csv.reader((tmp_path / "out" / "failed.csv").open()))
    assert [row[0] for row in rows] == ["video", str(bad), str(part), str(tmp_path / "none.mp4")]
    assert "no video file" in dict(rows)[str(bad)]


def test_the_list_of_failed_videos_is_shared_and_kept_at_once(video_file, tmp_path, monkeypatch):
    """A video stands in it until its features are there, whichever part of the videos a call was about."""
    out, good = tmp_path / "out", str(video_file("good.mp4"))
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.mp4").write_text("no video")
    paths = {name: str(tmp_path / f"{name}.mp4") for name in "abc"}

    def stop(path):
        if path == good:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract([paths["a"], good, paths["b"]], out, brightness(), on_video=stop)
    assert Failures(out).read().keys() == {paths["a"]}, "before the call ended"
    extract([paths["b"], paths["c"]], out, brightness())
    assert Failures(out).read().keys() == set(paths.values())
    video_file("a.mp4")
    assert extract([paths["a"], good], out, brightness()).made == [paths["a"]]
    assert Failures(out).read().keys() == {paths["b"], paths["c"]}
    for name in "bc":
        video_file(f"{name}.mp4")
    monkeypatch.chdir(tmp_path)
    extract(["b.mp4", "c.mp4"], out, brightness())  # by other paths
    assert not (out / "failed.csv").exists()


def test_features_of_a_clip_do_not_depend_on_the_others(video_file, tmp_path):
    """The rounding of some networks depends on the number of clips at once: it is always the same."""
    short, long = str(video_file("short.mp4", count=9)), str(video_file("long.mp4", count=33))
    extractor = brightness()
    extract([short], tmp_path / "alone", extractor, batch=5)
    extract([long, short], tmp_path / "both", extractor, batch=5)
    assert set(extractor.network.batches) == {5}
    assert (tmp_path / "alone" / "short.npy").read_bytes() == (tmp_path / "both" / "short.npy").read_bytes()


def test_features_of_other_settings_are_not_mixed(video_file, tmp_path):
    path = str(video_file())
    extract([path], tmp_path / "out", brightness())
    for other, word in (
        (brightness(stride=4), "stride: 3, expected 4"),
        (brightness(weights="ab"), "weights: random 0, expected ab"),
    ):
        with pytest.raises(ValueError, match=word):
            extract([path], tmp_path / "out", other)
    with pytest.raises(ValueError, match=r"fps: 30\.0, expected 15\.0"):
        extract([path], tmp_path / "out", brightness(), fps=Fraction(15))
    assert extract([path], tmp_path / "out", brightness(stride=4), overwrite=True).made == [path]
    assert read_sidecar(tmp_path / "out" / "video.json").stride == 4
    again = extract([path], tmp_path / "out", brightness(stride=4), overwrite=True)
    assert again.there == [path], "so an overwriting call that was stopped goes on"
    other = str(video_file("other.mp4"))
    with pytest.raises(ValueError, match=r"video\.npy in the same folder has other settings \(stride: 4, expected 3\)"):
        extract([other], tmp_path / "out", brightness())
    with pytest.raises(ValueError, match="several videos have the name video"):
        extract([path, str(tmp_path / "other" / "video.avi")], tmp_path / "out", brightness())


def test_another_video_of_the_same_name_is_told(video_file, tmp_path):
    path = video_file("cam.mp4")
    extract([str(path)], tmp_path / "out", brightness())
    video_file("cam.mp4", count=50)
    with pytest.raises(ValueError, match=r"cam\.npy is of another video called cam\.mp4"):
        extract([str(path)], tmp_path / "out", brightness())
    extract([str(path)], tmp_path / "out", brightness(), overwrite=True)
    assert read_sidecar(tmp_path / "out" / "cam.json").frames == 50


def test_a_sidecar_never_stands_beside_other_features(video_file, tmp_path, monkeypatch):
    path = str(video_file())
    extract([path], tmp_path / "out", brightness())
    monkeypatch.setattr(Sidecar, "write", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    with pytest.raises(OSError, match="disk full"):
        extract([path], tmp_path / "out", brightness(stride=5), overwrite=True)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    monkeypatch.undo()
    replace, moved = os.replace, []

    def killed(source, target):
        replace(source, target)
        moved.append(target)
        if str(target).endswith(".npy"):
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        extract([path], tmp_path / "out", brightness(stride=5), overwrite=True)
    monkeypatch.undo()
    assert not (tmp_path / "out" / "video.json").exists()
    assert extract([path], tmp_path / "out", brightness(stride=5)).made == [path]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"video.npy", "video.json"}


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", None])
def test_features_that_cannot_be_read_are_made_again(video_file, tmp_path, content):
    path, features = str(video_file()), tmp_path / "out" / "video.npy"
    extract([path], tmp_path / "out", brightness())
    whole = features.read_bytes()
    features.write_bytes(whole[:-40] if content is None else content)
    assert extract([path], tmp_path / "out", brightness()).made == [path]
    assert features.read_bytes() == whole


def test_files_of_others_are_not_touched(video_file, tmp_path):
    """A label tool's VIDEO.json, and features from elsewhere."""
    path, out = str(video_file()), tmp_path / "out"
    out.mkdir()
    for name, content in (("video.json", '{"labels": []}'), ("video.npy", "somebody's")):
        (out / name).write_text(content)
        with pytest.raises(ValueError, match=f"{name} was not made by an extraction: choose another folder"):
            extract([path], out, brightness())
        assert (out / name).read_text() == content
        (out / name).unlink()
    (out / "video.npy").write_text("somebody's")
    assert extract([path], out, brightness(), overwrite=True).made == [path]


def test_several_processes_share_the_videos(video_file, tmp_path):
    """A video that another one has in work is left to it."""
    paths, out = [str(video_file(f"v{k}.mp4")) for k in range(3)], tmp_path / "out"
    out.mkdir()
    other = OutputFolder(out, brightness().settings(), fps=None)
    lock = other.claim(paths[1])
    result = extract(paths, out, brightness())
    assert (result.made, result.elsewhere) == ([paths[0], paths[2]], [paths[1]])
    lock.release()
    assert extract(paths, out, brightness()).made == [paths[1]]
    assert {f.name for f in out.iterdir()} == {f"v{k}{end}" for k in range(3) for end in (".npy", ".json")}


def test_whatever_one_video_raises_the_others_go_on(video_file, tmp_path):
    good, odd = str(video_file("good.mp4")), str(video_file("odd.mp4", count=41, rate=10))
    extractor, seen = brightness(), []

    def transform(image):
        seen.append(image)
        if len(seen) == 5:
            raise RuntimeError("a filter failed")
        return brightness().transform(image)

    result = extract([odd, good], tmp_path / "out", dataclasses.replace(extractor, transform=transform))
    assert result.made == [good] and result.failed == {odd: f"{odd}: RuntimeError: a filter failed"}


def test_a_preset_has_its_own_rate(video_file, tmp_path):
    path, extractor = str(video_file()), dataclasses.replace(brightness(), fps=Fraction(15))
    extract([path], tmp_path / "own", extractor)
    extract([path], tmp_path / "native", extractor, fps=NATIVE)
    assert [read_sidecar(tmp_path / name / "video.json").fps for name in ("own", "native")] == [15, 30]


def test_sidecars_that_are_none(tmp_path):
    path = tmp_path / "v.json"
    for text in ('{"a": 1}\n{"a": 2}', "", "x" * 100_000):
        path.write_text(text)
        assert find_sidecar(path.with_suffix(".npy")) is None
    for content, word in (
        ({}, "'format' is missing"),
        ({"format": 2}, "another version"),
        ({"format": 1, "fps": 3}, "keys"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=word):
            read_sidecar(path)


def test_what_is_made_ahead_is_bounded_and_ends():
    made = []

    def numbers():
        for k in range(1000):
            made.append(k)
            yield k

    stream = ahead(numbers(), 5)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    stream.close()
    assert len(made) <= 3 + 5 + 2 and PRODUCER not in {thread.name for thread in threading.enumerate()}
    assert list(ahead(iter(range(20)), 3)) == list(range(20))

    def broken():
        yield 1
        raise OSError("disk")

    stream = ahead(broken(), 3)
    assert next(stream) == 1
    with pytest.raises(OSError, match="disk"):
        next(stream)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_frames_are_transformed_in_order_and_not_far_ahead(workers):
    taken = []

    def items():
        for k in range(50):
            taken.append(k)
            yield k

    def slowly(k):
        time.sleep(0.002 * (k % 3))
        return k

    found = []
    for k in in_order(slowly, items(), workers):
        found.append(k)
        assert len(taken) <= len(found) + 2 * workers + 1
    assert found == list(range(50))
    stream = in_order(lambda k: 1 / (k - 3), range(10), workers)
    assert [next(stream) for _ in range(3)] == [1 / -3, 1 / -2, -1]
    with pytest.raises(ZeroDivisionError):
        next(stream)


MEMORY = """
import sys
sys.path[:0] = sys.argv[1:3]
import torch
from fractions import Fraction
from libs.extraction import extract as module
from libs.extraction.decode import Frame
from test_extract import brightness

class Endless:
    seconds, rate = None, Fraction(30)
    def __init__(self, path): self.path = path
    def frames(self):
        import numpy as np
        for k in range(int(sys.argv[3])):
            yield Frame(np.zeros((142, 142, 3), np.uint8), k / 30, 1 / 30)

module.VideoFile, module.digest_of = Endless, lambda path: ""
class Copies(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
    def forward(self, clips):
        return clips.contiguous().mean(dim=(2, 3, 4)) * self.scale
import dataclasses
extractor = dataclasses.replace(brightness(16, 4), network=Copies())
module.extract(["video.mp4"], sys.argv[4], extractor)
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is read from /proc")
def test_memory_does_not_grow_with_a_video(tmp_path):
    """Rows that were kept one by one between the clips took 2 MiB each."""
    peaks = []
    for frames in (400, 3200):
        arguments = [ROOT, ROOT / "tests" / "extraction", frames, tmp_path / str(frames)]
        command = [sys.executable, "-c", MEMORY, *map(str, arguments)]
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=one_thread)
        peaks.append(int(done.stdout) / 1024)  # MiB
    assert peaks[1] - peaks[0] < 150, peaks
