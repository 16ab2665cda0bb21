import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.evaluation.average_precision import GroundTruth, evaluate_detections, true_positives
from libs.evaluation.detections import make_detections
from libs.evaluation.thresholds import best_thresholds, read_thresholds, write_thresholds


def random_set(seed, events, count, classes=3, videos=2, steps=8):
    """Few videos, classes, places and scores, so that overlaps and ties abound."""
    rng = np.random.default_rng(seed)

    def rows(n):
        start = rng.integers(0, steps, n)
        return rng.integers(0, videos, n).astype(str).astype(object), start, start + rng.integers(1, 5, n)

    names, start, end = rows(events)
    labels = rng.integers(0, classes, events)
    truth = GroundTruth(names, start.astype(float), end.astype(float), labels, frozenset(names), 0)
    ids, start, end = rows(count)
    return truth, make_detections(ids, start, end, rng.integers(0, classes, count), rng.integers(1, 6, count) / 10)


def slow_hits(truth, detections, keep, tiou):
    """True positives among the kept detections, one detection after the other."""
    taken, rows = set(), np.flatnonzero(keep)
    for row in rows[np.argsort(detections.score[rows], kind="stable")[::-1]]:
        found = []
        for e in range(len(truth.label)):
            if truth.video_id[e] != detections.video_id[row] or truth.label[e] != detections.label[row] or e in taken:
                continue
            inter = min(truth.t_end[e], detections.t_end[row]) - max(truth.t_start[e], detections.t_start[row])
            union = truth.t_end[e] - truth.t_start[e] + detections.t_end[row] - detections.t_start[row] - inter
            if inter / union >= tiou:
                found.append((inter / union, e))
        if found:
            taken.add(max(found)[1])
    return len(taken)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 25))
def test_thresholds_maximise_f1(seed, events, count):
    truth, detections = random_set(seed, events, count)

    def best(rows, num_events):
        """(F1, threshold) by trying every score."""
        tried = []
        for threshold in np.unique(detections.score[rows]):
            keep = rows & (detections.score >= threshold)
            tried.append((2 * slow_hits(truth, detections, keep, 0.5) / (keep.sum() + num_events), threshold))
        return max(tried)

    everything = np.ones(count, bool)
    if slow_hits(truth, detections, everything, 0.5) == 0:
        with pytest.raises(ValueError, match="no detection matches"):
            best_thresholds(truth, detections)
        return
    found = best_thresholds(truth, detections)
    assert (found.overall.f1, found.overall.threshold) == pytest.approx(best(everything, events))
    for label in range(3):
        own, num_events = detections.label == label, int((truth.label == label).sum())
        if not num_events or not slow_hits(truth, detections, own, 0.5):
            assert label not in found.per_class
            continue
        point = found.per_class[label]
        assert (point.f1, point.threshold) == pytest.approx(best(own, num_events))
        assert point.f1 == pytest.approx(2 / (1 / point.precision + 1 / point.recall)) and point.events == num_events
        kept = found.keep(detections) & own
        assert kept.sum() * point.precision == pytest.approx(slow_hits(truth, detections, kept, 0.5))


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_true_positives_are_those_of_the_evaluator(seed):
    truth, detections = random_set(seed, 10, 30)
    result = evaluate_detections(truth, detections, tiou=[0.5], absent_labels="drop")
    matched = true_positives(truth, detections, tiou=0.5)
    for label, ap in zip(result.label, result.ap[0], strict=True):
        own = np.flatnonzero(detections.label == label)
        hits = matched[own[np.argsort(detections.score[own], kind="stable")[::-1]]]
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        envelope = [precision[i:].max() for i in range(len(hits))]
        assert ap == pytest.approx(
            sum(e for e, hit in zip(envelope, hits, strict=True) if hit) / sum(truth.label == label)
        )


def test_file_and_mistakes(tmp_path):
    truth, detections = random_set(1, 10, 30)
    found = best_thresholds(truth, detections)
    write_thresholds(tmp_path / "t.json", found, {0: "jump"}, {"split": ["test"]})
    assert read_thresholds(tmp_path / "t.json") == (found, {"split": ["test"]})
    assert "jump" in json.loads((tmp_path / "t.json").read_text())["classes"]
    (tmp_path / "u.json").write_text('{"classes": 3}')
    with pytest.raises(ValueError, match=r"u\.json: not a file of thresholds"):
        read_thresholds(tmp_path / "u.json")
    with pytest.raises(ValueError, match="no event"):
        best_thresholds(GroundTruth(*(np.zeros(0) for _ in range(4)), frozenset(), 0), detections)
