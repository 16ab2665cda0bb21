import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actionformer_nt.methods.label_space import Partition, partition
from actionformer_nt.methods.losses import (
    hybrid_loss,
    negative_loss,
    positive_loss,
    target_loss,
)
from libs.modeling.class_form import ClassForm
from libs.modeling.losses import (
    log_one_minus_softmax,
    sigmoid_class_loss,
    sigmoid_focal_loss,
    softmax_class_loss,
)


def slow_softmax(z):
    top = max(z)
    total = sum(math.exp(x - top) for x in z)
    return [math.exp(x - top) / total for x in z]


logit_lists = st.lists(st.floats(-8, 8), min_size=2, max_size=8)


@settings(max_examples=200)
@given(logit_lists, st.randoms(use_true_random=False))
def test_losses_equal_the_equations(z, random):
    p = slow_softmax(z)
    mask = [random.random() < 0.5 for _ in z]
    logits, chosen = torch.tensor(z, dtype=torch.float64).float(), torch.tensor(mask)
    expected_pull = -sum(math.log(p[c]) for c in range(len(z)) if mask[c])
    expected_push = -sum(math.log1p(-p[c]) for c in range(len(z)) if mask[c])
    assert target_loss(logits, chosen).item() == pytest.approx(expected_pull, rel=1e-4, abs=1e-5)
    assert positive_loss(logits, chosen).item() == pytest.approx(expected_pull, rel=1e-4, abs=1e-5)
    mean = positive_loss(logits, chosen, reduction="mean").item()
    assert mean == pytest.approx(expected_pull / max(sum(mask), 1), rel=1e-4, abs=1e-5)
    assert negative_loss(logits, chosen).item() == pytest.approx(expected_push, rel=1e-4, abs=1e-5)


def test_hybrid_loss_equals_its_terms():
    torch.manual_seed(0)
    logits, teacher = torch.randn(6, 5), torch.randn(6, 5).softmax(-1)
    parts = partition(teacher, 0.5)
    expected = (
        target_loss(logits, parts.target) + negative_loss(logits, parts.negative) + target_loss(logits, parts.positive)
    )
    assert torch.allclose(hybrid_loss(logits, parts, labeled=False), expected)
    labels = torch.zeros(6, 5, dtype=torch.bool)
    labels[:, 1] = labels[0, 2] = True  # one point with two true classes
    nothing = torch.zeros_like(labels)
    labeled = hybrid_loss(logits, Partition(labels, nothing, nothing, nothing), labeled=True)
    assert torch.allclose(labeled, target_loss(logits, labels) + negative_loss(logits, ~labels))


@pytest.mark.parametrize("form", ["sigmoid", "softmax"])
def test_forms_equal_their_definition(form):
    torch.manual_seed(0)
    z, y, w = torch.randn(20, 4), torch.rand(20, 4), torch.rand(20, 4) * (torch.rand(20, 4) < 0.7)
    p = z.softmax(-1) if form == "softmax" else z.sigmoid()
    bce = -(y * p.log() + (1 - y) * (1 - p).log())
    focus = 1 if form == "softmax" else (0.25 * y + 0.75 * (1 - y)) * (y - p).abs() ** 2
    assert torch.allclose(ClassForm(form).loss(z, y, w), (w * bce * focus).sum(-1), atol=1e-5)
    with pytest.raises(ValueError, match="tanh"):
        ClassForm("tanh")


def test_hard_targets_give_the_stock_focal_loss():
    torch.manual_seed(0)
    z, y = torch.randn(30, 4), torch.randint(0, 2, (30, 4)).float()
    assert torch.allclose(sigmoid_class_loss(z, y, torch.ones_like(y)), sigmoid_focal_loss(z, y).sum(-1), atol=1e-6)


@pytest.mark.parametrize("y", [0.1, 0.3, 0.5, 0.9])
def test_a_fractional_target_is_the_minimum(in_64_bits, y):
    z = torch.linspace(-6, 6, 4001)[:, None]
    loss = sigmoid_class_loss(z, torch.full_like(z, y), torch.ones_like(z))
    assert z[loss.argmin()].sigmoid().item() == pytest.approx(y, abs=5e-3)
    stock = sigmoid_focal_loss(z, torch.full_like(z, y)).sum(-1)
    assert abs(z[stock.argmin()].sigmoid().item() - y) > 5e-3 or y == 0.5  # why it is not used


def test_finite_at_the_ends():
    logits = torch.tensor([[200.0, -200.0, 0.0], [0.0, 0.0, 1e4], [-1e4, 1e4, -1e4]], requires_grad=True)
    everything = torch.ones(3, 3, dtype=torch.bool)
    top = torch.zeros(3, 3, dtype=torch.bool).scatter_(-1, logits.argmax(-1, keepdim=True), True)
    for loss in (negative_loss(logits, everything), target_loss(logits, everything), negative_loss(logits, ~top)):
        assert torch.isfinite(loss).all()
        logits.grad = None
        loss.sum().backward(retain_graph=True)
        assert torch.isfinite(logits.grad).all()
    assert negative_loss(logits, top)[0].item() == pytest.approx(200.0)  # -log(1 - p) of a p that rounds to 1
    assert negative_loss(torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.bool)).tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    z = torch.tensor([[12.0, -3.0, 1.0]], dtype=dtype)
    mask = torch.tensor([[True, False, False]])
    assert negative_loss(z, mask).item() == pytest.approx(negative_loss(z.float(), mask).item())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert negative_loss(z, mask).dtype == torch.float32


def test_gradients():
    torch.manual_seed(0)
    z = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    y, w = torch.rand(5, 4, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(log_one_minus_softmax, z)
    for loss in (softmax_class_loss, sigmoid_class_loss):
        check = lambda x, f=loss: f(x, y, w).double()  # noqa: E731
        single = z.detach().float().requires_grad_()
        check(single).sum().backward()
        step = 1e-3
        for i in range(5):
            for j in range(4):
                shift = torch.zeros(5, 4)
                shift[i, j] = step
                slope = (check(single.detach() + shift).sum() - check(single.detach() - shift).sum()) / (2 * step)
                assert single.grad[i, j].item() == pytest.approx(slope.item(), abs=2e-2, rel=2e-2)
