"""Quality of pseudo labels against loops: one-to-one matches, duplicates, nesting, boundary errors, ranks."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actionformer_nt.methods.label_space import partition
from actionformer_nt.protocol.hidden_labels import HiddenLabels
from actionformer_nt.self_training.curves import add_up
from actionformer_nt.self_training.pseudo_segments import PseudoSegments
from actionformer_nt.self_training.quality import RANKS, measure, rates

LAM, CLASSES, STEPS = 0.85, 7, 40


def hidden_labels(events):
    """`events`: video -> list of (start, end, label)."""
    hidden = object.__new__(HiddenLabels)
    hidden.events = {
        video: (np.array([e[:2] for e in found], np.float32).reshape(-1, 2), np.array([e[2] for e in found], np.int64))
        for video, found in events.items()
    }
    return hidden


def view(name, fps=30.0, stride=6.0):
    return {"video_id": name, "feats": torch.zeros(2, STEPS), "feat_start": 0, "fps": fps, "feat_stride": stride}


def pseudo_segments(found):
    """`found`: list of (start, end, score, logits), in any order."""
    found = sorted(found, key=lambda f: -f[2])
    return PseudoSegments(
        torch.tensor([f[:2] for f in found], dtype=torch.float32).reshape(-1, 2),
        torch.tensor([f[2] for f in found], dtype=torch.float32),
        torch.tensor([f[3] for f in found], dtype=torch.float32).reshape(-1, CLASSES),
    )


def overlap(a, b):
    return max(min(a[1], b[1]) - max(a[0], b[0]), 0)


def iou(a, b):
    return Fraction(overlap(a, b), a[1] - a[0] + b[1] - b[0] - overlap(a, b))


def measured_by_loops(events, found, fps, stride):
    """The same counts of one video, segment by segment."""
    counts = dict.fromkeys(
        ["segments", "located", "duplicates", "nested", "correct", "wrong", "in_positive", "in_negative", "events",
         "missed", "start_ms", "end_ms", *RANKS], 0,
    )  # fmt: skip
    counts["segments"], counts["events"], taken = len(found), len(events), {}
    pseudo = pseudo_segments(found)
    for n, segment in enumerate(sorted(found, key=lambda f: -f[2])):
        probs = pseudo.probs[n]
        p = probs.tolist()
        target = p.index(max(p))
        near = [m for m, event in enumerate(events) if iou(segment, event) >= Fraction(1, 2)]
        others = [other for k, other in enumerate(sorted(found, key=lambda f: -f[2])) if k != n]
        counts["nested"] += any(
            2 * overlap(segment, o) > min(segment[1] - segment[0], o[1] - o[0]) for o in others
        )  # fmt: skip
        free = [m for m in near if m not in taken]
        if not free:
            counts["duplicates"] += bool(near)
            continue
        m = min(free, key=lambda m: (-iou(segment, events[m]), events[m][2] != target, m))
        taken[m], truth = n, events[m][2]
        counts["located"] += 1
        counts["correct" if truth == target else "wrong"] += 1
        parts = partition(probs, LAM)
        counts["in_positive"] += bool(parts.positive[truth]) and truth != target
        counts["in_negative"] += bool(parts.negative[truth])
        rank = 1 if truth == target else max(1 + sum(q > p[truth] for q in p), 2)
        (name,) = [name for name, (low, high) in RANKS.items() if low <= rank <= high]
        counts[name] += 1
        for end, key in ((0, "start_ms"), (1, "end_ms")):
            counts[key] += round(abs(segment[end] - events[m][end]) * 1000 * stride / fps)
    counts["missed"] = len(events) - len(taken)
    return counts


spans = st.tuples(st.integers(0, 20), st.integers(1, 12)).map(lambda s: (s[0], s[0] + s[1]))
event_lists = st.lists(st.tuples(spans, st.integers(0, CLASSES - 1)).map(lambda e: (*e[0], e[1])), max_size=6)
logits = st.lists(st.integers(-3, 3), min_size=CLASSES, max_size=CLASSES)


@st.composite
def segment_lists(draw):
    found = draw(st.lists(st.tuples(spans, logits), max_size=8))
    scores = draw(st.permutations(range(1, len(found) + 1)))
    return [(*span, score / 10, own) for (span, own), score in zip(found, scores, strict=True)]


@given(event_lists, segment_lists())
def test_counts_are_those_of_loops(events, found):
    counts = measure(hidden_labels({"v": events}), [view("v")], [pseudo_segments(found)], LAM)
    assert counts == measured_by_loops(events, found, 30.0, 6.0)
    assert counts["correct"] + counts["wrong"] == counts["located"] == sum(counts[name] for name in RANKS)
    assert counts["located"] + counts["missed"] == counts["events"]
    assert counts["located"] + counts["duplicates"] <= counts["segments"]


@given(st.lists(st.tuples(event_lists, segment_lists()), min_size=2, max_size=5))
def test_sums_over_processes_are_exact(videos):
    hidden = hidden_labels({f"v{i}": events for i, (events, _) in enumerate(videos)})
    views = [view(f"v{i}", fps=29.97, stride=3.0) for i in range(len(videos))]
    pseudo = [pseudo_segments(found) for _, found in videos]
    together = measure(hidden, views, pseudo, LAM)
    assert together == add_up([measure(hidden, views[k::2], pseudo[k::2], LAM) for k in range(2)])
    assert all(value == int(value) for value in together.values())


def sure(label):
    return [4.0 if c == label else 0.0 for c in range(CLASSES)]


def test_a_second_segment_on_an_event_is_false():
    hidden = hidden_labels({"v": [(10, 20, 2), (30, 36, 1)]})
    first, second = (10, 20, 0.9, sure(2)), (11, 21, 0.8, sure(2))
    one = rates(measure(hidden, [view("v")], [pseudo_segments([first])], LAM))
    two = rates(measure(hidden, [view("v")], [pseudo_segments([first, second])], LAM))
    assert (one["hidden/precision"], one["hidden/recall"]) == (1.0, 0.5)
    assert (two["hidden/precision"], two["hidden/recall"]) == (0.5, 0.5)
    assert (two["hidden/duplicates"], two["hidden/nested"], two["hidden/missed"]) == (0.5, 1.0, 0.5)
    wrong_first = pseudo_segments([(10, 20, 0.9, sure(3)), second])  # the better score has the event
    assert measure(hidden, [view("v")], [wrong_first], LAM)["correct"] == 0


def test_of_two_classes_on_one_interval_each_segment_takes_its_own():
    hidden = hidden_labels({"v": [(10, 20, 0), (10, 20, 1)]})
    found = pseudo_segments([(10, 20, 0.9, sure(1)), (10, 20, 0.8, sure(0))])
    assert measure(hidden, [view("v")], [found], LAM)["correct"] == 2


def test_boundary_errors_are_seconds_and_ranks_shares():
    hidden = hidden_labels({"v": [(10, 20, 2), (26, 36, 1)]})
    found = [(11, 19, 0.9, [0.0, 3.0, 1.0, 2.0, -1.0, -1.0, -1.0]), (26, 33, 0.8, sure(1))]  # ranks 3 and 1
    values = rates(measure(hidden, [view("v", fps=30.0, stride=6.0)], [pseudo_segments(found)], LAM))  # .2 s a step
    assert values["hidden/start_error"] == pytest.approx(0.1) and values["hidden/end_error"] == pytest.approx(0.4)
    assert [values[f"hidden/{name}"] for name in RANKS] == [0.5, 0.0, 0.5, 0.0, 0.0]


def test_videos_with_unknown_labels_do_not_count():
    found = pseudo_segments([(10, 20, 0.9, sure(2))])
    counts = measure(hidden_labels({"v": [(10, 20, 2)]}), [view("other")], [found], LAM)
    assert not any(counts.values()) and rates(counts) == {}
