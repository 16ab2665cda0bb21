"""Which videos an iteration sees."""

import pytest
import torch

from actionformer_nt.pseudo_sections import ViewSection
from actionformer_nt.self_training.batches import IterationBatches, iteration_loader
from actionformer_nt.self_training.views import view_of
from libs.core import distributed, load_config
from libs.datasets import make_dataset


def test_a_data_set_smaller_than_the_batch_gives_different_windows_of_its_videos(make_data):
    """A batch of six from two videos: three crops of each, and three views."""
    events = {name: [{"segment": [0.0, 9.0], "label_id": 0, "label": "a"}] for name in ("v0", "v1")}
    config = load_config(make_data(events, subsets=dict.fromkeys(events, "training"), steps=200))
    config["dataset"]["max_seq_len"] = 40
    dataset = make_dataset(config["dataset_name"], True, ["training"], **config["dataset"])
    batches = IterationBatches(2, 6, 0, start=0, end=2)
    first, second = iteration_loader(dataset, batches, 0)
    assert sorted(video["video_id"] for video in first) == ["v0"] * 3 + ["v1"] * 3
    starts = {(video["video_id"], video["feat_start"]) for video in first}
    assert len(starts) == 6 and starts != {(video["video_id"], video["feat_start"]) for video in second}
    views = [view_of(video, "strong", ViewSection(noise=0.5), 0, 0)[0]["feats"] - video["feats"] for video in first]
    assert not any(torch.equal(a, b) for k, a in enumerate(views) for b in views[:k])


def test_the_processes_share_the_repeats(monkeypatch):
    whole = list(IterationBatches(3, 8, 0, start=0, end=2))
    parts = []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(list(IterationBatches(3, 8, 0, start=0, end=2)))
    for batch, *shares in zip(whole, *parts, strict=True):
        keys = [(int(key), key.epoch, key.repeat) for key in batch]
        assert [(int(key), key.epoch, key.repeat) for key in shares[0]] == keys[::2]
        assert [(int(key), key.epoch, key.repeat) for key in shares[1]] == keys[1::2]
        assert len(set(keys)) == 8 and max(key.repeat for key in batch) == 2


def test_no_video():
    with pytest.raises(ValueError, match="no video"):
        IterationBatches(0, 2, 0, start=0, end=1)
