import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.evaluation.anet_detection import ANETdetection
from libs.evaluation.average_precision import GroundTruth, evaluate_detections
from libs.evaluation.detections import Detections, make_detections

COLUMNS = {"video-id": "video_id", "t-start": "t_start", "t-end": "t_end", "label": "label", "score": "score"}


@pytest.mark.parametrize("case", range(3))
def test_equals_actionformer(reference, case, capsys):
    z = np.load(reference / f"eval{case}.npz")
    evaluator = ANETdetection(str(reference / f"eval{case}_annotations.json"), "test", z["tiou"])
    assert len(evaluator.ground_truth.label) == z["num_gt"]
    predictions = {name: z[key] for name, key in COLUMNS.items()}
    for given_as in (predictions, pd.DataFrame(predictions)):
        mean, average, recall = evaluator.evaluate(given_as)
        np.testing.assert_allclose(mean, z["mAP"], atol=1e-9)
        assert average == pytest.approx(float(z["average_mAP"]), abs=1e-9)
        np.testing.assert_allclose(recall, z["recall"], atol=1e-9)
        np.testing.assert_allclose(evaluator.result.ap, z["ap"], atol=1e-9)
    assert f"average mAP {100 * average:.2f}" in capsys.readouterr().out


def slow_evaluation(truth, detections, tiou, topk):
    """The procedure of ActionFormer's evaluator in loops: greedy matching in order of score, AP, Recall@kx."""
    classes = sorted(set(truth.label.tolist()))
    ap, recall = np.zeros((len(tiou), len(classes))), np.zeros((len(tiou), len(topk), len(classes)))
    for c, label in enumerate(classes):
        rows = np.flatnonzero(detections.label == label)
        rows = rows[np.argsort(detections.score[rows], kind="stable")[::-1]]
        events = np.flatnonzero(truth.label == label)
        for t, threshold in enumerate(tiou):
            taken, tp = set(), []
            for r in rows:
                overlaps = [
                    (iou(truth, e, detections, r), e) for e in events if truth.video_id[e] == detections.video_id[r]
                ]
                free = [(o, e) for o, e in overlaps if o >= threshold and e not in taken]
                tp.append(bool(free))
                if free:
                    taken.add(max(free)[1])
            ap[t, c] = interpolated_ap(np.array(tp, bool), len(events))
            for j, k in enumerate(topk):
                found = 0
                for video in set(truth.video_id[events]):
                    here = [e for e in events if truth.video_id[e] == video]
                    best = [r for r in rows if detections.video_id[r] == video][: k * len(here)]
                    found += sum(any(iou(truth, e, detections, r) >= threshold for r in best) for e in here)
                recall[t, j, c] = found / len(events)
    return ap, recall.mean(axis=2)


def iou(truth, e, detections, r):
    a0, a1, b0, b1 = truth.t_start[e], truth.t_end[e], detections.t_start[r], detections.t_end[r]
    inter = max(min(a1, b1) - max(a0, b0), 0.0)
    return inter / ((a1 - a0) + (b1 - b0) - inter)


def interpolated_ap(tp, num_gt):
    if not len(tp):
        return 0.0
    precision = np.cumsum(tp) / np.arange(1, len(tp) + 1)
    recall = np.cumsum(tp) / num_gt
    points = sorted(set(recall.tolist()) | {0.0})
    area = 0.0
    for low, high in itertools.pairwise(points):
        area += (high - low) * precision[recall >= high].max()
    return area


rows = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(1, 12), st.integers(0, 2)), max_size=14)


