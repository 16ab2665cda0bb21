"""Targets and weights of the methods against the table that defines them, class by class."""

import importlib
from pathlib import Path

import pytest
import torch

from actionformer_nt.methods import METHODS, Evidence, Method, Options, get_method, needs_truth
from actionformer_nt.methods.label_space import partition
from actionformer_nt.methods.losses import hybrid_loss
from libs.modeling.class_form import ClassForm

# target 0, positive 1 and 2, negative 4 and 5, ambiguous 3, at lambda 0.85
P = torch.tensor([0.26, 0.24, 0.23, 0.15, 0.07, 0.05], dtype=torch.float64)


def rows(name, form, **more):
    found = get_method(name).class_targets(P, Options(form=form, **more))
    return [round(v, 4) for v in found.target.tolist()], [round(v, 4) for v in found.weight.tolist()]


def test_the_example_has_all_four_kinds():
    parts = partition(P)
    assert [m.nonzero()[:, 0].tolist() for m in parts] == [[0], [1, 2], [4, 5], [3]]


@pytest.mark.parametrize(
    ("name", "form", "target", "weight"),
    [
        ("target", "softmax", [1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]),
        ("target", "sigmoid", [1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]),
        ("nt_negative", "softmax", [1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 1, 1]),
        ("nt_negative", "sigmoid", [1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 1, 1]),
        ("nt", "softmax", [1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 1, 1]),
        ("nt", "sigmoid", [0.3333, 0.3333, 0.3333, 0, 0, 0], [3, 3, 3, 0, 1, 1]),
        ("soft", "softmax", [1, 1, 1, 1, 1, 1], P.tolist()),
        ("soft", "sigmoid", P.tolist(), [1, 1, 1, 1, 1, 1]),
    ],
)
def test_table(name, form, target, weight):
    assert rows(name, form) == (pytest.approx(target, abs=1e-4), pytest.approx(weight, abs=1e-4))


def test_variants_of_nt():
    assert rows("nt", "sigmoid", positive="hard") == ([1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 1, 1])
    assert rows("nt", "sigmoid", positive_reduction="mean")[1] == [1, 1, 1, 0, 1, 1]
    assert rows("nt", "softmax", positive_reduction="mean")[1] == [1, 0.5, 0.5, 0, 1, 1]


def test_nt_with_the_softmax_form_is_the_hybrid_loss():
    torch.manual_seed(0)
    teacher, logits = torch.randn(50, 7).softmax(-1), torch.randn(50, 7)
    found = get_method("nt").class_targets(teacher, Options(form="softmax"))
    expected = hybrid_loss(logits, partition(teacher), labeled=False)
    assert torch.allclose(ClassForm("softmax").loss(logits, *found), expected, atol=1e-5)


def test_two_positive_classes_settle_at_a_half_each():
    teacher = torch.tensor([0.48, 0.47, 0.03, 0.02])
    y, w = get_method("nt").class_targets(teacher, Options(form="sigmoid"))
    z = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(2000):
        optimizer.zero_grad()
        ClassForm("sigmoid").loss(z, y, w).backward()
        optimizer.step()
    assert z.sigmoid()[:2].tolist() == pytest.approx([0.5, 0.5], abs=0.05) and z.sigmoid()[2:].max() < 0.1


def test_complementary_draws_one_other_class_from_its_generator():
    probs = P.expand(200, -1)
    draw = lambda seed: get_method("complementary").class_targets(  # noqa: E731
        probs, Options(generator=torch.Generator().manual_seed(seed))
    )
    y, w = draw(0)
    assert (y == torch.eye(6)[0]).all() and (w.sum(-1) == 2).all() and (w[:, 0] == 1).all()
    assert (w.sum(0)[1:] > 10).all()  # every other class is drawn
    assert torch.equal(w, draw(0).weight) and not torch.equal(w, draw(1).weight)
    only = get_method("complementary").class_targets(torch.ones(3, 1), Options())
    assert only.weight.tolist() == [[1.0]] * 3


def test_oracle_uses_the_true_class():
    probs = P.expand(3, -1)
    y, w = get_method("oracle_class").class_targets(probs, Options(true_class=torch.tensor([2, -1, 5])))
    assert y.argmax(-1).tolist()[::2] == [2, 5] and y[1].sum() == 0 and (w == 1).all()
    with pytest.raises(ValueError, match="true classes"):
        get_method("oracle_class").class_targets(probs, Options())


def test_names():
    assert get_method("labeled_only") is None
    assert all(isinstance(get_method(name), Method) for name in METHODS if name != "labeled_only")
    with pytest.raises(ValueError, match="did you mean 'nt_negative'"):
        get_method("nt_negativ")


def test_the_documented_example_is_a_method(tmp_path, monkeypatch):
    """docs/add-a-method.md: what its code block says, from a module in the current folder."""
    text = (Path(__file__).parents[3] / "docs" / "add-a-method.md").read_text()
    (tmp_path / "my_methods").mkdir()
    (tmp_path / "my_methods" / "cautious.py").write_text(text.split("```python\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    method = get_method("my_methods.cautious").class_targets
    sure, unsure = torch.tensor([0.6, 0.38, 0.02, 0.0]), torch.tensor([0.4, 0.38, 0.21, 0.01])
    y, w = method(torch.stack([sure, unsure]), Options(form="sigmoid"))
    assert y.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]] and w.tolist() == [[1, 0, 1, 1], [0, 0, 0, 1]]
    y, w = method(torch.stack([sure, unsure]), Options(form="softmax"))
    assert y.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]] and w.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    (tmp_path / "my_methods" / "empty.py").write_text("")
    with pytest.raises(ValueError, match=r"empty.py must have one subclass.*found neither"):
        get_method("my_methods.empty")
    with pytest.raises(ValueError, match=r"my_methods.missing.*no such module"):
        get_method("my_methods.missing")


