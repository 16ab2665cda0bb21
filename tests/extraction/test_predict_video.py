"""From video files to detections: extract, train, predict on a new video, by the documented commands."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from actionformer_nt.commands.main import main
from libs.core.lock import locked
from libs.datasets.sidecar import read_sidecar
from libs.extraction import presets
from libs.extraction.decode import VideoFile
from libs.extraction.extractor import Extractor
from libs.inference.predictor import Predictor
from libs.training.run_identity import data_of_run


class Colors(torch.nn.Module):
    """Mean colour of a clip's middle frames, after a random projection."""

    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Linear(3, 3)

    def forward(self, clips):
        return self.mix(clips.mean(dim=(2, 3, 4)))


def colors(wanted):
    return Extractor(
        name="colors", window=16, stride=4, channels=3, spatial="preset", network=Colors(),
        transform=lambda image: torch.from_numpy(image).permute(2, 0, 1).float() / 255, weights=f"random {wanted.seed}",
    )  # fmt: skip


@pytest.fixture
def preset(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "colors", colors)


def recording(seed, seconds=9, rate=30):
    """Noise, red for two seconds; returns the images and the event."""
    rng = np.random.default_rng(seed)
    start = 1 + 5 * rng.random()
    images = rng.integers(0, 60, (seconds * rate, 48, 64, 3), dtype=np.uint8)
    images[int(start * rate) : int((start + 2) * rate), :, :, 0] += 180
    return images, (start, start + 2)


@pytest.fixture
def trained(preset, make_data, video_file, event, tmp_path):
    """A run on features of five videos; returns its configuration and folder."""
    (tmp_path / "videos").mkdir()
    events = {}
    for k in range(6):
        images, (start, end) = recording(k)
        video_file(f"videos/v{k}.mp4", images)
        events[f"v{k}"] = [event(start, end, 0)]
    path = make_data(
        events, channels=3, name="colors", opt={"epochs": 60, "warmup_epochs": 2, "learning_rate": 5e-3},
        dataset={"num_classes": 1}, train_cfg={"ema_ramp": True, "init_loss_norm": 20, "cls_prior_prob": 0.05},
    )  # fmt: skip
    content = json.loads((path.parent / "annotations.json").read_text())
    for video in content["database"].values():
        del video["fps"], video["duration"]  # the sidecars have them
    (path.parent / "annotations.json").write_text(json.dumps(content))
    features = str(path.parent / "features")
    arguments = [str(tmp_path / "videos"), features, "--preset", "colors", "--random-weights", "3", "--device", "cpu"]
    assert main(["-q", "extract", *arguments, "--overwrite"]) == 0
    assert main(["-q", "train", str(path), "--output", "red"]) == 0
    return path, tmp_path / "ckpt" / "colors_red"


def test_a_new_video_by_the_command_and_in_python(trained, video_file, tmp_path, capsys):
    path, folder = trained
    assert data_of_run(folder)["features"]["weights"] == "random 3"
    images, truth = recording(77)
    new = video_file("new.mkv", images)
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    out = tmp_path / "predictions"
    command = ["-q", "predict", "--out", str(out), str(path), str(folder), str(new)]
    assert main([*command, str(bad), "--overlay", "--threshold", "0.2"]) == 5
    assert "1 videos could not be read" in capsys.readouterr().out
    table = pd.read_csv(out / "predictions.csv")
    best = table.iloc[0]
    overlap = min(best.end, truth[1]) - max(best.start, truth[0])
    assert best.video == "new" and overlap / (max(best.end, truth[1]) - min(best.start, truth[0])) > 0.5
    assert (out / "features" / "new.json").is_file() and (out / "new.srt").is_file()
    predictor = Predictor.from_checkpoint(folder)
    in_python, numbers = predictor(new, threshold=0.2), ["start", "end", "score"]
    assert len(in_python) == len(table) and np.allclose(in_python[numbers], table[numbers], atol=1e-3)
    drawn = [frame.image for frame in VideoFile(out / "new_overlay.mp4").frames()]
    assert len(drawn) == 270 and drawn[0].shape == (48, 64, 3)
    assert main(["-q", "predict", str(path), str(folder), str(out / "features"), "--overlay", "--out", str(out)]) == 2
    assert "--overlay: give videos" in capsys.readouterr().err
    before = (out / "features" / "new.npy").stat().st_mtime_ns
    assert main(command) == 0
    assert (out / "features" / "new.npy").stat().st_mtime_ns == before, "extracted once"
    assert not (out / "new_overlay.mp4").exists(), "of the call before"
    with pytest.raises(ValueError, match="no video file"):
        predictor(bad)
    with pytest.raises(ValueError, match=r"fps: 25, but 30 in the sidecar"):
        predictor(new, fps=25)
    with pytest.raises(FileNotFoundError, match=r"video not found: .*typo\.mp4"):
        predictor(tmp_path / "typo.mp4")
    assert main([*command[:-1], str(tmp_path / "typo.mp4")]) == 2
    assert "video not found" in capsys.readouterr().err
    with locked(out / "features", ".new.lock"), pytest.raises(ValueError, match=r"another process extracts .*new\.mkv"):
        (out / "features" / "new.npy").unlink()
        predictor.extract([str(new)], out / "features")
    video_file("new.mkv", recording(79)[0])  # another video of this name: its features are made again
    assert main(command) == 0
    assert (out / "features" / "new.npy").stat().st_mtime_ns > before
    assert main(["-q", "predict", "--out", str(tmp_path / "more"), str(path), str(folder), str(out / "features")]) == 0


def test_a_video_of_another_rate_is_seen_at_that_of_training(trained, video_file, tmp_path):
    _, folder = trained
    images, _ = recording(78)
    files = [str(video_file("full.mkv", images)), str(video_file("half.mkv", images[::2], rate=15))]
    (one, two), _ = Predictor.from_checkpoint(folder).extract(files, tmp_path / "out")
    assert read_sidecar(one.with_suffix(".json")).fps == read_sidecar(two.with_suffix(".json")).fps == 30
    features = [np.load(file) for file in (one, two)]
    shortest = min(map(len, features))
    assert max(map(len, features)) - shortest <= 1  # the last frame is shown half as long
    assert np.abs(features[0][:shortest] - features[1][:shortest]).max() < 0.1 * np.ptp(features[0])


def test_what_is_not_known_is_told(trained, make_data, video_file, tmp_path, capsys):
    path, folder = trained
    new = str(video_file("new.mkv"))
    weights = tmp_path / "other.pt"
    torch.save(Colors().state_dict(), weights)
    assert main(["-q", "predict", str(path), str(folder), new, "--video-weights", str(weights)]) == 2
    assert "weights and seed exclude each other" in capsys.readouterr().err
    plain = make_data(name="plain", opt={"epochs": 1, "warmup_epochs": 1})
    assert main(["-q", "train", str(plain), "--output", "x"]) == 0
    assert main(["-q", "predict", str(plain), str(tmp_path / "ckpt" / "plain_x"), new]) == 2
    assert "the run does not say how its features were made" in capsys.readouterr().err
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "bad.mp4").write_text("no video")
    assert main(["-q", "predict", str(path), str(folder), str(tmp_path / "only"), "--out", str(tmp_path / "p")]) == 2
    assert "no video could be read" in capsys.readouterr().err
