"""Targets and weights of the methods against the table that defines them, class by class."""

from pathlib import Path

import pytest
import torch

from actionformer_nt.methods import METHODS, Options, get_method
from actionformer_nt.methods.label_space import partition
from actionformer_nt.methods.losses import class_loss, hybrid_loss

# target 0, positive 1 and 2, negative 4 and 5, ambiguous 3, at lambda 0.85
P = torch.tensor([0.26, 0.24, 0.23, 0.15, 0.07, 0.05], dtype=torch.float64)


def rows(name, form, **more):
    found = get_method(name)(P, Options(form=form, **more))
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
    found = get_method("nt")(teacher, Options(form="softmax"))
    expected = hybrid_loss(logits, partition(teacher), labeled=False)
    assert torch.allclose(class_loss("softmax", logits, *found), expected, atol=1e-5)


def test_two_positive_classes_settle_at_a_half_each():
    teacher = torch.tensor([0.48, 0.47, 0.03, 0.02])
    y, w = get_method("nt")(teacher, Options(form="sigmoid"))
    z = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(2000):
        optimizer.zero_grad()
        class_loss("sigmoid", z, y, w).backward()
        optimizer.step()
    assert z.sigmoid()[:2].tolist() == pytest.approx([0.5, 0.5], abs=0.05) and z.sigmoid()[2:].max() < 0.1


def test_complementary_draws_one_other_class_from_its_generator():
    probs = P.expand(200, -1)
    draw = lambda seed: get_method("complementary")(  # noqa: E731
        probs, Options(generator=torch.Generator().manual_seed(seed))
    )
    y, w = draw(0)
    assert (y == torch.eye(6)[0]).all() and (w.sum(-1) == 2).all() and (w[:, 0] == 1).all()
    assert (w.sum(0)[1:] > 10).all()  # every other class is drawn
    assert torch.equal(w, draw(0).weight) and not torch.equal(w, draw(1).weight)
    only = get_method("complementary")(torch.ones(3, 1), Options())
    assert only.weight.tolist() == [[1.0]] * 3


def test_oracle_uses_the_true_class():
    probs = P.expand(3, -1)
    y, w = get_method("oracle_class")(probs, Options(true_class=torch.tensor([2, -1, 5])))
    assert y.argmax(-1).tolist()[::2] == [2, 5] and y[1].sum() == 0 and (w == 1).all()
    with pytest.raises(ValueError, match="true classes"):
        get_method("oracle_class")(probs, Options())


def test_names():
    assert get_method("labeled_only") is None
    assert all(callable(get_method(name)) for name in METHODS if name != "labeled_only")
    with pytest.raises(ValueError, match="did you mean 'nt_negative'"):
        get_method("nt_negativ")


def test_the_documented_example_is_a_method(tmp_path, monkeypatch):
    """docs/add-a-method.md: what its code block says, from a module in the current folder."""
    text = (Path(__file__).parents[3] / "docs" / "add-a-method.md").read_text()
    (tmp_path / "my_methods").mkdir()
    (tmp_path / "my_methods" / "cautious.py").write_text(text.split("```python\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    method = get_method("my_methods.cautious")
    sure, unsure = torch.tensor([0.6, 0.38, 0.02, 0.0]), torch.tensor([0.4, 0.38, 0.21, 0.01])
    y, w = method(torch.stack([sure, unsure]), Options(form="sigmoid"))
    assert y.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]] and w.tolist() == [[1, 0, 1, 1], [0, 0, 0, 1]]
    y, w = method(torch.stack([sure, unsure]), Options(form="softmax"))
    assert y.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]] and w.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    (tmp_path / "my_methods" / "empty.py").write_text("")
    with pytest.raises(ValueError, match=r"empty.py has no function class_targets"):
        get_method("my_methods.empty")
    with pytest.raises(ValueError, match=r"my_methods.missing.*no such module"):
        get_method("my_methods.missing")