@settings(max_examples=150)
@given(rows.filter(len), rows, st.randoms(use_true_random=False))
def test_equals_the_slow_version(events, predictions, random):
    table = np.array(events, float)
    names = np.array([f"v{int(v)}" for v in table[:, 0]], dtype=object)
    truth = GroundTruth(names, table[:, 1], table[:, 1] + table[:, 2], table[:, 3].astype(int), frozenset(names), 0)
    scores = [random.randint(0, 5) / 5 for _ in predictions]
    detections = make_detections(
        [f"v{v}" for v, *_ in predictions],
        [s + random.choice([0, 0.25, 1]) for _, s, _, _ in predictions],
        [s + d + 1 for _, s, d, _ in predictions],
        [truth.label[0] if c == 0 else c for *_, c in predictions],
        scores,
    )
    tiou, topk = [0.1, 0.3, 0.5, 0.75], (1, 2)
    found = evaluate_detections(truth, detections, tiou=tiou, topk=topk, absent_labels="drop")
    ap, recall = slow_evaluation(truth, detections, tiou, topk)
    np.testing.assert_allclose(found.ap, ap, atol=1e-12)
    np.testing.assert_allclose(found.recall, recall, atol=1e-12)


def toy(events, label=0):
    ids = np.array([v for v, *_ in events], dtype=object)
    times = np.array([(s, e) for _, s, e, *_ in events], float)
    labels = np.array([x[3] if len(x) > 3 else label for x in events])
    return GroundTruth(ids, times[:, 0], times[:, 1], labels, frozenset(ids) | {"empty"}, 0)


def test_perfect_no_and_unknown_predictions():
    truth = toy([("a", 0, 1, 3), ("a", 2, 4, 3), ("b", 1, 2, 7)])
    perfect = Detections(truth.video_id, truth.t_start, truth.t_end, truth.label, np.array([0.9, 0.8, 0.7]))
    result = evaluate_detections(truth, perfect, tiou=[0.5, 1.0])
    assert result.average_mAP == 1.0 and (result.recall == 1.0).all()
    assert result.counts["videos_without_predictions"] == 1 and result.counts["videos"] == 3

    nothing = evaluate_detections(truth, make_detections([], [], [], [], []), tiou=[0.5])
    assert nothing.average_mAP == 0.0 and nothing.counts["videos_without_predictions"] == 3

    strange = make_detections(["zz", "a"], [0, 0], [1, 1], [3, 99], [1.0, 1.0])
    result = evaluate_detections(truth, strange, tiou=[0.5])
    assert result.average_mAP == 0.0
    assert result.counts["predictions_in_unknown_videos"] == 1 and result.counts["predictions_with_absent_label"] == 1


def test_absent_labels_collide_as_in_actionformer_or_are_dropped():
    """Classes 3 and 7 are numbered 0 and 1; a prediction of class 1, which no event has, then counts for class 7."""
    truth = toy([("a", 0, 1, 3), ("b", 1, 2, 7)])
    detections = make_detections(["b", "b"], [1, 1], [2, 2], [1, 7], [0.9, 0.5])
    reference = evaluate_detections(truth, detections, tiou=[0.5])
    assert reference.counts["of_these_counted_for_another_class"] == 1
    assert reference.ap.tolist() == [[0.0, 1.0]]  # taken by the foreign prediction, the true one is a duplicate
    wrong = detections._replace(t_start=np.array([5.0, 1.0]), t_end=np.array([6.0, 2.0]))
    assert evaluate_detections(truth, wrong, tiou=[0.5]).ap.tolist() == [[0.0, 0.5]]
    dropped = evaluate_detections(truth, wrong, tiou=[0.5], absent_labels="drop")
    assert dropped.ap.tolist() == [[0.0, 1.0]] and dropped.counts["of_these_counted_for_another_class"] == 0


def test_mistakes():
    truth = toy([("a", 0, 1)])
    nothing = make_detections([], [], [], [], [])
    with pytest.raises(ValueError, match="thresholds"):
        evaluate_detections(truth, nothing, tiou=[0.0, 0.5])
    with pytest.raises(ValueError, match="no event"):
        evaluate_detections(truth._replace(label=np.zeros(0, int)), nothing)
    with pytest.raises(ValueError, match="absent_labels"):
        evaluate_detections(truth, nothing, absent_labels="maybe")
    with pytest.raises(ValueError, match=r"'a'.*nan"):
        make_detections(["a"], [0], [np.nan], [0], [1])
    with pytest.raises(ValueError, match="different length"):
        make_detections(["a"], [0], [1], [0, 1], [1])
