import json
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from libs.core import load_config
from libs.datasets import make_dataset, register_dataset
from libs.datasets.labels import label_ids, label_names
from libs.datasets.video import SampleKey


def dataset(path, is_training=True, name=None, **changes):
    config = load_config(path)
    split = config["train_split"] if is_training else config["val_split"]
    return make_dataset(name or config["dataset_name"], is_training, split, **(config["dataset"] | changes))


def features(path, video):
    return np.load(path.parent / "features" / f"{video}.npy")


def test_item_and_time_grid(make_data, event):
    """Step x of the grid is centred at (x * stride + num_frames / 2) / fps seconds."""
    path = make_data({"a": [event(1.0, 2.5, 1)], "b": []})
    data = dataset(path)
    item = data[0]
    assert item["video_id"] == "a" and (item["fps"], item["duration"]) == (30.0, 9.0)
    assert (item["feat_stride"], item["feat_num_frames"]) == (4, 16)
    np.testing.assert_array_equal(item["feats"].numpy(), features(path, "a").T)
    assert item["labels"].tolist() == [1] and item["segments"].dtype == torch.float32
    seconds = (item["segments"] * item["feat_stride"] + 0.5 * item["feat_num_frames"]) / item["fps"]
    np.testing.assert_allclose(seconds.numpy(), [[1.0, 2.5]], atol=1e-6)
    empty = data[1]
    assert empty["segments"].shape == (0, 2) and empty["labels"].shape == (0,)


def test_test_items_are_whole_and_without_events_are_none(make_data, event):
    path = make_data({"a": [event(1, 2, 1)], "b": []}, subsets={"a": "Test", "b": "TEST"}, steps=200)
    data = dataset(path, is_training=False)
    assert data[0]["feats"].shape == (8, 200) and data[1]["segments"] is None and data[1]["labels"] is None


@pytest.mark.parametrize("rate", [1, 3])
def test_a_crop_reads_the_very_rows(make_data, event, rate):
    path = make_data({"a": [event(1, 2, 1), event(4, 8, 0)]}, steps=250)
    data = dataset(path, max_seq_len=32, downsample_rate=rate)
    whole = features(path, "a")[::rate]
    starts = set()
    for epoch in range(8):
        item = data[SampleKey(0, epoch)]
        assert item["feats"].shape == (8, 32) and item["feat_stride"] == 4 * rate
        (start,) = [s for s in range(len(whole) - 31) if np.array_equal(whole[s], item["feats"][:, 0].numpy())]
        np.testing.assert_array_equal(item["feats"].numpy(), whole[start : start + 32].T)
        starts.add(start)
        again = data[SampleKey(0, epoch)]
        assert torch.equal(item["feats"], again["feats"]) and torch.equal(item["segments"], again["segments"])
    assert len(starts) > 1


def test_cropping_depends_on_seed_epoch_and_index_only(make_data, event):
    path = make_data({v: [event(1, 8, 1)] for v in "abc"}, steps=300)
    a, b = dataset(path, seed=1, max_seq_len=32), dataset(path, seed=1, max_seq_len=32)
    expected = {(i, e): a[SampleKey(i, e)]["feats"] for e in range(3) for i in range(3)}
    for i, e in reversed(list(expected)):
        assert torch.equal(b[SampleKey(i, e)]["feats"], expected[i, e])
    other = dataset(path, seed=2, max_seq_len=32)
    assert any(not torch.equal(other[SampleKey(i, e)]["feats"], f) for (i, e), f in expected.items())


def test_the_three_cases_of_activitynet(make_data, event):
    """(stride, num_frames, steps) for features every 4 frames, upsampled, and spread over the video."""
    path = make_data({"a": [event(0.5, 8.9, 0), event(8.95, 9.0, 1)]}, steps=50)
    raw = features(path, "a")
    plain = dataset(path, name="anet")[0]
    assert (plain["feat_stride"], plain["feat_num_frames"], plain["feats"].shape[1]) == (4, 16, 50)

    resized = dataset(path, name="anet", force_upsampling=True)[0]
    stride = (49 * 4 + 16) / 64
    assert resized["feat_stride"] == resized["feat_num_frames"] == stride
    expected = F.interpolate(torch.from_numpy(raw.T)[None], size=64, mode="linear", align_corners=False)[0]
    assert torch.equal(resized["feats"], expected)
    # events are cut where the features end, half a step after the last one; what starts later is dropped
    end = (np.array([0.5, 8.9], np.float32) * 30 / stride - 0.5).clip(max=64.5)
    np.testing.assert_allclose(resized["segments"].numpy(), [end], atol=1e-4)

    same_length = dataset(path, name="anet", force_upsampling=True, max_seq_len=50, downsample_rate=2)
    np.testing.assert_array_equal(same_length[0]["feats"].numpy(), raw.T)  # upsampling ignores downsample_rate

    spread = dataset(path, name="anet", feat_stride=-1)[0]
    assert spread["feat_stride"] == spread["feat_num_frames"] == 9.0 * 30 / 50 and spread["feats"].shape[1] == 50
    with pytest.raises(ValueError, match=r"'a': 50 steps.*max_seq_len=32"):
        dataset(path, name="anet", feat_stride=-1, max_seq_len=32)[0]
    rescaled = dataset(path, name="anet", feat_stride=-1, max_seq_len=32, force_upsampling=True)[0]
    assert rescaled["feat_stride"] == 9.0 * 30 / 32 and rescaled["feats"].shape[1] == 32
    with pytest.raises(ValueError, match="force_upsampling"):
        dataset(path, name="thumos", force_upsampling=True)


