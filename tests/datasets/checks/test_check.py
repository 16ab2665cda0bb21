"""Planted faults: each is found, named, and nothing else is."""

import json

import numpy as np
import pytest

from actionformer_nt.commands.main import main
from libs.core import load_config
from libs.datasets.annotations import read_annotations
from libs.datasets.checks import check_data
from libs.datasets.checks.timing import VideoLength, fitting
from libs.evaluation.average_precision import ground_truth


class Data:
    """A healthy data set to break."""

    def __init__(self, path):
        self.path, self.folder = path, path.parent / "features"
        self.annotations = path.parent / "annotations.json"
        self.content = json.loads(self.annotations.read_text())
        self.videos = self.content["database"]

    def events(self, video):
        return self.videos[video]["annotations"]

    def feats(self, video, array, ending=".npy"):
        np.save(self.folder / f"{video}{ending}", array)

    def check(self, **options):
        self.annotations.write_text(json.dumps(self.content))
        return check_data(load_config(self.path), jobs=1, **options)


@pytest.fixture
def data(make_data):
    return Data(make_data())


def serious(report):
    return {f.kind for f in report.findings if f.level != "note"}


def test_healthy_data_have_no_findings(make_data):
    data = Data(make_data(model={"backbone_arch": [1, 1, 0], "regression_range": [[0, 10000]]}))
    report = data.check(full=True)
    assert not list(report.findings) and "no findings" in report.format()


def feats(steps=64, channels=8):
    return np.random.default_rng(1).standard_normal((steps, channels)).astype(np.float32)


def segment(video, start, end):
    return lambda data: data.events(video)[0].update(segment=[start, end])


def first_event(**keys):
    return lambda data: data.events("v1")[0].update(keys)


def twice(data):
    data.events("v1").append(dict(data.events("v1")[0], segment=[1.5004, 3.5]))


def all_at_stride_8(data):
    for i in range(6):
        data.feats(f"v{i}", feats(32))


def only_in_test(data):
    for video in data.videos.values():
        for event in video["annotations"]:
            if video["subset"] == "training":
                event.update(label="class0", label_id=0)


