"""Detections for features alone: the same as evaluation's, from every form of features."""

import json
import re

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from actionformer_nt.commands.main import main
from libs.core import dump_config, load_config
from libs.evaluation import run as evaluation
from libs.evaluation.detections import read_results
from libs.inference.operating_point import stored_thresholds, thresholds_file
from libs.inference.predictor import Predictor
from libs.inference.subtitles import srt_time
from libs.inference.unannotated import Timing
from libs.modeling import make_meta_arch
from libs.training import run_folder
from libs.training.checkpoint import save_checkpoint

SPOT = {
    "model_name": "SPOT",
    "plugins": ["actionformer_nt"],
    "model": {"n_head": 2, "embd_dim": 8, "mask_dims": [8]},
}


@pytest.fixture
def make_run(make_data, tmp_path):
    """A run folder with an untrained detector; returns the configuration's path and the folder."""

    def make(*, spot=False, **sections):
        path = make_data(**sections)
        if spot:
            path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | SPOT))
        config, folder = load_config(path), tmp_path / "run"
        torch.manual_seed(0)
        model = make_meta_arch(config["model_name"], **config["model"])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape)
        state = {"state_dict": model.state_dict(), "state_dict_ema": model.state_dict(), "epoch": 1}
        save_checkpoint(state, False, str(folder), "last.pth.tar")
        dump_config(config, folder / "config.yaml")
        return path, folder

    return make


@pytest.fixture
def easy_events(make_run, event):
    """Events that the untrained detector meets: of every video its third detection of each class."""
    path, folder = make_run()
    predictor, events = Predictor.from_checkpoint(folder), {}
    for i in range(6):
        table = predictor(path.parent / "features" / f"v{i}.npy", fps=30)
        third = [table[table["label_id"] == label].iloc[2] for label in (0, 1)]
        events[f"v{i}"] = [event(row["start"], row["end"], int(row["label_id"])) for row in third]
    return events


@pytest.mark.two_paths
@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"spot": True},
        {"dataset": {"downsample_rate": 3}},
        {"dataset": {"feat_stride": -1}},
        {"dataset": {"force_upsampling": True, "max_seq_len": 128}},
        {"dataset": {"default_fps": 15.0}, "loader": {"eval_batch_size": 2}},
    ],
    ids=str,
)
def test_equals_evaluation(in_64_bits, make_run, sections):
    """With the duration that the annotations give, the detections of a test video are evaluation's."""
    path, folder = make_run(**sections)
    expected = evaluation.evaluate(load_config(path), folder, progress=False).detections
    predictor = Predictor.from_checkpoint(folder)
    for video in ("v4", "v5"):
        fps = None if "default_fps" in sections.get("dataset", {}) else 30.0
        table = predictor(path.parent / "features" / f"{video}.npy", fps=fps, duration=9.0)
        own = expected.video_id == video
        assert own.sum() == len(table) > 5 and set(table["video"]) == {video}
        for name, column in (("start", expected.t_start), ("end", expected.t_end), ("score", expected.score)):
            np.testing.assert_allclose(table[name], column[own], rtol=1e-9)  # a batch of two is summed otherwise
        assert set(table["label"]) <= {"class0", "class1"}


def test_every_form_of_features(make_run, tmp_path):
    path, folder = make_run()
    predictor = Predictor.from_checkpoint(folder, weights="raw", topk=7)
    source = path.parent / "features" / "v5.npy"
    feats = np.load(source)
    np.savez(tmp_path / "v5.npz", feats=feats)
    pd.DataFrame(feats).to_csv(tmp_path / "v5.csv", index=False)
    with h5py.File(tmp_path / "all.hdf5", "w") as file:
        file["v5"] = feats
    expected = predictor(source, fps=30)
    assert len(expected) == 7 and expected["score"].is_monotonic_decreasing
    assert expected["end"].max() <= (63 * 4 + 16) / 30 + 1e-6  # where the features end
    for form in (feats, torch.from_numpy(feats), tmp_path / "v5.npz", tmp_path / "v5.csv", tmp_path / "all.hdf5"):
        pd.testing.assert_frame_equal(predictor(form, fps=30, video_id="v5"), expected, rtol=1e-6)
    slow = predictor(source, fps=15, threshold=float(expected["score"].iloc[2]))
    np.testing.assert_allclose(slow["start"], 2 * expected["start"][: len(slow)], rtol=1e-6)
    assert len(slow) >= 3 and slow["score"].iloc[-1] >= expected["score"].iloc[2]
    timed = predictor(source, fps=30, feat_stride=8, num_frames=32)
    np.testing.assert_allclose(timed["end"], 2 * expected["end"], rtol=1e-6)


def test_further_folders_are_concatenated(make_run, tmp_path):
    path, folder = make_run(dataset={"input_dim": [5, 3]}, model={"embd_dim": [4, 4]})
    feats = np.load(path.parent / "features" / "v5.npy")
    for name, part in (("a", feats[:, :5]), ("b", feats[:62, 5:])):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "v5.npy", part)
    expected = Predictor.from_checkpoint(folder)(feats[:62], fps=30, video_id="v5")
    arguments = [str(path), str(folder), str(tmp_path / "a"), "--also-from", str(tmp_path / "b"), "--fps", "30"]
    assert main(["-q", "predict", *arguments, "--formats", "csv", "--out", str(tmp_path / "p")]) == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "p" / "predictions.csv"), expected, atol=1e-4)