def test_one_class_for_everything(make_data, event):
    path = make_data({"a": [event(1, 2, 1), event(3, 4, 0)]})
    assert dataset(path, name="anet", num_classes=1)[0]["labels"].tolist() == [0, 0]


def test_class_names_are_the_ids_inverted_and_none_where_one_class_stands_for_all(make_data, event):
    path = make_data({"a": [event(1, 2, 1, "walk"), event(3, 4, 0, "run"), event(5, 6, 1, "stroll")]})
    assert dataset(path).class_names == {1: "walk", 0: "run"}  # of two names of one id the first
    agnostic = dataset(path, name="anet", num_classes=1)
    assert agnostic.class_names == {}
    assert label_names(agnostic, external_scores=True) == {1: "walk", 0: "run"}

    class Own:
        label_dict = {"sit": 0}

    assert (label_names(Own()), label_ids(Own())) == ({0: "sit"}, {"sit": 0})
    assert (label_names(object()), label_ids(object())) == ({}, {})


def test_duplicates(make_data, event):
    path = make_data({"a": [event(1, 2, 0), event(1, 2, 0), event(1, 2, 1)]})
    assert len(dataset(path)[0]["labels"]) == 3
    assert dataset(path, duplicates="remove")[0]["labels"].tolist() == [0, 1]
    assert dataset(path, name="anet")[0]["labels"].tolist() == [0, 1]


def test_missing_features_are_counted_or_refused(make_data, caplog):
    path = make_data()
    (path.parent / "features" / "v1.npy").unlink()
    with caplog.at_level(logging.WARNING):
        data = dataset(path)
    assert len(data) == 3 and "1 of 4 videos have no feature file" in caplog.text and "v1" in caplog.text
    with pytest.raises(FileNotFoundError, match=r"v1\.npy"):
        dataset(path, missing_features="error")
    with pytest.raises(FileNotFoundError, match="4 of 4"):
        dataset(path, file_ext=".npz")


def test_labels_must_fit(make_data, event):
    path = make_data({"a": [event(1, 2, 0), event(3, 4, 5, "jump")]})
    with pytest.raises(ValueError, match=r"num_classes=2.*'jump': 5.*at least 6"):
        dataset(path)
    assert dataset(path, num_classes=8).get_attributes()["empty_label_ids"] == [1, 2, 3, 4, 6, 7]
    with pytest.raises(ValueError, match=r"2 different labels.*num_classes is 8.*generic"):
        dataset(path, name="thumos", num_classes=8)
    with pytest.raises(ValueError, match=r"video 'a': label_id -1 is negative"):
        dataset(make_data({"a": [event(1, 2, -1)]}, name="negative"))


def test_missing_times(make_data, event):
    path = make_data({"a": [event(1, 2, 0), event(1, 2, 1)]})
    annotations = json.loads((path.parent / "annotations.json").read_text())
    del annotations["database"]["a"]["fps"], annotations["database"]["a"]["duration"]
    (path.parent / "annotations.json").write_text(json.dumps(annotations))
    with pytest.raises(ValueError, match="'a' has no 'fps'"):
        dataset(path)
    with pytest.raises(ValueError, match="'a' has no 'duration'"):
        dataset(path, default_fps=25)
    assert dataset(path, name="thumos", default_fps=25)[0]["duration"] == 1e8


def test_empty_split_and_unknown_name(make_data):
    path = make_data()
    with pytest.raises(ValueError, match=r"no video with subset in \['validation'\]"):
        make_dataset("generic", True, ["validation"], **load_config(path)["dataset"])
    with pytest.raises(ValueError, match="did you mean 'thumos'"):
        make_dataset("thumoss", True, ["training"])


def test_a_registered_data_set_is_made_by_name():
    @register_dataset("mine_for_test")
    def make(is_training, split, **section):
        return is_training, split, section

    assert make_dataset("mine_for_test", True, ["x"], a=1) == (True, ["x"], {"a": 1})
    with pytest.raises(ValueError, match="already registered"):
        register_dataset("thumos")(make)


def test_a_window_of_no_frame(make_data):
    """`num_frames: 0`: row x stands for frame x * feat_stride, without half a window's shift."""
    path = make_data(dataset={"num_frames": 0})
    item = dataset(path)[0]
    seconds = np.array([[0.5, 2.5], [5.0, 7.0]])  # of v0, see `make_data`
    np.testing.assert_allclose(item["segments"].numpy(), seconds * 30 / 4, rtol=1e-6)
    half = dataset(make_data())[0]["segments"].numpy()
    np.testing.assert_allclose(item["segments"].numpy() - half, 16 / 2 / 4, rtol=1e-5)
