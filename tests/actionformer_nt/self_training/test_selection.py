"""Thresholds per class from the rate of labeled events, and how much pseudo segments may overlap."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actionformer_nt.pseudo_sections import PseudoSection
from actionformer_nt.self_training.pseudo_segments import PseudoSegments, disjoint, overlap_matrix
from actionformer_nt.self_training.selection import (
    WINDOW,
    Selector,
    labeled_rates,
    minutes_of,
    most_overlap,
    rate_thresholds,
)
from actionformer_nt.self_training.setup import set_up
from libs.core import distributed, load_config

SCORES = st.lists(st.tuples(st.integers(1, 99), st.integers(0, 2)), max_size=40, unique_by=lambda pair: pair[0])


@given(SCORES, st.lists(st.floats(0, 3), min_size=3, max_size=3), st.floats(0.1, 20), st.sampled_from([0.0, 0.1, 0.5]))
def test_as_many_pseudo_segments_a_minute_as_labeled_events(found, rates, minutes, floor):
    scores = torch.tensor([score / 100 for score, _ in found], dtype=torch.float64)
    classes = torch.tensor([c for _, c in found], dtype=torch.long)
    rates = torch.tensor(rates, dtype=torch.float64)
    thresholds = rate_thresholds(scores, classes, minutes, rates, floor=floor)
    for c in range(3):
        own = [float(score) for score, k in zip(scores, classes, strict=True) if k == c]
        selected = [score for score in own if score >= thresholds[c]]
        wanted = math.floor(float(rates[c]) * minutes + 0.5)
        assert len(selected) == min(wanted, len([score for score in own if score >= floor]))
        assert sorted(selected) == sorted(own)[len(own) - len(selected) :]  # the best ones
        assert thresholds[c] >= floor


def proposals(scores, classes, num_classes=2):
    scores = torch.tensor(scores)
    segments = torch.stack([torch.arange(len(scores)), torch.arange(len(scores)) + 1.0], 1)
    return PseudoSegments(segments, scores, 9 * torch.eye(num_classes)[torch.tensor(classes, dtype=torch.long)])


def test_a_frequent_class_gets_a_lower_threshold_than_a_rare_one():
    selector = Selector(PseudoSection(select="rate"), torch.tensor([2.0, 0.5]))
    found = proposals([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [1, 1, 1, 0, 0, 0])
    selector.observe([found], [1.0])
    assert selector.select(found, selector.thresholds()).tolist() == [True, False, False, True, True, False]
    fixed = Selector(PseudoSection(threshold=0.55), torch.tensor([2.0, 0.5]))
    assert fixed.select(found, fixed.thresholds()).tolist() == [True] * 4 + [False] * 2


def test_the_window_forgets_and_resumes():
    options, rates = PseudoSection(select="rate", rate_floor=0.05), torch.tensor([0.2, 0.4])
    videos = [
        proposals(torch.rand(n := 1 + i % 4).tolist(), torch.randint(0, 2, (n,)).tolist()) for i in range(WINDOW + 30)
    ]
    selector = Selector(options, rates)
    for i, video in enumerate(videos):
        selector.observe([video], [0.5 + i % 3])
        if i == 40:
            other = Selector(options, rates)
            other.load_state({name: value.clone() for name, value in selector.state().items()})
        elif i > 40:
            other.observe([video], [0.5 + i % 3])
    assert len(selector.recent) == WINDOW and torch.equal(selector.thresholds(), other.thresholds())
    recent = videos[-WINDOW:]
    minutes = [0.5 + i % 3 for i in range(30, WINDOW + 30)]
    alone = Selector(options, rates)
    assert torch.equal(alone.joint_thresholds(recent, minutes), selector.thresholds())
    assert not torch.equal(alone.joint_thresholds(videos[:WINDOW], minutes), selector.thresholds())
    for state in (selector.state(), Selector(options, rates).state()):  # also without any video
        fresh = Selector(options, rates)
        fresh.load_state(state)
        assert fresh.state().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in fresh.state().items())


def test_every_process_sees_the_videos_of_all(monkeypatch):
    options, rates = PseudoSection(select="rate", rate_floor=0.0), torch.tensor([1.0, 1.0])
    videos = [proposals([0.9 - 0.1 * i, 0.3], [0, 1]) for i in range(4)]
    one = Selector(options, rates)
    one.observe(videos, [1.0] * 4)
    shares = [[one._scores(video, 1.0) for video in videos[rank::2]] for rank in range(2)]
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "gather", lambda value: shares)
    for rank in range(2):
        two = Selector(options, rates)
        two.observe(videos[rank::2], [1.0] * 2)
        assert all(torch.equal(value, one.state()[name]) for name, value in two.state().items())


def test_labeled_rates(make_semi):
    """Two labeled videos of 60 steps of 4 frames at the data set's 30 frames a second, with two events each."""
    run = set_up(load_config(make_semi(pseudo={"select": "rate"})))
    labeled = run.stages.labeled
    minutes = sum(60 * 4 / video.fps / 60 for video in labeled.videos)
    assert labeled_rates(labeled, 2).tolist() == pytest.approx([2 / minutes] * 2)
    assert torch.equal(run.teacher.self_training.selector.rates, labeled_rates(labeled, 2))
    assert minutes_of({"feats": torch.zeros(3, 90), "feat_stride": 20.0, "fps": 10.0}) == 3.0


