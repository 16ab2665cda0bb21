"""The error diagnosis against loops, and against the evaluator on what is left of the detections."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.evaluation.anet_detection import ANETdetection
from libs.evaluation.average_precision import GroundTruth, evaluate_detections
from libs.evaluation.detections import Detections, make_detections, read_results
from libs.evaluation.diagnosis import BINS, CORRECT, ERRORS, LOW, MISSES, PROFILE, diagnose

TIOU = [0.1, 0.5, 0.8]
VIDEOS = "abc"
rows = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(1, 12), st.integers(0, 2)), max_size=16)


def make_truth(events):
    """Rows of video, start, length, class; no duplicates."""
    events = sorted(set(events))
    ids = np.array([VIDEOS[v] for v, *_ in events], dtype=object)
    start, length, label = (np.array([e[k] for e in events], float) for k in (1, 2, 3))
    return GroundTruth(ids, start, start + length, label.astype(np.int64), frozenset(VIDEOS), 0)


def make_found(events, scores):
    ids, start, length, label = zip(*events, strict=True) if events else ((), (), (), ())
    end = [a + b for a, b in zip(start, length, strict=True)]
    return make_detections([VIDEOS[v] for v in ids], start, end, label, scores)


def iou(truth, g, found, d):
    if truth.video_id[g] != found.video_id[d]:
        return 0.0
    a0, a1, b0, b1 = truth.t_start[g], truth.t_end[g], found.t_start[d], found.t_end[d]
    inter = max(min(a1, b1) - max(a0, b0), 0.0)
    return inter / ((a1 - a0) + (b1 - b0) - inter)


def slow_diagnosis(truth, found, t):
    """Kinds by name of each detection and event, from a greedy matching in loops."""
    G, N = range(len(truth.label)), range(len(found.label))
    overlap = np.array([[iou(truth, g, found, d) for g in G] for d in N]).reshape(len(N), len(G))
    same = np.array([[truth.label[g] == found.label[d] for g in G] for d in N], bool).reshape(len(N), len(G))
    taken = {}
    for d in sorted(N, key=lambda d: (-found.score[d], -d)):
        free = [(overlap[d, g], g) for g in G if same[d, g] and overlap[d, g] >= t and g not in taken]
        if free:
            taken[max(free)[1]] = d

    def kind(overlaps, same, names):
        for name, mask, low in zip(names[:4], (same, ~same, same, ~same), (t, t, LOW, LOW), strict=True):
            if any(o >= low for o, m in zip(overlaps, mask, strict=True) if m):
                return name
        return names[4]

    errors = ["" if d in taken.values() else kind(overlap[d], same[d], ERRORS) for d in N]
    misses = ["" if g in taken else kind(overlap[:, g], same[:, g], MISSES) for g in G]
    return errors, misses


def without(found, keep):
    return Detections(*(column[keep] for column in found))


@settings(max_examples=50)
@given(rows.filter(len), rows, st.randoms(use_true_random=False))
def test_equals_loops_and_the_evaluator(events, detections, random):
    truth = make_truth(events)
    known = set(truth.label.tolist())
    detections = [d for d in detections if d[3] in known]
    found = make_found(detections, [random.randint(0, 9) / 10 for _ in detections])
    result = diagnose(truth, found, tiou=TIOU)
    for t, threshold in enumerate(TIOU):
        errors, misses = slow_diagnosis(truth, found, threshold)
        got = np.full(len(found.label), "", dtype=object)
        got[result.row] = ["" if e == CORRECT else ERRORS[e] for e in result.error[t]]
        assert got.tolist() == errors
        assert ["" if m == CORRECT else MISSES[m] for m in result.miss[t]] == misses
        # a partition of the false positives and of the events
        true = errors.count("")
        assert result.counts()[t].sum() + true == len(found.label)
        assert result.miss_counts()[t].sum() + true == len(truth.label)
        # the gain of each fix
        before = evaluate_detections(truth, found, tiou=[threshold]).average_mAP
        assert result.mAP[t] == pytest.approx(before, abs=1e-12)
        for k, name in enumerate(ERRORS):
            left = without(found, np.array([e != name for e in errors], dtype=bool))
            after = evaluate_detections(truth, left, tiou=[threshold]).average_mAP
            assert result.gain[t, k] == pytest.approx(after - before, abs=1e-12) and result.gain[t, k] >= -1e-12
        for group in result.groups:
            counts, missed = result.missed_in(group)
            assert counts.sum() == len(truth.label) and missed[t].sum() == len(misses) - true


def test_one_of_each_kind():
    truth = make_truth([(0, 0, 10, 0), (0, 20, 10, 1), (0, 40, 10, 1), (1, 0, 10, 0)])
    found = make_found(
        [(0, 0, 10, 0), (0, 1, 9, 0), (0, 20, 10, 0), (0, 35, 10, 1), (0, 37, 6, 0), (0, 60, 9, 0), (2, 0, 9, 1)],
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3],
    )
    result = diagnose(truth, found, tiou=[0.5], durations={"a": 100.0, "b": None})
    named = dict(zip(result.row.tolist(), result.error[0].tolist(), strict=True))
    assert [named[i] for i in range(7)] == [CORRECT, 0, 1, 2, 3, 4, 4]
    assert [MISSES[m] if m >= 0 else "" for m in result.miss[0]] == ["", "wrong label", "localisation", "undetected"]
    assert result.groups["coverage"].of_event.tolist()[-1] == -1  # its video has no duration
    counts, missed = result.missed_in("instances")
    assert counts.sum() == 4 and missed.sum() == 3


def test_ranges_are_open_below_and_closed_above():
    truth = make_truth([(0, 0, 3, 0), (0, 10, 4, 0), (1, 0, 20, 0)])
    found = make_found([(0, 0, 3, 0)], [0.5])
    result = diagnose(truth, found, tiou=[0.5], durations=dict.fromkeys("abc", 100.0), bins=BINS["thumos"])
    assert result.groups["length"].of_event.tolist() == [0, 1, 4]
    counts, missed = result.missed_in("length")
    assert counts[:2].tolist() == [1, 1] and counts[-1] == 1 and missed[0].tolist()[:2] == [0, 1]


def test_mistakes_and_empty():
    truth = make_truth([(0, 0, 3, 0)])
    nothing = make_detections([], [], [], [], [])
    with pytest.raises(ValueError, match=r"must not lie below 0\.1, found \[0\.05\]"):
        diagnose(truth, nothing, tiou=[0.05])
    result = diagnose(truth, nothing, tiou=[0.5])
    assert result.counts().sum() == 0 and result.miss_counts().tolist() == [[0, 0, 0, 0, 1]]
    assert result.profile.shape == (1, PROFILE, len(ERRORS) + 1) and result.gain.sum() == 0


def test_the_profile_counts_the_best_detections_of_each_class():
    truth = make_truth([(0, 0, 10, 0), (0, 20, 10, 1)])
    found = make_found([(0, 0, 10, 0), (0, 50, 9, 0), (0, 60, 9, 0), (0, 20, 10, 1)], [0.9, 0.8, 0.7, 0.1])
    profile = diagnose(truth, found, tiou=[0.5]).profile[0]
    assert profile[0].tolist() == [0, 0, 0, 0, 0, 2] and profile[1].tolist() == [0, 0, 0, 0, 1, 2]
    assert profile[2].tolist() == profile[-1].tolist() == [0, 0, 0, 0, 2, 2]


def test_on_the_released_detections_of_thumos14(real_data):
    """42,400 detections: the same partition and gains, at two thresholds by the evaluator."""
    evaluator = ANETdetection(str(real_data / "thumos14/annotations/thumos14.json"), "test", [0.3, 0.7])
    found = read_results(real_data / "thumos14/predictions/actionformer_thumos14_i3d.json", evaluator.label_ids)
    result = diagnose(evaluator.ground_truth, found, tiou=[0.3, 0.7])
    for t, threshold in enumerate([0.3, 0.7]):
        true = int((result.error[t] == CORRECT).sum())
        assert result.counts()[t].sum() + true == len(result.row)
        assert result.miss_counts()[t].sum() + true == len(evaluator.ground_truth.label)
        for k in range(len(ERRORS)):
            keep = np.ones(len(found.label), bool)
            keep[result.row[result.error[t] == k]] = False
            after = evaluate_detections(evaluator.ground_truth, without(found, keep), tiou=[threshold])
            assert result.mAP[t] + result.gain[t, k] == pytest.approx(after.average_mAP, abs=1e-12)
