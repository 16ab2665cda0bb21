"""The softmax form of the class loss: start, scores, loss and checkpoints."""

import math

import pytest
import torch
import torch.nn.functional as F

from actionformer_nt.self_training.criterion import UnlabeledCriterion
from actionformer_nt.self_training.point_targets import PointTargets
from libs.modeling.assignment import Targets
from libs.modeling.class_form import ClassForm
from libs.modeling.criterion import Criterion
from libs.modeling.heads import ClsHead
from libs.training.checkpoint import load_state


def head(form):
    torch.manual_seed(0)
    return ClsHead(in_dim=4, dim=4, num_classes=5, num_layers=1, kernel_size=1, form=form)


def test_at_the_start_all_classes_together_have_the_prior():
    bias = head("softmax").cls_head.conv.bias.detach()
    torch.testing.assert_close(ClassForm("softmax").scores(bias).sum(), torch.tensor(0.01))
    torch.testing.assert_close(
        ClassForm("sigmoid").scores(head("sigmoid").cls_head.conv.bias.detach()), torch.full((5,), 0.01)
    )


def test_scores_are_those_of_a_softmax_with_a_background():
    z = torch.tensor([[2.0, -1.0]])
    total = math.exp(2) + math.exp(-1) + 1
    torch.testing.assert_close(
        ClassForm("softmax").scores(z), torch.tensor([[math.exp(2) / total, math.exp(-1) / total]])
    )


def test_weights_of_one_form_are_not_taken_for_the_others():
    assert set(head("softmax").state_dict()) - set(head("sigmoid").state_dict()) == {"softmax_form"}
    for a, b in (("softmax", "sigmoid"), ("sigmoid", "softmax")):
        with pytest.raises(ValueError, match="softmax_form"):
            load_state(head(a), head(b).state_dict())
    load_state(head("softmax"), head("softmax").state_dict())


def test_labeled_loss_is_target_and_negative_loss_over_classes_and_background():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 2)
    y = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]])  # one class, none, both
    targets = Targets(y, torch.ones(1, 3, 1), torch.ones(1, 3, 2), y.amax(-1))
    criterion = Criterion(init_loss_norm=1.0, class_form="softmax")
    found = criterion(logits, torch.ones(1, 3, 2), targets)["cls_loss"] * criterion.loss_normalizer
    p = F.softmax(torch.cat([logits[0], torch.zeros(3, 1)], dim=1), dim=1)
    omega = torch.cat([y[0], torch.tensor([[0.0], [1.0], [0.0]])], dim=1)
    torch.testing.assert_close(found, -(omega * p.log() + (1 - omega) * (1 - p).log()).sum())


def test_on_a_pseudo_segment_the_background_has_no_weight_and_elsewhere_it_is_the_target():
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 2)
    y = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    w = torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.5]]])
    targets = PointTargets(
        Targets(y, w, torch.ones(1, 2, 2), torch.tensor([[1.0, 0.0]])), torch.tensor([[True, False]])
    )
    criterion = UnlabeledCriterion(form="softmax", reg_weight=1.0)
    found = criterion(logits, torch.ones(1, 2, 2), targets, labeled_normalizer=1.0)["cls_loss"] * criterion.normalizer
    p = F.softmax(torch.cat([logits[0], torch.zeros(2, 1)], dim=1), dim=1)
    elsewhere = -0.5 * (p[1, 2].log() + (1 - p[1, :2]).log().sum())
    torch.testing.assert_close(found, -p[0, 0].log() + elsewhere)
