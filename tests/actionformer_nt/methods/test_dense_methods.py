"""Methods about points and snippets: `dense_teacher`, `fullmatch`."""

import math
from dataclasses import replace

import pytest
import torch

from actionformer_nt.methods import Evidence, Options, Student, get_method
from actionformer_nt.methods.dense_teacher import best_share
from actionformer_nt.methods.fullmatch import agreeing_number, rank_of_target, ranks
from libs.modeling.class_form import ClassForm


def points(n=40, classes=3, seed=0, unit="point", valid=None):
    """Random evidence at `n` points, the background last."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes + 1, generator=generator, dtype=torch.float64) * 2
    start = torch.rand(n, 1, generator=generator) * 20
    selected = torch.ones(n, dtype=torch.bool) if valid is None else torch.arange(n) < valid
    return Evidence(
        probs=logits.softmax(-1), scores=logits.softmax(-1)[:, :-1].amax(-1), unit=unit,
        selected=torch.rand(n, generator=generator) > 0.5, valid=selected,
        class_scores=logits[:, :-1].sigmoid(),
        segments=torch.cat([start, start + 3], dim=1) if unit == "point" else None,
    )  # fmt: skip


def test_dense_teacher_on_a_sigmoid_head_is_the_quality_focal_loss():
    """Against the published loss, written out point by point and class by class."""
    e, form = points(), ClassForm.SIGMOID
    method = get_method("dense_teacher", {"dense_teacher": {"share": 0.1}})
    (lesson,) = method.teach([e], Options(form=form))
    student = torch.randn(40, 3, dtype=torch.float64)
    found = form.loss(student, lesson.y[:, :3], lesson.w[:, :3]).sum()
    best = e.class_scores.amax(-1).tolist()
    chosen = sorted(range(40), key=lambda i: -best[i])[:4]
    expected = 0.0
    for i in range(40):
        for c in range(3):
            s = 1 / (1 + math.exp(-float(student[i, c])))
            y = float(e.class_scores[i, c]) if i in chosen else 0.0
            expected -= 4 * (y - s) ** 2 * (y * math.log(s) + (1 - y) * math.log(1 - s))
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert lesson.keep.all() and lesson.v.nonzero()[:, 0].tolist() == sorted(chosen) and lesson.v.max() == 1
    assert lesson.normalizer == pytest.approx(sum(best[i] for i in chosen))


@pytest.mark.parametrize("unit", ["point", "snippet"])
def test_dense_teacher_in_the_softmax_form_is_the_cross_entropy(unit):
    e, form = points(unit=unit, valid=30), ClassForm.SOFTMAX
    (lesson,) = get_method("dense_teacher", {"dense_teacher": {"share": 0.1, "class_weight": 2}}).teach(
        [e], Options(form=form)
    )
    chosen = best_share(e.class_scores.amax(-1), e.valid, 0.1)
    assert chosen.sum() == 3 and not chosen[30:].any()
    student = torch.randn(40, 4, dtype=torch.float64)
    target = torch.where(chosen[:, None], e.probs, torch.tensor([0.0, 0, 0, 1], dtype=torch.float64))
    expected = -2 * (target * student.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(form.loss(student, lesson.y, lesson.w).double(), expected, rtol=1e-5, atol=1e-5)
    assert (lesson.v is None) == (unit == "snippet")


def test_the_best_share_is_of_the_units_among():
    scores, among = torch.tensor([0.1, 0.9, 0.5, 0.8]), torch.tensor([True, False, True, True])
    assert best_share(scores, among, 0.01).tolist() == [False, False, False, True]  # at least one
    assert best_share(scores, among, 0.5).tolist() == [False, False, True, True]
    assert best_share(scores, among, 1.0).tolist() == among.tolist()
    assert not best_share(scores, torch.zeros(4, dtype=torch.bool), 0.5).any()


def both(seed=0, n=60, classes=5, **more):
    """Evidence with a student that mostly agrees with a teacher that is often sure."""
    e = points(n, classes, seed, **more)
    noise = torch.rand(n, classes + 1, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    teacher, student = ((e.probs.log() * power).softmax(-1) for power in (2.5, 1.5))
    student = (student.log() + 2 * noise).softmax(-1)
    seen = torch.rand(n, generator=torch.Generator().manual_seed(seed + 2)) > 0.2
    return replace(e, probs=teacher, student=Student(probs=student, seen=seen))


def published_fullmatch(teacher, student, p, k, threshold, background_too):
    """The three losses at one point, class by class: p is what is learned, `student` what decides. A sum."""
    order = sorted(range(len(teacher)), key=lambda c: -teacher[c])
    top, sure = order[0], teacher[order[0]] >= threshold
    loss = -math.log(p[top]) if sure else 0.0
    negatives = [c for c in order[k:] if student[c] <= threshold**2]
    for c in negatives:
        if sure or background_too or c != len(teacher) - 1:
            loss -= math.log(1 - p[c])
    if sure and k > 1:
        between = [c for c in order[1:k] if student[c] <= threshold**2]
        u = (1 - student[top] - sum(student[c] for c in order[k:])) / (k - 1)
        u = min(max(u, 0.0), 1.0)
        loss -= sum(u * math.log(p[c]) + (1 - u) * math.log(1 - p[c]) for c in between) / max(len(between), 1)
    return loss


@pytest.mark.parametrize("k", [2, 3, 6])
def test_fullmatch_in_the_softmax_form_is_the_published_loss(k):
    e = both()
    method = get_method("fullmatch", {"fullmatch": {"threshold": 0.8}})
    method.k = k
    (lesson,) = method.teach([e], Options(form="softmax"))
    p = torch.randn(60, 6, dtype=torch.float64)
    found = ClassForm.SOFTMAX.loss(p, lesson.y, lesson.w)
    sure = e.probs.amax(-1) >= 0.8
    assert sure.any() and not sure.all() and torch.equal(lesson.keep, e.student.seen)
    for i in range(60):
        if e.student.seen[i]:
            rows = (e.probs[i].tolist(), e.student.probs[i].tolist(), p[i].softmax(-1).tolist())
            expected = published_fullmatch(*rows, k, 0.8, False)
            assert float(found[i]) == pytest.approx(expected, rel=1e-4, abs=1e-5)
        else:
            assert not lesson.w[i].any()


def test_fullmatch_on_a_sigmoid_head_has_the_same_targets_and_weights():
    e, options = both(), {"fullmatch": {"threshold": 0.8, "negative_weight": 0.5, "entropy_weight": 0.25}}
    one, two = (get_method("fullmatch", options) for _ in range(2))
    (a,), (b,) = one.teach([e], Options(form="sigmoid")), two.teach([e], Options(form="softmax"))
    assert torch.equal(a.y, b.y) and torch.equal(a.w, b.w) and set(a.w[a.y == 0].tolist()) >= {0.0, 0.5}


def test_the_number_of_negatives_is_that_of_the_batch():
    parts = [both(seed, valid=40) for seed in (1, 2, 3)]
    method = get_method("fullmatch", {"fullmatch": {"agreement": 0.9}})
    method.observe([e.shared() for e in parts])

    def accuracy(k):
        right = total = 0
        for e in parts:
            for i in range(40):
                if e.student.seen[i]:
                    best = e.student.probs[i].topk(k).indices.tolist()
                    right, total = right + (int(e.probs[i].argmax()) in best), total + 1
        return right / total

    assert method.k == next(k for k in range(2, 7) if accuracy(k) >= 0.9)
    assert agreeing_number(torch.tensor([1, 1, 1, 5]), 0.75) == 2 and agreeing_number(torch.zeros(0), 0.9) == 2
    assert agreeing_number(torch.tensor([1, 4, 1, 5]), 0.75) == 4 and len(rank_of_target(parts[0])) <= 40
    assert ranks(torch.tensor([[0.2, 0.5, 0.2, 0.1]])).tolist() == [[2, 1, 3, 4]]