FAULTS = {
    # name: (fault, kind of the finding, where, a word of what is said, its level)
    "file missing": (lambda d: (d.folder / "v1.npy").unlink(), "missing-file", "v1", "v1.npy", "warning"),
    "all files missing": (
        lambda d: [p.rename(p.with_suffix(".npz")) for p in d.folder.iterdir()],
        "missing-file", "v0", "v0.npy", "error",
    ),
    "file of no video": (lambda d: d.feats("w9", feats()), "extra-file", "w9", "no video", "warning"),
    "T and C swapped": (lambda d: d.feats("v2", feats().T), "swapped", "v2", "(8, 64)", "error"),
    "channels": (lambda d: d.feats("v2", feats(channels=7)), "channels", "v2", "7 channels", "error"),
    "damaged": (lambda d: (d.folder / "v2.npy").write_bytes(b"x"), "damaged-file", "v2", "v2.npy", "error"),
    "one dimension": (lambda d: d.feats("v2", np.zeros(64)), "shape", "v2", "(64,)", "error"),
    "no step": (lambda d: d.feats("v2", feats(0)), "shape", "v2", "(0, 8)", "error"),
    "NaN": (lambda d: d.feats("v2", feats() * np.nan), "not-finite", "v2", "row 0", "error"),
    "zeros": (lambda d: d.feats("v2", feats() * 0), "all-zero", "v2", "0", "warning"),
    "too short": (lambda d: d.feats("v4", feats(55)), "length", "v4", "55 steps, expected about 64", "warning"),
    "other stride": (all_at_stride_8, "timing", "v0", "32 steps, expected about 64", "error"),
    "features end early": (
        lambda d: d.feats("v4", feats(30)), "beyond-features", "v4", "[4.5, 6.5] begins after", "warning",
    ),
    "label id too large": (first_event(label="c7", label_id=7), "label-outside", "c7", "num_classes=2", "error"),
    "label id of another": (first_event(label_id=0), "label-with-two-ids", "class1", "[0, 1]", "error"),
    "two names": (first_event(label="other"), "id-with-two-labels", "label_id 1", "'other'", "warning"),
    "label id not a number": (first_event(label_id="1"), "label-id", "v1", "'1'", "error"),
    "no label": (first_event(label=None, label_id=None), "no-label", "v1", "neither", "error"),
    "label without id": (first_event(label="new", label_id=None), "label-without-id", "new", "'v1'", "error"),
    "case of a label": (first_event(label="Class1 "), "similar-labels", "Class1 ", "'class1'", "warning"),
    "past the end": (segment("v1", 8.0, 9.7), "past-end", "v1", "0.70 s after", "warning"),
    "before the start": (segment("v1", -0.2, 2.0), "before-start", "v1", "[-0.2, 2]", "warning"),
    "reversed": (segment("v1", 4.0, 2.0), "reversed-event", "v1", "[4, 2]", "error"),
    "no length": (segment("v1", 4.0, 4.0), "empty-event", "v1", "[4, 4]", "warning"),
    "no segment": (segment("v1", 4.0, "end"), "bad-segment", "v1", "'end'", "error"),
    "duplicate": (twice, "duplicate-event", "v1", "[1.5004, 3.5]", "warning"),
    "class absent from training": (only_in_test, "absent-class", "class1", "none in train_split", "warning"),
    "no frame rate": (lambda d: d.videos["v1"].pop("fps"), "no-fps", "v1", "no 'fps'", "error"),
    "no duration": (lambda d: d.videos["v1"].pop("duration"), "no-duration", "v1", "no 'duration'", "error"),
    "negative duration": (lambda d: d.videos["v1"].update(duration=-9), "duration", "v1", "-9", "error"),
    "no subset": (lambda d: d.videos["v1"].pop("subset"), "video-entry", "v1", "'subset'", "error"),
    "events not a list": (
        lambda d: d.videos["v1"].update(annotations={"segment": [1, 2]}), "video-entry", "v1", "not a list", "error",
    ),
    "no database": (lambda d: d.content.pop("database"), "annotation-file", "annotations.json", "'database'", "error"),
}  # fmt: skip
COMPANIONS = {  # what else such a fault rightly causes
    "features end early": {"length"},
    "label id of another": {"absent-class"},
    "two names": {"absent-class"},
    "case of a label": {"absent-class", "id-with-two-labels"},
    "label id too large": {"absent-class"},
    "label without id": {"absent-class"},
    "no subset": {"extra-file"},
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_planted_fault_is_found_and_named(data, name):
    plant, kind, where, word, level = FAULTS[name]
    plant(data)
    report = data.check(full=True)
    assert kind in report.findings, report.format()
    finding = report.findings[kind]
    assert finding.level == level
    assert any(where in place and word in what for place, what in finding.places), finding
    allowed = {kind} | COMPANIONS.get(name, set())
    assert serious(report) <= allowed, report.format()
    text = report.format()
    assert kind in text and finding.places[0][1] in text


def test_faults_of_the_configuration(make_data):
    """Faults that show only against the configuration."""
    for name, sections, kind, where, word in (
        ("a", {"val_split": ["testing"]}, "no-videos", "testing", "'test': 2"),
        ("b", {"val_split": ["training"]}, "same-subset", "training", "evaluation"),
        ("c", {"dataset": {"feat_stride": -1, "max_seq_len": 32}}, "too-long", "v0", "64 steps"),
        ("d", {"model": {"regression_range": [[0, 2], [2, 4], [4, 6]]}}, "no-level", "v0", "15.0 grid steps"),
        ("e", {"dataset": {"feat_folder": "/none"}}, "feature-folder", "/none", "folder not found"),
        ("f", {"dataset": {"file_ext": ".csv"}}, "missing-file", "v0", "v0.csv"),
        ("g", {"dataset": {"downsample_rate": 16}}, "short-event", "v0", "0.94 grid steps"),
        ("h", {"dataset_name": "thumos", "dataset": {"num_classes": 3}}, "class-without-label", "label_id 2", "3"),
    ):
        report = Data(make_data(name=name, **sections)).check()
        assert serious(report) == {kind}, (name, report.format())
        assert any(where in place and word in what for place, what in report.findings[kind].places), report.format()
    assert "6 files .npy" in Data(make_data(name="f", dataset={"file_ext": ".csv"})).check().format()


def test_several_folders(make_data):
    data = Data(make_data(dataset={"input_dim": [8, 3]}, model={"embd_dim": [4, 4]}))
    other = data.path.parent / "other"
    other.mkdir()
    for i in range(6):
        np.save(other / f"v{i}.npy", feats(63, 3))
    np.save(other / "v3.npy", feats(50, 3))
    np.save(other / "v4.npy", feats(64, 4))
    config = load_config(data.path, overrides=[f"dataset.feat_folder=[{data.folder}, {other}]"])
    report = check_data(config, jobs=2)
    assert serious(report) == {"folders-disagree", "channels"}
    assert report.findings["folders-disagree"].places[0][0] == "v3" and report.findings["channels"].places[0][0] == "v4"


def test_broken_files(data):
    data.annotations.write_text("{")
    assert "not JSON" in check_data(load_config(data.path)).findings["annotation-file"].places[0][1]
    text = json.dumps(data.content)
    data.annotations.write_text(text.replace('"v5"', '"v4"'))
    report = check_data(load_config(data.path))
    assert report.findings["repeated-key"].places[0][0] == "v4"
    data.annotations.unlink()
    assert "No such file" in check_data(load_config(data.path)).findings["annotation-file"].places[0][1]


@pytest.mark.parametrize("stride, fps", [(8, 30.0), (4, 25.0), (3, 29.97), (4, 60.0)])
def test_what_would_fit_is_found(stride, fps):
    """Features at one stride, described as stride 4 at 30 frames per second: the advice names what is true."""
    durations = np.random.default_rng(0).uniform(40, 200, 20)
    lengths = [VideoLength(f"v{i}", int((d * fps - 16) // stride) + 1, d, 30.0) for i, d in enumerate(durations)]
    advice = fitting(lengths, stride=4, num_frames=16)
    if fps == 30.0:
        assert f"dataset.feat_stride: {stride} or" in advice
    if stride == 4:
        assert f"dataset.default_fps: {fps:g} would fit" in advice
    assert "would fit" in advice
    mixed = [length._replace(steps=length.steps * (1 + i % 3)) for i, length in enumerate(lengths)]
    assert "no one stride or frame rate" in fitting(mixed, stride=4, num_frames=16)


def test_command_and_its_exit_status(data, tmp_path, capsys):
    assert main(["check-data", str(data.path)]) == 0
    out = capsys.readouterr().out
    assert "median" in out and "recommended" in out and "0 errors" in out
    np.save(data.folder / "v1.npy", feats().T)
    assert main(["-q", "check-data", str(data.path), "--full", "--json", str(tmp_path / "found.json")]) == 4
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(f["check"], f["count"]) for f in found["findings"]] == [("swapped", 1), ("unused-level", 1)]
    assert main(["check-data", str(data.path), "--no-features"]) == 0
    assert main(["check-data", str(data.path), "--set", "dataset.input_dim=64"]) == 4


def test_a_registered_reader_has_the_last_word(data, monkeypatch):
    """Whatever the checks miss and the reader refuses is still an error."""

    def refuse(*_, **__):
        raise ValueError("no")

    monkeypatch.setattr("libs.datasets.checks.check.make_dataset", refuse)
    assert data.check().findings["cannot-be-read"].places[0] == ("train_split", "no")


# ---------------------------------------------------------------- real data


def real_report(real_data, config, annotations, **options):
    config = load_config(f"configs/{config}.yaml", overrides=[f"dataset.json_file={real_data / annotations}"])
    return check_data(config, **options)


def counts(report):
    return {f.kind: len(f.places) for f in report.findings if f.level != "note"}


def test_thumos_annotations(real_data):
    report = real_report(real_data, "thumos_i3d", "thumos14/annotations/thumos14.json", features=False)
    assert counts(report) == {"past-end": 30}


def test_activitynet_annotations(real_data):
    path = "anet13/annotations/anet13.json"
    report = real_report(real_data, "anet_i3d", path, features=False)
    dropped = ground_truth(read_annotations(real_data / path).videos).num_dropped  # what evaluation leaves out
    assert counts(report) == {"empty-event": 12, "past-end": 1, "duplicate-event": dropped - 12}


def test_thumos_feature_lengths_fit(real_data, tmp_path):
    """Files of the lengths that the released features have: none is called wrong, and with the frame rate of most
    videos taken for all, those that have another are."""
    lengths = json.loads((real_data / "thumos14/annotations/i3d_feature_lengths.json").read_text())
    lengths = lengths.get("lengths", lengths)
    for video, steps in lengths.items():  # files of holes: only their headers take room
        np.lib.format.open_memmap(tmp_path / f"{video}.npy", "w+", np.float32, (int(steps), 2048))
    overrides = [f"dataset.json_file={real_data}/thumos14/annotations/thumos14.json", f"dataset.feat_folder={tmp_path}"]
    config = load_config("configs/thumos_i3d.yaml", overrides=overrides)
    report = check_data(config)
    beyond = {"beyond-features"} & serious(report)  # of the 30 events past the end, those that begin there
    assert serious(report) == {"past-end", "extra-file"} | beyond
    assert [place for place, _ in report.findings["extra-file"].places] == ["video_test_0001292"]
    config["dataset"]["default_fps"] = 30.0
    wrong = {place for place, _ in check_data(config).findings["length"].places}
    slow = {v.id for v in read_annotations(config["dataset"]["json_file"]).videos if v.fps < 29}
    assert slow and wrong == slow


@pytest.mark.parametrize("config", ["gtea", "semi/hapt_05", "semi/salads50_10"])
def test_small_real_data_sets_are_healthy(real_data, config, monkeypatch):
    path = load_config(f"configs/{config}.yaml")["dataset"]
    folder = path["feat_folder"].split("data/", 1)[1]
    overrides = [
        f"dataset.json_file={real_data / path['json_file'].split('data/', 1)[1]}",
        f"dataset.feat_folder={real_data / folder}",
    ]
    assert not counts(check_data(load_config(f"configs/{config}.yaml", overrides=overrides), full=True))