def test_videos_that_are_all_known_are_selected_from_at_once(make_semi):
    self_training = set_up(load_config(make_semi(pseudo={"select": "rate", "rate_floor": 0.0}))).teacher.self_training
    self_training.selector.rates = torch.tensor([1.0, 1.0])
    found = [(proposals(scores, [0, 0]), 1.0) for scores in ([0.5, 0.4], [0.9, 0.8])]  # two in both
    first, second = self_training.select_jointly(found)
    assert not first.selected.any() and second.selected.tolist() == [True, True] and not first.ignored.any()
    assert not self_training.selector.informed  # the running state has not changed


def test_per_class_thresholds_of_videos_that_are_all_known():
    selector = Selector(PseudoSection(select="per_class", threshold=0.4), torch.zeros(3))
    videos = [proposals([0.8, 0.3], [0, 1]), proposals([0.4, 0.1], [0, 1]), proposals([], [])]
    found = selector.joint_thresholds(videos, [1.0] * 3)  # means of the best scores: .6, .2, none
    torch.testing.assert_close(found, torch.tensor([0.4, 0.4 * 0.2 / 0.6, 0.0]))
    assert not selector.informed


def fused(events):
    """Share of the shorter event, of the largest overlap of each event, by a loop."""
    shares = []
    for i, (a, b) in enumerate(events):
        others = [(c, d) for j, (c, d) in enumerate(events) if j != i]
        shares.append(max((max(min(b, d) - max(a, c), 0) / min(b - a, d - c) for c, d in others), default=0.0))
    return shares


@given(st.lists(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12), max_size=6))
def test_the_largest_overlap_of_labeled_events_by_a_scan(videos):
    events = [[(a, a + n) for a, n in video] for video in videos]
    shares = [share for video in events for share in fused(video)]
    found = most_overlap([torch.tensor(video, dtype=torch.float32).view(-1, 2) for video in events])
    if not shares:
        assert found == 1.0
        return
    allowed = [t for t in [0.0, *shares] if sum(share > t + 1e-9 for share in shares) <= 0.01 * len(shares)]
    assert found == pytest.approx(max(min(allowed), 0.25))


def test_data_sets_without_and_with_overlaps():
    """Like HAPT, whose activities follow each other; and like THUMOS14, where 13.5 % of the events lie in another."""
    chain = [torch.tensor([[10.0 * k, 10.0 * k + 10] for k in range(200)])]
    assert most_overlap(chain) == 0.25
    nested = [torch.cat([chain[0], torch.tensor([[10.0 * k + 2, 10.0 * k + 8] for k in range(16)])])]
    assert sum(share > 0.5 for share in fused(nested[0].tolist())) / 216 > 0.135
    assert most_overlap(nested) == 1.0
    few = [torch.cat([chain[0], torch.tensor([[10.0, 16.0]])])]  # one of 200 is an exception, two are not
    assert most_overlap(few) == 0.25
    half = [torch.cat([chain[0], torch.tensor([[14.0, 24.0], [54.0, 64.0], [94.0, 104.0]])])]
    assert most_overlap(half) == pytest.approx(0.6)
    assert disjoint(nested[0], 1.0).all()


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=15), st.sampled_from([0.25, 0.5, 0.99]))
def test_nested_segments_are_dropped_by_a_loop(found, limit):
    segments = [(a, a + n) for a, n in found]
    kept = []
    for a, b in segments:
        if all(max(min(b, d) - max(a, c), 0) / min(b - a, d - c) <= limit for c, d in kept):
            kept.append((a, b))
    given_segments = torch.tensor(segments, dtype=torch.float64).view(-1, 2)
    keep = disjoint(given_segments, limit)
    assert [tuple(row) for row in given_segments[keep].tolist()] == kept
    overlap = overlap_matrix(given_segments[keep], given_segments[keep]).fill_diagonal_(0)
    assert len(kept) == 0 or overlap.max() <= limit + 1e-9
