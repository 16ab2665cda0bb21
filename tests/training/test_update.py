"""The update that both trainers share, against the steps written out."""

import pytest
import torch
from torch import nn

from libs.training.ema import ModelEma
from libs.training.update import NonFiniteLossError, Updater

VIDEOS = [{"video_id": "v7"}]


def make(**options):
    torch.manual_seed(0)
    model = nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    return model, Updater(model, optimizer, scheduler, **options)


def losses_of(model):
    return lambda x: {"final_loss": model(x).square().sum(), "half": model(x).square().sum() / 2}


@pytest.mark.parametrize("scale", [None, 1024.0])
@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("clip", [-1.0, 0.05])
def test_one_update_is_the_steps_written_out(parts, clip, scale):
    """Mean over the parts, clipping of the gradient as it is without scaling, one step, one tick of the schedule."""
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    model, updater = make(clip_grad_l2norm=clip, scaler=scaler)
    batch = [torch.randn(4, 3, generator=torch.Generator().manual_seed(k)) for k in range(parts)]
    weight = model.weight.detach().clone().requires_grad_()
    loss = sum((x @ weight.T).square().sum() for x in batch) / parts
    (gradient,) = torch.autograd.grad(loss, weight)
    if clip > 0:
        gradient = gradient * min(1.0, clip / (float(gradient.norm()) + 1e-6))
    values = updater.update(losses_of(model), batch, videos=VIDEOS, epoch=0, iteration=0)
    torch.testing.assert_close(model.weight.detach(), (weight - 0.1 * gradient).detach(), rtol=1e-5, atol=1e-6)
    expected = float(loss.detach())
    assert values == pytest.approx({"final_loss": expected, "half": expected / 2}, rel=1e-5)
    assert updater.scheduler.get_last_lr() == [0.05]


def test_the_average_follows():
    model, _ = make()
    ema = ModelEma(model, 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    updater = Updater(model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1), ema=ema)
    before = model.weight.detach().clone()
    updater.update(losses_of(model), [torch.ones(1, 3)], videos=VIDEOS, epoch=0, iteration=0)
    torch.testing.assert_close(ema.module.weight, (before + model.weight.detach()) / 2)


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_what_is_not_finite_changes_nothing(bad):
    model, updater = make()
    before = model.weight.detach().clone()

    def losses(x):
        loss = model(x).sum()
        return {"final_loss": loss * float("nan") if bad == "loss" else (loss - loss.detach()).abs().sqrt()}

    with pytest.raises(NonFiniteLossError, match=r"epoch 3, iteration 5.*'v7'"):
        updater.update(losses, [torch.ones(1, 3)], videos=VIDEOS, epoch=2, iteration=5)
    assert torch.equal(model.weight, before) and updater.scheduler.get_last_lr() == [0.1]