@pytest.fixture
def make_module(tmp_path, monkeypatch):
    """Writes modules of a package that can be imported; returns their names."""
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "own"
    folder.mkdir()

    def make(text):
        name = f"m{len(list(folder.glob('m*.py')))}"
        (folder / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return f"own.{name}"

    return make


def test_a_module_may_define_a_method(make_module):
    head = "from actionformer_nt.methods import Method, Lesson, FromClassTargets\n"
    name = make_module(head + "class Mine(Method):\n    def __init__(self): self.seen = []\n")
    first, second = get_method(name), get_method(name)
    assert type(first).__name__ == "Mine" and first.seen is not second.seen  # each run has its own state
    beside = head + "class Mine(Method): pass\ndef class_targets(p, o): pass\n"  # such as one that it imports
    assert type(get_method(make_module(beside))).__name__ == "Mine"
    for text, found in ((head, "found neither"), (head + "class A(Method): pass\nclass B(A): pass\n", "found A, B")):
        with pytest.raises(ValueError, match=found):
            get_method(make_module(text))
    e = Evidence(probs=torch.rand(4, 3), scores=torch.rand(4), selected=torch.tensor([True, False, True, True]))
    for form in ("sigmoid", "softmax"):  # without `teach` of its own it teaches like `target`
        (own,), (target,) = (m.teach([e], Options(form=form)) for m in (first, get_method("target")))
        assert torch.equal(own.y[e.selected], target.y[e.selected]) and own.keep is None
        assert torch.equal(own.w[e.selected], target.w[e.selected])


def test_what_a_method_says_of_itself():
    assert [name for name in METHODS if needs_truth(name)] == ["oracle_class"]
    assert [name for name in METHODS if (m := get_method(name)) and m.spares] == ["nt_negative", "nt"]
    assert [name for name in METHODS if (m := get_method(name)) and m.sigmoid_notice] == ["nt_negative"]


def test_a_function_sees_the_selected_units_and_its_own_generator():
    probs = torch.rand(5, 3).softmax(-1)
    selected = torch.tensor([True, False, True, False, True])
    evidence = [
        Evidence(probs=probs, scores=probs.amax(-1), selected=selected, generator=torch.Generator().manual_seed(seed),
                 truth=torch.tensor([0, 1, 2, -1, 1]))
        for seed in (3, 4)
    ]  # fmt: skip
    for e, lesson, seed in zip(evidence, get_method("complementary").teach(evidence, Options()), (3, 4), strict=True):
        alone = get_method("complementary").class_targets(
            e.probs[selected], Options(generator=torch.Generator().manual_seed(seed))
        )
        assert torch.equal(lesson.y[selected], alone.target) and torch.equal(lesson.w[selected], alone.weight)
        assert not lesson.y[~selected].any() and not lesson.w[~selected].any() and lesson.keep is None
    (told, _) = get_method("oracle_class").teach(evidence, Options())
    assert told.y[selected].argmax(-1).tolist() == [0, 2, 1] and told.y.sum() == 3


@pytest.mark.parametrize("form", ["sigmoid", "softmax"])
def test_soft_scored_is_soft_times_the_score_of_a_segment(form):
    probs, scores = torch.rand(4, 3).softmax(-1), torch.tensor([0.9, 0.5, 0.3, 0.1])
    selected = torch.tensor([True, True, True, False])
    at_segments = Evidence(probs=probs, scores=scores, selected=selected, segments=torch.rand(4, 2))
    at_points = Evidence(probs=probs, scores=scores, selected=selected, unit="point")
    both, options = [at_segments, at_points], Options(form=form)
    soft, scored = (get_method(name).teach(both, options) for name in ("soft", "soft_scored"))
    factor = scores[:, None]
    assert torch.equal(scored[0].y, soft[0].y * factor if form == "sigmoid" else soft[0].y)
    assert torch.equal(scored[0].w, soft[0].w if form == "sigmoid" else soft[0].w * factor)
    assert torch.equal(soft[1].y, scored[1].y) and torch.equal(soft[1].w, scored[1].w)


def test_the_documented_method_with_lessons(tmp_path, monkeypatch):
    """docs/add-a-method.md: the second code block ignores segments whose ends the teacher's views disagree about."""
    text = (Path(__file__).parents[3] / "docs" / "add-a-method.md").read_text()
    (tmp_path / "documented").mkdir()
    (tmp_path / "documented" / "stable.py").write_text(text.split("```python\n")[2].split("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    method = get_method("documented.stable")
    e = Evidence(
        probs=torch.eye(3), scores=torch.tensor([0.9, 0.5, 0.3]), selected=torch.ones(3, dtype=torch.bool),
        segments=torch.tensor([[0.0, 10.0], [0.0, 10.0], [0.0, 100.0]]),
        spread=torch.tensor([[0.5, 0.5], [1.0, 2.0], [1.0, 2.0]]),
    )  # fmt: skip
    (lesson,) = method.locate([e], method.teach([e], Options()), Options())
    assert lesson.ignore.tolist() == [False, True, False] and torch.equal(lesson.y, torch.eye(3))
    assert len(method.teacher_views) == 2
    assert get_method("nt+documented.stable", {"documented.stable": {"largest": 0.4}}).spares