def test_command(make_run, tmp_path, capsys):
    path, folder = make_run()
    out = tmp_path / "out"
    arguments = ["-q", "predict", str(path), str(folder), str(path.parent / "features"), "--fps", "30"]
    assert main([*arguments, "--threshold", "0.9", "--out", str(out)]) == 0
    assert "in 6 videos" in capsys.readouterr().out
    results = json.loads((out / "predictions.json").read_text())["results"]
    assert sorted(results) == [f"v{i}" for i in range(6)]  # also those without a detection
    label_ids = {"class0": 0, "class1": 1}
    detections = read_results(out / "predictions.json", label_ids)
    assert (detections.score >= 0.9).all() and len(detections.score) == len(pd.read_csv(out / "predictions.csv"))
    for video in results:
        assert (out / f"{video}.png").read_bytes()[:4] == b"\x89PNG"
        times = re.findall(r"(\d\d):(\d\d):(\d\d),(\d{3}) --> ", (out / f"{video}.srt").read_text())
        starts = [3600 * int(h) + 60 * int(m) + int(s) + int(ms) / 1000 for h, m, s, ms in times]
        np.testing.assert_allclose(starts, np.sort(detections.t_start[detections.video_id == video]), atol=6e-4)
    assert main([*arguments, "--top-k", "2", "--formats", "json", "--out", str(tmp_path / "two")]) == 0
    assert {
        len(found) for found in json.loads((tmp_path / "two" / "predictions.json").read_text())["results"].values()
    } == {2}
    assert {p.name for p in (tmp_path / "two").iterdir()} == {"predictions.json", ".written.json"}


def test_a_second_prediction_leaves_no_file_of_the_first(make_run, tmp_path):
    path, folder = make_run()
    features, out = path.parent / "features", tmp_path / "out"
    arguments = ["-q", "predict", str(path), str(folder), "--fps", "30", "--out", str(out)]
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert main([*arguments, str(features / "v0.npy"), str(features / "v1.npy")]) == 0
    assert main([*arguments, str(features / "v1.npy"), "--formats", "srt"]) == 0
    assert {p.name for p in out.iterdir()} == {"v1.srt", ".written.json", "notes.txt"}


def test_a_frame_rate_that_is_not_the_runs(make_data, tmp_path, capsys):
    path = make_data()
    assert main(["-q", "train", str(path), "--output", "x"]) == 0
    folder, features = tmp_path / "ckpt" / "tiny_x", path.parent / "features"
    for fps, told in (("30", False), ("25", True)):
        capsys.readouterr()
        command = ["-q", "predict", str(path), str(folder), str(features), "--fps", fps, "--formats", "csv"]
        assert main([*command, "--out", str(tmp_path / "out")]) == 0
        error = capsys.readouterr().err
        assert ("fps 25" in error and "30 in training" in error) == told, error


def test_arguments_of_another_type_are_told(make_run):
    path, folder = make_run()
    predictor = Predictor.from_checkpoint(folder)
    source = path.parent / "features" / "v5.npy"
    for options, words in (
        ({"fps": "25"}, "fps '25': expected a number, found a str"),
        ({"fps": 30, "num_frames": -1}, "num_frames -1: expected a positive number"),
        ({"fps": 30, "threshold": 30}, "threshold 30: expected a score from 0 to 1"),
        ({"fps": 30, "threshold": "high"}, "threshold 'high': expected a score"),
        ({"fps": 30, "threshold": True}, "threshold True: expected a score"),
        ({"fps": 30, "feat_stride": float("inf")}, "feat_stride inf: expected a finite number"),
    ):
        with pytest.raises(ValueError, match=words):
            predictor(source, **options)
    with pytest.raises(ValueError, match="features of 6 videos; expected one file"):
        predictor(source.parent, fps=30)
    assert len(predictor(source, fps=np.float32(30), num_frames=0, threshold=0)) > 0
    with pytest.raises(SystemExit):
        main(["predict", "c", "k", "f", "--threshold", "30"])


