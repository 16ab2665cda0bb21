import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from actionformer_nt.methods.label_space import Partition
from actionformer_nt.methods.losses import hybrid_loss
from actionformer_nt.spot import losses as L
from actionformer_nt.spot.targets import class_weights


@pytest.mark.parametrize("form", ["target", "hybrid"])
def test_class_loss_is_the_mean_over_valid_snippets(form):
    logits = torch.randn(2, 5, 4)
    classes = torch.randint(0, 4, (2, 5))
    valid = torch.arange(5)[None] < torch.tensor([[5], [2]])
    y, w = class_weights(classes, valid, num_classes=3, form=form)
    flat, labels = logits[valid], classes[valid]
    expected = F.cross_entropy(flat, labels)
    if form == "hybrid":
        target = F.one_hot(labels, 4).bool()
        nothing = torch.zeros_like(target)
        expected = hybrid_loss(flat, Partition(target, nothing, nothing, nothing), labeled=True).mean()
    torch.testing.assert_close(L.class_loss(logits, y, w), expected)


def test_focal_factor_is_per_snippet():
    logits, classes = torch.randn(1, 6, 4), torch.randint(0, 4, (1, 6))
    y, w = class_weights(classes, torch.ones(1, 6, dtype=torch.bool), num_classes=3)
    p = logits.softmax(-1).gather(-1, classes[..., None])[..., 0]
    expected = ((1 - p) ** 2 * -p.log()).mean()
    torch.testing.assert_close(L.class_loss(logits, y, w, focal_gamma=2.0), expected)


def test_3_weighted_cross_entropy_in_spots_own_formula():
    """c+ = r / 2, c- = r / (2 (r - 1)), r = N / (10 + n+), N = 10 + n+ + 10 + n-."""
    logits, y = torch.randn(3, 4, 4), (torch.rand(3, 4, 4) < 0.2).float()
    p, ones = logits.sigmoid(), float(y.sum())
    n = 10 + ones + 10 + (y.numel() - ones)
    r = n / (10 + ones)
    expected = -(r / 2 * y * p.log() + r / (2 * (r - 1)) * (1 - y) * (1 - p).log()).sum() / n
    torch.testing.assert_close(L.weighted_bce(logits, y, torch.ones_like(y)), expected)


def test_3_dice_in_closed_form_and_zero_when_perfect():
    y = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    half = L.dice_loss(torch.zeros(1, 2, 2), y, torch.ones(1, 2, 2))
    assert float(half) == pytest.approx(1 - (2 * 1 + 1) / (4 * 0.25 + 2 + 1))
    sure = 60 * (2 * y - 1)
    assert float(L.dice_loss(sure, y, torch.ones(1, 2, 2))) == pytest.approx(0, abs=1e-6)
    assert float(L.dice_loss(-torch.full_like(y, 60.0), 0 * y, torch.ones(1, 2, 2))) == pytest.approx(0, abs=1e-6)
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert float(L.mask_loss(sure, y, valid, valid)) == pytest.approx(0, abs=1e-6)
    assert float(L.mask_loss(-sure, y, valid, valid)) > 1


def test_mask_loss_ignores_padding_and_unused_rows():
    logits, y = torch.randn(2, 6, 6), (torch.rand(2, 6, 6) < 0.4).float()
    valid = torch.arange(6)[None] < torch.tensor([[6], [4]])
    rows = torch.rand(2, 6) < 0.7
    before = L.mask_loss(logits, y, rows, valid)
    used = (rows & valid)[:, :, None] & valid[:, None]
    torch.testing.assert_close(L.mask_loss(torch.where(used, logits, 9.0), y, rows, valid), before)
    assert L.mask_loss(torch.where(used, 9.0, logits), y, rows, valid) != before


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([1.0, 100.0]))
def test_gradients_are_finite_whatever_is_used(seed, gamma, scale):
    g = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn(2, 4, 5, generator=g)).requires_grad_()
    masks = (scale * torch.randn(2, 4, 4, generator=g)).requires_grad_()
    y = torch.rand(2, 4, 5, generator=g).round()
    w = torch.rand(2, 4, 5, generator=g) * (torch.rand(2, 4, 1, generator=g) < 0.5)
    valid, rows = torch.rand(2, 4, generator=g) < 0.5, torch.rand(2, 4, generator=g) < 0.5
    target = torch.rand(2, 4, 4, generator=g).round()
    loss = L.class_loss(logits, y, w, focal_gamma=gamma) + L.mask_loss(masks, target, rows, valid)
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert torch.isfinite(logits.grad).all() and torch.isfinite(masks.grad).all()


def test_nothing_valid_is_zero_with_a_graph():
    logits, masks = torch.randn(2, 4, 5, requires_grad=True), torch.randn(2, 4, 4, requires_grad=True)
    decoded, none = torch.randn(2, 4, 3, requires_grad=True), torch.zeros(2, 4, dtype=torch.bool)
    for loss, x in (
        (L.class_loss(logits, torch.zeros(2, 4, 5), torch.zeros(2, 4, 5), focal_gamma=2.0), logits),
        (L.mask_loss(masks, torch.zeros(2, 4, 4), none, none), masks),
        (L.reconstruction_loss(decoded, torch.randn(2, 3, 4), none), decoded),
    ):
        assert float(loss.detach()) == 0
        loss.backward()
        assert not x.grad.any()
