"""`npl`: ranking, filter and boundary weights against slow versions."""

import math

import pytest
import torch

from actionformer_nt.config import SemiSection
from actionformer_nt.methods import Evidence, Options, Student, get_method
from actionformer_nt.self_training.pseudo_segments import PseudoSegments


def segments_of(seed, n=12, classes=3):
    generator = torch.Generator().manual_seed(seed)
    start = 50 * torch.rand(n, 1, generator=generator)
    ends = torch.cat([start, start + 5 + 10 * torch.rand(n, 1, generator=generator)], dim=1)
    found = PseudoSegments(
        ends, torch.rand(n, generator=generator), torch.randn(n, classes, generator=generator),
        3 * torch.rand(n, 2, generator=generator),
    )  # fmt: skip
    seen = torch.rand(n, generator=generator) > 0.3
    student = Student(probs=found.probs, seen=seen, segments=ends + torch.randn(n, 2, generator=generator))
    selected = torch.rand(n, generator=generator) > 0.3
    return Evidence(
        probs=found.probs, scores=found.scores, selected=selected, segments=ends, spread=found.spread,
        stability=found.stability, student=student,
    )  # fmt: skip


@pytest.mark.parametrize("classes", ["npl", "nt+npl"])
def test_npl_against_loops(classes):
    options = {"npl": {"filtered": 0.4, "window": 3}}
    method, videos = get_method(classes, options), [segments_of(seed) for seed in range(5)]
    method.observe([e.shared() for e in videos[:2]])
    method.observe([e.shared() for e in videos[2:]])
    lessons = method.locate(videos[2:], method.teach(videos[2:], Options()), Options())
    plain = (get_method("nt") if classes == "nt+npl" else get_method("target")).teach(videos[2:], Options())

    def q(e, i):
        length = float(e.segments[i, 1] - e.segments[i, 0])
        return float(e.scores[i]) * max(1 - float(e.spread[i].sum()) / (2 * length), 0)

    pools = {c: [] for c in range(3)}
    for e in videos[2:]:  # the last three videos
        for i in e.selected.nonzero()[:, 0].tolist():
            pools[int(e.probs[i].argmax())].append(q(e, i))
    worst = {c: sum(x < quantile(pools[c], 0.4) - 1e-9 for x in pools[c]) for c in pools}
    assert all(worst.values())
    filtered = dict.fromkeys(range(3), 0)
    for e, lesson, other in zip(videos[2:], lessons, plain, strict=True):
        for i in range(12):
            c, chosen = int(e.probs[i].argmax()), bool(e.selected[i])
            assert bool(lesson.ignore[i]) == (chosen and q(e, i) < quantile(pools[c], 0.4))
            filtered[c] += int(lesson.ignore[i])
            if chosen:
                torch.testing.assert_close(lesson.w[i], other.w[i] * q(e, i))
                assert torch.equal(lesson.y[i], other.y[i])
            length = float(e.segments[i, 1] - e.segments[i, 0])
            distance = float((e.student.segments[i] - e.segments[i]).abs().mean())
            expected = math.exp(-distance / length) if e.student.seen[i] else 0.0
            assert float(lesson.v[i]) == pytest.approx(expected, rel=1e-5)
    assert filtered == worst


def quantile(values, share):
    """With linear interpolation."""
    ordered, place = sorted(values), share * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def test_the_background_of_snippets_is_neither_filtered_nor_weighed():
    probs = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.1, 0.7], [0.6, 0.2, 0.2], [0.0, 0.0, 0.0]])
    e = Evidence(
        probs=probs, scores=probs[:, :2].amax(1), selected=torch.tensor([True, True, True, False]), unit="snippet",
        stability=torch.tensor([0.5, 0.1, 1.0, 0.0]),
        student=Student(probs=probs, seen=torch.ones(4, dtype=torch.bool)),
    )  # fmt: skip
    method, options = get_method("npl", {"npl": {"filtered": 0.5}}), Options(form="softmax")
    method.observe([e.shared()])
    (lesson,) = method.locate([e], method.teach([e], options), options)
    assert lesson.ignore.tolist() == [True, False, False, False] and lesson.v is None
    torch.testing.assert_close(lesson.w[:3].sum(1), torch.tensor([0.4, 1.0, 0.6]))
    again = get_method("npl", {"npl": {"filtered": 0.5}})
    again.load_state(method.state())
    assert torch.equal(again.thresholds(3), method.thresholds(3)) and len(again.recent.videos) == 1
    again.load_state(get_method("npl").state())  # nothing seen
    assert again.recent.videos == []


def test_its_views_are_the_teachers():
    options = {"npl": {"views": [{"shift": 3}]}}
    method = SemiSection(split={"file": "s.json"}, burn_in=1, method="nt+npl", method_options=options).make_method()
    assert [view["shift"] for view in method.teacher_views] == [3]