def test_thresholds_are_chosen_once_and_only_for_this_checkpoint(make_run, easy_events, tmp_path, capsys):
    path, folder = make_run(events=easy_events)
    checkpoint, config = folder / "last.pth.tar", load_config(path)
    arguments = ["predict", str(path), str(folder), str(path.parent / "features" / "v5.npy"), "--fps", "30"]
    arguments += ["--threshold", "auto", "--formats", "csv", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert "written to" in capsys.readouterr().err
    file = thresholds_file(checkpoint, "ema")
    assert json.loads(file.read_text())["made_from"]["split"] == ["test"]
    stored = stored_thresholds(config, checkpoint)
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    everything = Predictor.from_checkpoint(folder)(path.parent / "features" / "v5.npy", fps=30)
    limit = everything["label_id"].map({i: p.threshold for i, p in stored.per_class.items()})
    assert len(table) == (everything["score"] >= limit.fillna(stored.overall.threshold)).sum() < len(everything)
    assert main(arguments) == 0
    assert "written to" not in capsys.readouterr().err
    assert main([*arguments, "--labeled-split", "training"]) == 0  # another labeled set
    assert "made with another split" in capsys.readouterr().err
    assert main([*arguments, "--set", "test_cfg.nms_sigma=0.9", "--labeled-split", "training"]) == 0
    assert "made with another test_cfg" in capsys.readouterr().err
    state = torch.load(checkpoint, weights_only=True) | {"epoch": 2}
    save_checkpoint(state, False, str(folder), "last.pth.tar")
    assert stored_thresholds(config, checkpoint) is None
    with pytest.raises(ValueError, match="no thresholds are stored"):
        Predictor.from_checkpoint(folder)(path.parent / "features" / "v5.npy", fps=30, threshold="auto")


def test_thresholds_come_from_visible_labels_alone(make_data, make_run, easy_events, tmp_path):
    """Of a semi-supervised run, the events of unlabeled videos do not take part, and changing them changes nothing."""
    split = tmp_path / "split.json"
    _, folder = make_run(events=easy_events)
    annotations = tmp_path / "tiny" / "annotations.json"
    assert main(["-q", "splits", str(annotations), "--subset", "training", "--out", str(split), "--ratios", "0.5"]) == 0
    semi = {"split": {"file": str(split), "ratio": 0.5}, "method": "nt", "burn_in": 1, "iterations": 1}
    path = make_data(easy_events, semi_cfg=semi, plugins=["actionformer_nt"])
    chosen = []
    hidden = json.loads(split.read_text())["orders"][0][2:]
    for change in (False, True):
        if change:
            content = json.loads(annotations.read_text())
            for video in hidden:
                for found in content["database"][video]["annotations"]:
                    found["segment"] = [1.0, 2.0]
            annotations.write_text(json.dumps(content))
        thresholds_file(folder / "last.pth.tar", "ema").unlink(missing_ok=True)
        arguments = ["-q", "predict", str(path), str(folder), str(path.parent / "features" / "v5.npy"), "--fps", "30"]
        arguments += ["--threshold", "auto", "--labeled-split", "training", "--formats", "csv"]
        assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
        content = json.loads(thresholds_file(folder / "last.pth.tar", "ema").read_text())
        chosen.append((content["overall"], content["classes"]))
    assert chosen[0] == chosen[1] and chosen[0][0]["events"] == 4


def test_mistakes_name_what_is_wrong(make_run, tmp_path):
    path, folder = make_run()
    predictor = Predictor.from_checkpoint(folder)
    source, feats = path.parent / "features" / "v5.npy", np.zeros((64, 8))
    np.save(tmp_path / "v5.npy", feats.T)
    (tmp_path / "v5.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    for given, options, error, words in (
        (source, {}, ValueError, "'v5': give its fps"),
        (source, {"fps": -1}, ValueError, "fps -1: expected a positive number"),
        (source, {"feat_stride": 0}, ValueError, "'v5': feat_stride 0 spreads"),
        (tmp_path / "v5.npy", {"fps": 30}, ValueError, r"v5\.npy: 64 channels .*swapped"),
        (feats.T, {"fps": 30}, ValueError, r"'video': expected features \(T, 8\), found \(8, 64\); T and C"),
        (feats * np.nan, {"fps": 30}, ValueError, "'video': its features hold numbers that are not finite"),
        (tmp_path / "v6.npy", {"fps": 30}, FileNotFoundError, r"v6\.npy"),
        (tmp_path / "v5.txt", {"fps": 30}, ValueError, r"v5\.txt: features are read from"),
        (tmp_path / "empty", {"fps": 30}, FileNotFoundError, "no feature file"),
    ):
        with pytest.raises(error, match=words):
            predictor(given, **options)
    with pytest.raises(ValueError, match=r"two feature files of video 'v5'.*features/v5.npy and .*/v5.npy"):
        predictor.detect([source, tmp_path / "v5.npy"], Timing(fps=30))
    (folder / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"no configuration beside the checkpoint"):
        Predictor.from_checkpoint(folder)
    with pytest.raises(SystemExit):
        main(["predict", "c", "k", "f", "--threshold", "high"])


def test_class_names_come_from_the_run_folder(make_run):
    path, folder = make_run()
    run_folder.write_run_info(load_config(path), folder, label_ids={"jump": 0, "run": 1})
    (path.parent / "annotations.json").unlink()
    assert Predictor.from_checkpoint(folder).names == {0: "jump", 1: "run"}
    (folder / run_folder.CLASSES).unlink()
    assert Predictor.from_checkpoint(folder).names == {}  # shown as numbers
    assert set(Predictor.from_checkpoint(folder)(np.ones((64, 8)), fps=30)["label"]) <= {"0", "1"}


def test_times_of_subtitles():
    assert srt_time(0) == "00:00:00,000" and srt_time(3725.9996) == "01:02:06,000"
    assert srt_time(59.9994) == "00:00:59,999"
