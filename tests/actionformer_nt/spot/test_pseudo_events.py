"""Pseudo labels from detections, against loops over snippets."""

import json

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from actionformer_nt import run as semi_run
from actionformer_nt.spot.pseudo_events import Events, FoundVideo, choose, events_of, relabel
from actionformer_nt.spot.whole_videos import WholeVideo
from libs.core import load_config
from libs.modeling.decode import Candidates


def whole_video(seed, length, classes=3, width=8):
    generator = torch.Generator().manual_seed(seed)
    probs = torch.rand(1, length, classes + 1, generator=generator).softmax(dim=-1)
    starts = torch.clamp(torch.arange(length) - width // 2, 0, max(length - width, 0))
    return WholeVideo(
        probs, torch.ones(1, length, dtype=torch.bool), torch.rand(length, width, generator=generator) > 0.5,
        torch.ones(1, length, dtype=torch.bool), torch.rand(1, length, generator=generator), torch.ones(1, length),
        starts,
    )  # fmt: skip


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(4, 20), st.integers(0, 5))
def test_relabelled_snippets_are_those_of_the_shortest_event(seed, length, count):
    generator = torch.Generator().manual_seed(seed)
    labels = whole_video(seed, length)
    begin = torch.randint(0, length - 1, (count,), generator=generator)
    size = torch.randint(1, length, (count,), generator=generator)
    ranges = torch.stack([begin, (begin + size).clamp(max=length)], dim=1)
    probs = torch.rand(count, 3, generator=generator).softmax(dim=1)
    found = relabel(labels, Events(ranges, torch.rand(count, generator=generator), probs))
    for j in range(length):
        covering = [(int(b - a), int(a), n) for n, (a, b) in enumerate(ranges.tolist()) if a <= j < b]
        is_background = int(labels.probs[0, j].argmax()) == 3
        if not covering:
            assert bool(found.confident[0, j]) == bool(found.mask_rows[0, j]) == is_background
            assert torch.equal(found.probs[0, j], labels.probs[0, j]) and not found.masks[j].any()
            continue
        shortest = [n for size, a, n in covering if (size, a) == min(covering)[:2]]
        assert found.confident[0, j] and found.mask_rows[0, j] and found.probs[0, j, 3] == 0
        assert any(torch.equal(found.probs[0, j, :3], probs[n]) for n in shortest)
        a, b = ranges[shortest[0]].tolist()
        start = int(labels.starts[j])
        assert found.masks[j].tolist() == [a <= start + k < b for k in range(labels.masks.shape[1])]


def test_detections_have_the_mean_distribution_of_their_snippets():
    labels = whole_video(0, 12)
    segments = torch.tensor([[-0.5, 4.5], [0.5, 4.5], [6.5, 9.5], [6.5, 11.5]])
    found = events_of(Candidates(segments, torch.tensor([0.9, 0.8, 0.7, 0.05]), torch.tensor([0, 1, 1, 2])), labels)
    assert found.ranges.tolist() == [[0, 5], [7, 10]]  # the second overlaps a better one, the fourth is below the floor
    for (a, b), probs in zip(found.ranges.tolist(), found.probs, strict=True):
        mean = labels.probs[0, a:b, :3].mean(dim=0)
        torch.testing.assert_close(probs, mean / mean.sum())


def test_as_many_events_of_a_class_are_chosen_as_are_labeled_per_minute():
    events = Events(
        torch.tensor([[0, 2], [3, 5], [6, 8], [9, 11]]), torch.tensor([0.9, 0.8, 0.7, 0.6]),
        torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.9, 0.0], [0.6, 0.4, 0.0], [0.5, 0.4, 0.1]]),
    )  # fmt: skip
    found = [FoundVideo(whole_video(k, 12), events, 1.5) for k in range(2)]
    one, two = choose(found, torch.tensor([1.0, 0.0, 2.0]))  # 3 of class 0 in 3 minutes, ties included
    assert (one.probs[0, [0, 1, 6, 7], 3] == 0).all() and one.confident[0, [0, 1, 6, 7]].all()
    assert (one.probs[0, [3, 4, 9, 10], 3] > 0).all() and torch.equal(one.confident, one.mask_rows)
    assert torch.equal(one.probs[0, 0], two.probs[0, 0])


def test_a_run_learns_from_events_and_resumes(make_semi, tmp_path, interrupted):
    stages = [
        {"learn": "labeled", "iterations": 3},
        {"learn": "pseudo", "iterations": 2, "labels": "stored", "repeat": 2},
    ]
    path = make_semi(arch="SPOT", stages=stages, burn_in=0, iterations=0)
    raw = yaml.safe_load(path.read_text())
    raw["model"] = raw["model"] | {"pseudo": {"unit": "events", "align": False}}
    path.write_text(yaml.safe_dump(raw))
    config = load_config(path)
    whole = semi_run.train(config, tmp_path / "whole", progress=False)
    with interrupted(6):
        semi_run.train(config, tmp_path / "half", progress=False)
    half = semi_run.train(config, tmp_path / "half", resume=tmp_path / "half", progress=False)
    lines = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (whole, half)]
    assert lines[0] == lines[1] and lines[0][-1]["unlabeled/cls_loss"] > 0


def test_events_need_stored_labels(make_semi, tmp_path):
    path = make_semi(arch="SPOT")
    raw = yaml.safe_load(path.read_text())
    raw["model"] = raw["model"] | {"pseudo": {"unit": "events", "align": False}}
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(ValueError, match=r"model\.pseudo\.unit: events: .* use labels: stored"):
        semi_run.train(load_config(path), tmp_path / "run", progress=False)
