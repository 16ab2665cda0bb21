from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actionformer_nt.methods.label_space import partition


def slow_partition(p, lam):
    """The four sets straight from the equations, in exact arithmetic."""
    highest = max(p)
    target = {p.index(highest)}
    positive = {c for c in range(len(p)) if p[c] >= lam * highest} - target
    negative = {c for c in range(len(p)) if sum(x for x in p if x <= p[c]) <= highest} - target - positive
    ambiguous = set(range(len(p))) - target - positive - negative
    return target, positive, negative, ambiguous


def as_sets(parts):
    return tuple(set(mask.nonzero()[:, 0].tolist()) for mask in parts)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ([0.40, 0.36, 0.14, 0.06, 0.04], ({0}, {1}, {2, 3, 4}, set())),
        ([0.30, 0.25, 0.20, 0.15, 0.10], ({0}, set(), {3, 4}, {1, 2})),
        ([0.30, 0.175, 0.175, 0.175, 0.175], ({0}, set(), set(), {1, 2, 3, 4})),
        ([1.0], ({0}, set(), set(), set())),
        ([0.5, 0.5], ({0}, {1}, set(), set())),
        ([0.0, 1.0, 0.0], ({1}, set(), {0, 2}, set())),
        ([0.25, 0.25, 0.25, 0.25], ({0}, {1, 2, 3}, set(), set())),
    ],
)
def test_worked_examples(p, expected):
    assert as_sets(partition(torch.tensor(p, dtype=torch.float64))) == expected


# 256ths are exact in floating point, so that sums and comparisons have one right answer
weights = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(lambda w: max(w) > 0)
lams = st.sampled_from([Fraction(1, 2), Fraction(5, 8), Fraction(3, 4), Fraction(7, 8), Fraction(1)])


@settings(max_examples=500)
@given(weights, lams)
def test_equals_the_equations(w, lam):
    p = [Fraction(x, 256) for x in w]
    found = partition(torch.tensor([float(x) for x in p], dtype=torch.float64), float(lam))
    assert as_sets(found) == slow_partition(p, lam)


@settings(max_examples=200)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 5, 21, 201]), st.sampled_from([0.1, 1.0, 20.0]))
def test_properties(seed, classes, sharpness):
    generator = torch.Generator().manual_seed(seed)
    p = (sharpness * torch.randn(4, 3, classes, generator=generator, dtype=torch.float64)).softmax(-1)
    parts = partition(p)
    assert (torch.stack(parts).sum(0) == 1).all()  # disjoint and covering
    assert (parts.target.sum(-1) == 1).all() and (p[parts.target].reshape(4, 3) == p.max(-1).values).all()
    wider = partition(p, 0.5)
    assert (wider.positive | ~parts.positive).all()  # positives grow as lambda falls
    order = torch.randperm(classes, generator=generator)
    for mask, permuted in zip(parts, partition(p[..., order]), strict=True):
        assert torch.equal(mask[..., order], permuted)
    for i in range(4):  # batching changes nothing
        assert all(torch.equal(a[i], b) for a, b in zip(parts, partition(p[i]), strict=True))


def test_a_sure_teacher_leaves_nothing_ambiguous():
    generator = torch.Generator().manual_seed(0)
    rest = torch.randint(0, 100, (500, 9), generator=generator).double()
    p = torch.cat([rest.sum(-1, keepdim=True), rest], dim=-1)  # max p >= 1/2, exactly
    assert not partition(p).ambiguous.any()


def test_mistakes():
    for bad, word in (
        (torch.tensor(1.0), "K >= 1"),
        (torch.zeros(3, 0), "K >= 1"),
        (torch.tensor([-0.1, 1.1]), "negative"),
    ):
        with pytest.raises(ValueError, match=word):
            partition(bad)
    with pytest.raises(ValueError, match="lambda"):
        partition(torch.ones(2), 1.5)
