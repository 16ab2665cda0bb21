"""Sidecars of features: what readers take from them, and what they refuse."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from libs.core import load_config
from libs.datasets import make_dataset
from libs.datasets.sidecar import Sidecar, common_settings, find_sidecar, read_sidecar
from libs.evaluation import run as evaluation
from libs.inference.predictor import Predictor
from libs.training import run as engine
from libs.training.run_identity import data_of_run

MADE = Sidecar(
    preset="s3d", weights="ab12", video="v.mp4", fps=30.0, frames=271, duration=9.03, window=16, stride=4, rows=64,
    channels=8, spatial="torchvision",
)  # fmt: skip


@pytest.fixture
def with_sidecars(make_data):
    """A configuration whose features have sidecars."""

    def make(sidecar=MADE, *, without=(), **sections):
        path = make_data(**sections)
        for file in sorted((path.parent / "features").glob("*.npy")):
            sidecar.write(file.with_suffix(".json"))
        if without:
            content = json.loads((path.parent / "annotations.json").read_text())
            for video in content["database"].values():
                for key in without:
                    del video[key]
            (path.parent / "annotations.json").write_text(json.dumps(content))
        return path

    return make


def dataset_of(path, training=True):
    config = load_config(path)
    return make_dataset(
        config["dataset_name"], training, config["train_split" if training else "val_split"], **config["dataset"]
    )


def test_it_is_read_as_it_was_written(tmp_path):
    MADE.write(tmp_path / "v.json")
    assert read_sidecar(tmp_path / "v.json") == MADE == find_sidecar(tmp_path / "v.npy")
    (tmp_path / "w.json").write_text('{"version": "1.3", "results": {}}')
    assert find_sidecar(tmp_path / "w.npy") is None and find_sidecar(tmp_path / "none.npy") is None


def test_times_that_annotations_lack_come_from_the_sidecar(with_sidecars):
    dataset = dataset_of(with_sidecars(replace(MADE, fps=25.0), without=("fps", "duration")))
    assert (dataset[0]["fps"], dataset[0]["duration"]) == (25.0, 9.03)
    with pytest.raises(ValueError, match="has no 'fps'"):
        path = with_sidecars(name="bare", without=("fps",))
        for file in (path.parent / "features").glob("*.json"):
            file.unlink()
        dataset_of(path)


@pytest.mark.parametrize(("changes", "message"), [
    ({"stride": 8}, r"feat_stride: 4, but 8 in the sidecar of .*v0\.npy"),
    ({"window": 32, "fps": 15.0}, r"num_frames: 16, but 32; fps: 30, but 15 in the sidecar"),
])  # fmt: skip
def test_contradictions_are_refused_with_both_values(with_sidecars, changes, message):
    with pytest.raises(ValueError, match=message):
        dataset_of(with_sidecars(replace(MADE, **changes)))


def test_a_rate_that_differs_by_rounding_is_the_same(with_sidecars):
    assert dataset_of(with_sidecars(replace(MADE, fps=30000 / 1001)))[0]["fps"] == 30.0


def test_features_of_different_presets_are_not_mixed(with_sidecars):
    path = with_sidecars()
    replace(MADE, preset="i3d-rgb").write(path.parent / "features" / "v2.json")
    with pytest.raises(ValueError, match="video 'v2' were made with preset: i3d-rgb, those of 'v0' with s3d"):
        dataset_of(path)
    assert common_settings({"a": MADE, "b": replace(MADE, fps=25.0, rows=3)})["preset"] == "s3d"


def test_a_run_knows_how_its_features_were_made(with_sidecars, tmp_path):
    config = load_config(with_sidecars())
    folder = engine.train(config, tmp_path / "run", progress=False)
    assert data_of_run(folder)["features"] == MADE.settings()
    predictor, file = Predictor.from_checkpoint(folder), tmp_path / "new.npy"
    np.save(file, np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32))
    replace(MADE, fps=25.0, duration=8.5).write(tmp_path / "new.json")
    by_hand = predictor(np.load(file), fps=25, duration=8.5, video_id="new")
    assert predictor(file).equals(by_hand), "nothing has to be typed twice"
    assert predictor(file, fps=25).equals(by_hand)
    with pytest.raises(ValueError, match=r"fps: 30, but 25 in the sidecar of .*new\.npy"):
        predictor(file, fps=30)
    replace(MADE, weights="cd34").write(tmp_path / "new.json")
    with pytest.raises(ValueError, match=r"new\.npy was made otherwise .*: weights: cd34, expected ab12"):
        predictor(file)
    for path in Path(config["dataset"]["feat_folder"]).glob("*.json"):
        replace(MADE, weights="cd34").write(path)
    with pytest.raises(ValueError, match="features of training: weights: cd34, expected ab12"):
        evaluation.evaluate(config, folder, progress=False)
    with pytest.raises(ValueError, match="than at the start of the run: weights: cd34, expected ab12"):
        engine.train(config, folder, resume=folder, progress=False)
    Path(tmp_path / "new.json").unlink()
    assert len(predictor(file, fps=25))
