import json

import pytest
import torch
from torch import nn

from libs.modeling.blocks import LayerNorm
from libs.training.optim import total_epochs
from libs.utils import ModelEma, make_optimizer, make_scheduler

OPT = {
    "type": "AdamW", "momentum": 0.9, "weight_decay": 0.05, "learning_rate": 1e-3, "epochs": 5, "warmup": True,
    "warmup_epochs": 2, "schedule_type": "cosine", "schedule_steps": [], "schedule_gamma": 0.1,
}  # fmt: skip


def schedule(opt, iters, steps):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=opt["learning_rate"])
    scheduler = make_scheduler(optimizer, opt, iters)
    rates = [scheduler.get_last_lr()[0]]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates, scheduler


def test_schedules_equal_actionformer(reference):
    for name, case in json.loads((reference / "schedules.json").read_text()).items():
        opt = OPT | case["options"] | {"learning_rate": case["base_lr"]}
        rates, _ = schedule(opt, case["iters_per_epoch"], len(case["lr"]) - 1)
        assert rates == pytest.approx(case["lr"], abs=1e-12), name


def test_schedule_defects_of_actionformer_are_gone():
    rates, _ = schedule(OPT | {"warmup_epochs": 0}, 7, 40)
    assert rates[0] == 1e-3 and rates[35] == pytest.approx(1e-8)  # no warm-up: full rate at once
    assert rates[36] == rates[40] == pytest.approx(1e-8)  # past the end the cosine does not rise again
    multistep, _ = schedule(OPT | {"warmup": False, "schedule_type": "multistep", "schedule_steps": [1, 1]}, 7, 8)
    assert multistep[6] == 1e-3 and multistep[7] == pytest.approx(1e-5)  # a milestone given twice counts twice
    assert total_epochs(OPT) == 7 and total_epochs(OPT | {"warmup": False}) == 5
    assert total_epochs(OPT | {"early_stop_epochs": 3}) == 3


def test_schedule_resumes_from_position_and_base_rates():
    rates, _ = schedule(OPT, 7, 30)
    _, scheduler = schedule(OPT, 7, 0)
    scheduler.load_state_dict({"last_epoch": 20, "base_lrs": [1e-3], "milestones": "anything"})
    assert scheduler.optimizer.param_groups[0]["lr"] == rates[20]
    scheduler.optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr()[0] == rates[21]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.b_conv, self.a_norm = nn.Conv1d(2, 3, 1), LayerNorm(3)
        self.a_conv, self.rel_pe = nn.Conv1d(3, 3, 1), nn.Parameter(torch.zeros(2))
        self.register_buffer("count", torch.tensor(3))


def test_only_convolution_weights_decay_in_the_order_of_names():
    net = Net()
    decay, rest = make_optimizer(net, OPT).param_groups
    assert decay["weight_decay"] == 0.05 and rest["weight_decay"] == 0
    assert [id(p) for p in decay["params"]] == [id(net.a_conv.weight), id(net.b_conv.weight)]
    names = [net.a_conv.bias, net.a_norm.bias, net.a_norm.weight, net.b_conv.bias, net.rel_pe]
    assert [id(p) for p in rest["params"]] == [id(p) for p in names]
    sgd = make_optimizer(net, OPT | {"type": "SGD"})
    assert isinstance(sgd, torch.optim.SGD) and sgd.defaults["momentum"] == 0.9
    with pytest.raises(ValueError, match="Adam3"):
        make_optimizer(net, OPT | {"type": "Adam3"})


@pytest.mark.parametrize("ramp", [False, True])
def test_ema_equals_its_definition(ramp):
    torch.manual_seed(0)
    net = Net()
    ema = ModelEma(net, 0.9, ramp=ramp)
    expected = net.a_conv.weight.detach().clone()
    for t in range(12):
        with torch.no_grad():
            net.a_conv.weight.normal_()
            net.count += 1
        decay = min(0.9, (1 + t) / (10 + t)) if ramp else 0.9
        expected = decay * expected + (1 - decay) * net.a_conv.weight.detach()
        ema.update(net)
    assert torch.allclose(ema.module.a_conv.weight, expected, atol=1e-6)
    assert ema.module.count == net.count and not ema.module.a_conv.weight.requires_grad
    assert ema.initial_weight() == (0 if ramp else pytest.approx(0.9**12))
    ema.set(net)
    assert torch.equal(ema.module.a_conv.weight, net.a_conv.weight)


def test_a_dict_of_actionformers_own_needs_no_key_of_the_other_schedule():
    """Its YAML files with a cosine have neither `schedule_gamma` nor `schedule_steps`."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    raw = {"learning_rate": 0.1, "epochs": 3, "warmup": True, "warmup_epochs": 1, "schedule_type": "cosine"}
    complete = raw | {"schedule_gamma": 0.1, "schedule_steps": []}
    rates = []
    for opt in (raw, complete):
        optimizer = torch.optim.SGD([parameter], lr=0.1)
        scheduler = make_scheduler(optimizer, opt, 5)
        rates.append([])
        for _ in range(20):
            rates[-1].append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
    assert rates[0] == rates[1] and max(rates[0]) == 0.1
