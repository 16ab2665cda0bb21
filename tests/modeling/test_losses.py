import pytest
import torch
import torch.nn.functional as F

from libs.modeling.assignment import Targets
from libs.modeling.criterion import Criterion
from libs.modeling.losses import ctr_diou_loss_1d, ctr_giou_loss_1d, sigmoid_focal_loss


def test_focal_loss_identities():
    torch.manual_seed(0)
    z = torch.randn(50, 4, dtype=torch.float64) * 3
    y = torch.randint(0, 2, (50, 4)).double()
    bce = F.binary_cross_entropy_with_logits(z, y, reduction="none")
    assert torch.allclose(sigmoid_focal_loss(z, y, alpha=-1, gamma=0), bce)
    assert torch.allclose(sigmoid_focal_loss(z, y, alpha=0.5, gamma=0), bce / 2)
    p = torch.where(y > 0, z.sigmoid(), 1 - z.sigmoid())
    expected = torch.where(y > 0, 0.25, 0.75) * (1 - p) ** 2 * -p.log()
    assert torch.allclose(sigmoid_focal_loss(z, y), expected)
    assert sigmoid_focal_loss(z, y, reduction="mean").item() == pytest.approx(expected.mean().item())


def test_focal_loss_is_finite_far_out():
    z = torch.tensor([-500.0, 500.0, -500.0, 500.0], requires_grad=True)
    loss = sigmoid_focal_loss(z, torch.tensor([0.0, 1.0, 1.0, 0.0]))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(z.grad).all()
    assert loss[:2].sum() == 0 and loss[2].item() == pytest.approx(125.0)


def slow_iou(a, b, point=100.0):
    """IoU and normalised centre distance of the segments that distances (left, right) span around a point."""
    (a0, a1), (b0, b1) = (point - a[0], point + a[1]), (point - b[0], point + b[1])
    inter, union = max(min(a1, b1) - max(a0, b0), 0), max(a1, b1) - min(a0, b0)
    return inter / union, ((a0 + a1) / 2 - (b0 + b1) / 2) / union


def test_distance_iou_equals_its_geometry():
    torch.manual_seed(0)
    a, b = torch.rand(2, 200, 2, dtype=torch.float64) * 5
    for x, y, giou, diou in zip(a, b, ctr_giou_loss_1d(a, b), ctr_diou_loss_1d(a, b), strict=True):
        iou, distance = slow_iou(x.tolist(), y.tolist())
        assert giou.item() == pytest.approx(1 - iou)
        assert diou.item() == pytest.approx(1 - iou + distance**2)
    assert ctr_diou_loss_1d(a, a).abs().max() < 1e-12
    assert torch.autograd.gradcheck(lambda x: ctr_diou_loss_1d(x, b[:10]), a[:10].requires_grad_())


def make_targets(batch=2, points=30, classes=3, num_positive=5):
    cls = torch.zeros(batch, points, classes)
    cls[0, :num_positive, 1] = 1
    weight = torch.ones(batch, points, 1)
    weight[:, 25:] = 0
    return Targets(cls, weight, torch.rand(batch, points, 2), cls.sum(-1))


def test_criterion_ignores_weightless_points_and_normalises():
    torch.manual_seed(0)
    targets, logits, offsets = make_targets(), torch.randn(2, 30, 3), torch.rand(2, 30, 2)
    criterion = Criterion(init_loss_norm=100)
    losses = criterion(logits, offsets, targets)
    assert criterion.loss_normalizer == pytest.approx(0.9 * 100 + 0.1 * 5)
    changed = logits.clone()
    changed[:, 25:] = 1e4
    again = Criterion(init_loss_norm=100)(changed, offsets, targets)
    assert again == losses
    assert losses["cls_loss"].item() == pytest.approx(
        sigmoid_focal_loss(logits[:, :25], targets.cls[:, :25]).sum().item() / 90.5, rel=1e-5
    )


def test_criterion_without_positives_has_zero_regression_and_gradients():
    logits, offsets = torch.randn(2, 30, 3, requires_grad=True), torch.rand(2, 30, 2, requires_grad=True)
    criterion = Criterion(init_loss_norm=1, loss_weight=-1)
    losses = criterion(logits, offsets, make_targets(num_positive=0))
    losses["final_loss"].backward()
    assert losses["reg_loss"] == 0 and offsets.grad.abs().sum() == 0 and criterion.loss_normalizer == 1.0


def test_balanced_weight_makes_both_terms_equal():
    targets, logits, offsets = make_targets(), torch.randn(2, 30, 3), torch.rand(2, 30, 2) * 9
    losses = Criterion(loss_weight=0)(logits, offsets, targets)
    assert losses["final_loss"].item() == pytest.approx(2 * losses["cls_loss"].item(), rel=1e-4)


def test_label_smoothing():
    targets, logits, offsets = make_targets(), torch.randn(2, 30, 3), torch.rand(2, 30, 2)
    smoothed = targets._replace(cls=targets.cls * 0.9 + 0.1 / 4)
    a = Criterion(label_smoothing=0.1)(logits, offsets, targets)["cls_loss"]
    assert a.item() == pytest.approx(Criterion()(logits, offsets, smoothed)["cls_loss"].item(), rel=1e-5)
