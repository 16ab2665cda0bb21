"""The quality head: what it learns, and what it does to scores."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from libs.modeling.assignment import Targets
from libs.modeling.criterion import Criterion
from libs.modeling.decode import decode
from libs.modeling.location_quality import (
    location_quality,
    offset_quality,
    predicted_factor,
    quality_factor,
    quality_loss,
)
from libs.modeling.losses import ctr_diou_loss_1d
from libs.training.checkpoint import load_state

from .test_batching import build, video

SEGMENT = st.tuples(st.floats(-50, 50), st.floats(0.25, 50)).map(lambda x: (x[0], x[0] + x[1]))


@given(SEGMENT, SEGMENT)
def test_it_is_what_the_definition_says(a, b):
    found = location_quality(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64))
    inter = max(min(a[1], b[1]) - max(a[0], b[0]), 0)
    union = (a[1] - a[0]) + (b[1] - b[0]) - inter
    distance = abs((a[0] + a[1]) / 2 - (b[0] + b[1]) / 2) / (max(a[1], b[1]) - min(a[0], b[0]))
    assert found[0].tolist() == pytest.approx([inter / union, distance], abs=1e-9)
    assert found.min() >= 0 and found.max() <= 1


def test_it_is_the_distance_iou_of_the_regression_loss():
    torch.manual_seed(0)
    a, b = torch.rand(2, 100, 2, dtype=torch.float64)
    iou, distance = offset_quality(a, b).T
    assert torch.allclose(1 - iou + distance**2, ctr_diou_loss_1d(a, b))


def test_a_segment_without_length_has_the_worst_quality():
    nothing = torch.zeros(1, 2)
    assert offset_quality(nothing, nothing).tolist() == [[0.0, 1.0]]
    assert offset_quality(nothing, torch.ones(1, 2)).tolist() == [[0.0, 0.0]]


def test_the_factor_is_the_clipped_difference():
    quality = torch.tensor([[0.9, 0.2], [0.1, 0.5], [1.0, 0.0]])
    assert quality_factor(quality).tolist() == pytest.approx([0.7, 0.0, 1.0])
    assert torch.allclose(predicted_factor(quality.logit(eps=1e-6)), quality_factor(quality), atol=1e-5)


def test_the_loss_is_least_at_the_true_quality_and_has_the_right_gradient():
    quality = torch.tensor([[0.3, 0.6], [0.8, 0.1]], dtype=torch.float64)
    logits = quality.logit().requires_grad_()
    quality_loss(logits, quality).sum().backward()
    assert logits.grad.abs().max() < 1e-12
    z = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: quality_loss(x, quality.repeat(2, 1)), z)


def targets_and_outputs():
    torch.manual_seed(1)
    cls = torch.zeros(2, 12, 3)
    cls[0, 2:5, 1], cls[1, 7, 0] = 1, 1
    weight = torch.ones(2, 12, 1)
    weight[1, 9:] = 0
    targets = Targets(cls, weight, torch.rand(2, 12, 2), cls.sum(-1))
    return targets, torch.randn(2, 12, 3), torch.rand(2, 12, 2, requires_grad=True), torch.randn(2, 12, 2)


def test_the_criterion_teaches_the_quality_of_the_present_segments():
    targets, logits, offsets, quality = targets_and_outputs()
    quality.requires_grad_()
    criterion = Criterion(init_loss_norm=10, quality_weight=0.5)
    losses = criterion(logits, offsets, targets, quality)
    expected = 0.0
    for b, p in targets.cls.sum(-1).nonzero().tolist():
        true = offset_quality(offsets[b : b + 1, p].detach(), targets.offsets[b : b + 1, p])[0]
        for z, y in zip(quality[b, p].tolist(), true.tolist(), strict=True):
            s = torch.tensor(z).sigmoid()
            expected += float(-y * s.log() - (1 - y) * (1 - s).log()) / criterion.loss_normalizer
    assert losses["quality_loss"].item() == pytest.approx(expected, rel=1e-5)
    plain = Criterion(init_loss_norm=10)(logits, offsets, targets)
    assert set(plain) == {"cls_loss", "reg_loss", "final_loss"}
    assert losses["final_loss"].item() == pytest.approx((plain["final_loss"] + 0.5 * losses["quality_loss"]).item())
    losses["quality_loss"].backward()
    assert offsets.grad is None, "the boundaries do not learn to be predictable"
    assert (quality.grad.abs().sum(-1) > 0).equal(targets.cls.sum(-1) > 0)


def test_without_an_event_the_loss_of_the_quality_head_is_zero():
    targets, logits, offsets, quality = targets_and_outputs()
    none = targets._replace(cls=torch.zeros_like(targets.cls), offset_weight=torch.zeros(2, 12))
    losses = Criterion()(logits, offsets, none, quality.requires_grad_())
    losses["final_loss"].backward()
    assert losses["quality_loss"] == 0 and torch.isfinite(quality.grad).all()


def test_soft_labels_are_the_quality_of_the_present_segments():
    targets, logits, offsets, _ = targets_and_outputs()
    losses = Criterion(init_loss_norm=10, soft_labels=True)(logits, offsets, targets)
    expected = 0.0
    for b, p in (targets.cls_weight[..., 0] > 0).nonzero().tolist():
        factor = quality_factor(offset_quality(offsets[b : b + 1, p].detach(), targets.offsets[b : b + 1, p]))[0]
        for z, y in zip(logits[b, p].sigmoid().tolist(), (targets.cls[b, p] * factor).tolist(), strict=True):
            z, y = torch.tensor(z), torch.tensor(y)
            loss = -y * z.log() - (1 - y) * (1 - z).log()
            expected += float(loss * (y - z).abs() ** 2 * (0.25 * y + 0.75 * (1 - y)))
    normalizer = 0.9 * 10 + 0.1 * float(targets.cls.sum())
    assert losses["cls_loss"].item() == pytest.approx(expected / normalizer, rel=1e-4)
    losses["cls_loss"].requires_grad_().backward()
    assert offsets.grad is None, "the boundaries do not learn from the class loss"


def test_soft_labels_need_a_sigmoid_head():
    with pytest.raises(ValueError, match=r"soft_labels: needs model\.class_form: sigmoid"):
        Criterion(soft_labels=True, class_form="softmax")


def test_decoding_multiplies_the_scores_of_a_point():
    points = [torch.tensor([[0.0, 0, 4, 1], [1.0, 0, 4, 1]])]
    logits, offsets, masks = [torch.randn(2, 3)], [torch.ones(2, 2)], [torch.ones(2, dtype=torch.bool)]
    options = dict(pre_nms_thresh=0.0, pre_nms_topk=10, duration_thresh=0.0)
    found = decode(logits, offsets, masks, points, factors=[torch.tensor([0.5, 0.0])], **options)
    assert sorted(found.scores.tolist()) == pytest.approx(sorted((logits[0][0].sigmoid() / 2).tolist()))
    with pytest.raises(ValueError, match="not finite"):
        decode(logits, offsets, masks, points, factors=[torch.tensor([0.5, torch.nan])], **options)


def test_the_rest_of_the_network_is_as_without_the_head():
    torch.manual_seed(3)
    plain = {name: value.clone() for name, value in build().state_dict().items()}
    with_head = build(quality=True)
    shared = {name: value for name, value in with_head.state_dict().items() if not name.startswith("quality_head")}
    assert list(shared) == list(plain)
    model = build().eval()
    with_head.eval().load_state_dict({**with_head.state_dict(), **model.state_dict()})
    (expected,), (unused,) = model([video(60)]), _unweighted(with_head)
    assert torch.equal(expected["scores"], unused["scores"]) and torch.equal(expected["segments"], unused["segments"])
    (weighted,) = with_head([video(60)])
    assert not torch.equal(weighted["scores"], expected["scores"])


def _unweighted(model):
    model.test_cfg["quality_score"] = False
    try:
        return model([video(60)])
    finally:
        del model.test_cfg["quality_score"]


@pytest.mark.parametrize("in_file", [True, False])
def test_weights_with_and_without_the_head_do_not_fit(in_file):
    with pytest.raises(ValueError, match=rf"set model\.quality: {str(in_file).lower()}, as in the run that made"):
        load_state(build(quality=not in_file), build(quality=in_file).state_dict())
