"""`plr`: weights and refined boundaries."""

import pytest
import torch

from actionformer_nt.methods import Averaged, Evidence, Options, Progress, Sizes, Trunk, get_method
from actionformer_nt.methods.plr import displaced
from actionformer_nt.methods.regions import sampled

SIZES = Sizes(input_dim=3, width=4, num_classes=2)


def evidence(method, n=5):
    generator = torch.Generator().manual_seed(0)
    start = 10 + 20 * torch.rand(n, 1, generator=generator)
    return Evidence(
        probs=torch.rand(n, 2, generator=generator).softmax(-1), scores=torch.rand(n, generator=generator),
        selected=torch.tensor([True] * (n - 1) + [False]), stability=torch.rand(n, generator=generator),
        segments=torch.cat([start, start + 12], dim=1),
        averaged=Averaged(torch.randn(25, 4, generator=generator), 2, method.modules(SIZES)),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["plr", "nt+plr"])
@pytest.mark.parametrize("updates", [1, 6, 30])
def test_weights_grow_equal(name, updates):
    plr = {"sharpness": 2.0, "ramp_up": 12}
    method = get_method(name, {"plr": plr})
    e = evidence(method)
    for _ in range(updates):
        method.observe([e.shared()])
    (plain,) = (get_method("nt") if "nt" in name else get_method("plr")).teach([e], Options())
    (lesson,) = method.locate([e], method.teach([e], Options()), Options())
    for i in range(5):
        weight = float(e.stability[i]) ** (2 * max(1 - updates / 12, 0))
        assert lesson.v[i].item() == pytest.approx(weight, rel=1e-5)
        torch.testing.assert_close(lesson.w[i], plain.w[i] * weight)
    assert torch.equal(lesson.y, plain.y) and lesson.ignore is None and lesson.keep is None
    assert torch.equal(lesson.segments, e.segments), "the refinement has learned nothing yet"


def test_the_refinement_moves_both_boundaries_by_a_share_of_the_length():
    method = get_method("plr", {"plr": {"jitter": 0.2}})
    e = evidence(method)
    refinement = e.averaged.modules
    torch.nn.init.normal_(refinement.last.weight)
    (lesson,) = method.locate([e], method.teach([e], Options()), Options())
    moved = (lesson.segments - e.segments) / 12
    assert 0 < moved.abs().max() <= 0.2 and not lesson.segments.requires_grad
    for i, (start, end) in enumerate(e.segments.tolist()):
        regions = [(start - 3, start + 3), (start, end), (end - 3, end + 3)]
        x = [
            sampled(e.averaged.features, torch.tensor((a + (k + 0.5) / 4 * (b - a)) / 2))
            for a, b in regions for k in range(4)
        ]  # fmt: skip
        own = 0.2 * refinement.last(refinement.hidden(torch.cat(x)).relu()).tanh()
        torch.testing.assert_close(moved[i], own.detach(), rtol=1e-3, atol=1e-4)


def test_the_refinement_learns_to_undo_displacements():
    """Features that ramp up at the start of an event and down at its end tell where the boundaries are."""
    torch.manual_seed(0)
    method = get_method("plr", {"plr": {"jitter": 0.2, "width": 32}})
    module = method.modules(SIZES)
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)

    def video(start, end):
        t = torch.arange(60.0)
        inside = torch.sigmoid(t - start) * torch.sigmoid(end - t)
        feats = torch.stack([inside, inside.square(), 1 - inside, torch.ones(60)])
        return {"feats": feats, "segments": torch.tensor([[start, end]]), "labels": torch.tensor([0])}

    losses = []
    for i in range(300):
        places = torch.rand(4, 2, generator=torch.Generator().manual_seed(i))
        videos = [video(10 + 10 * float(a), 35 + 15 * float(b)) for a, b in places]
        generators = [torch.Generator().manual_seed(9 * i + k) for k in range(4)]
        trunk = Trunk(lambda videos: [[v["feats"].T] for v in videos], 1, module, generators)
        (loss,) = method.auxiliary(videos, trunk, labeled=True, progress=Progress(i, 0)).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])
    assert method.auxiliary(videos, trunk, labeled=False, progress=Progress(0, 0)) == {}
    none = {**video(10.0, 40.0), "segments": torch.zeros(0, 2), "labels": torch.zeros(0, dtype=torch.long)}
    trunk = trunk._replace(generators=generators[:1])
    assert method.auxiliary([none], trunk, labeled=True, progress=Progress(0, 0))["refinement"] == 0


def test_displacements_are_relative_to_the_new_length():
    events = torch.tensor([[10.0, 20.0], [30.0, 31.0]])
    seen, off = displaced(events, 0.2, torch.Generator().manual_seed(1))
    assert ((seen - events).abs() <= 0.2 * (events[:, 1:] - events[:, :1]) + 1e-5).all()
    back = seen + off * (seen[:, 1:] - seen[:, :1])
    clamped = off.abs() == 0.2
    torch.testing.assert_close(back[~clamped], events[~clamped])


def test_snippets_have_weights_only():
    method = get_method("plr")
    method.observe([])
    probs = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    e = Evidence(
        probs=probs, scores=torch.ones(2), selected=torch.ones(2, dtype=torch.bool), unit="snippet",
        stability=torch.tensor([0.5, 0.5]),
    )  # fmt: skip
    options = Options(form="softmax")
    plain = method.teach([e], options)
    (lesson,) = method.locate([e], plain, options)
    assert lesson.segments is None and lesson.v is None
    torch.testing.assert_close(lesson.w[0], plain[0].w[0] * 0.5**method.exponent)
    assert torch.equal(lesson.w[1], plain[0].w[1]), "the background is not weighed"


@pytest.mark.parametrize("name", ["plr", "apl"])
def test_gradients_of_the_losses_on_labeled_videos(in_64_bits, name):
    """Of the features, against finite differences."""
    method = get_method(name)
    module = method.modules(SIZES)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    video = {"feats": torch.zeros(3, 14), "segments": torch.tensor([[2.3, 6.0], [8.0, 12.7]]),
             "labels": torch.tensor([0, 1])}  # fmt: skip

    def loss(features):
        trunk = Trunk(lambda videos: [[features]], 1, module, [torch.Generator().manual_seed(0)])
        (found,) = method.auxiliary([video], trunk, labeled=True, progress=Progress(0, 0)).values()
        return found

    assert torch.autograd.gradcheck(loss, torch.randn(14, 4, requires_grad=True))
