"""`sstap`: every constant of the published code, and each loss against a slow version."""

import math

import pytest
import torch
from torch.nn import functional as F

from actionformer_nt.methods import Matched, Progress, Sizes, Trunk, get_method
from actionformer_nt.methods.sstap import BINS, masked_snippets, rows_at, sharpened, swapped_halves
from actionformer_nt.pseudo_sections import ViewSection
from actionformer_nt.self_training.views import make_view

START = Progress(0, 0.0)


def pair(best, seed=0):
    """A video whose teacher's best score is `best`."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.rand(*size, generator=generator, dtype=torch.float64)  # noqa: E731
    said = draw(5, 3) * best
    said[2, 1] = best
    return Matched(draw(5, 3), said, 4 * draw(5, 2), 4 * draw(5, 2))


def test_the_constants_are_those_of_the_published_code():
    o = get_method("sstap").settings
    assert (o.weight, o.ramp_epochs, o.flip_weight) == (6.0, 5.0, 0.1)
    assert (o.gate, o.sharpen_high, o.sharpen_low) == (0.6, 0.9, 0.1)
    assert (o.reconstruction_weight, o.reconstruction_mask, o.order_weight) == (5e-4, 0.2, 0.01)
    assert o.view == ViewSection(channel_shift=1 / 64, channel_dropout=0.2)
    assert o.flip_view == ViewSection(flip=1.0, channel_dropout=0.1)
    assert int(o.view.channel_shift * 400) == 400 // 64 == 6


@pytest.mark.parametrize("epoch", [0.0, 1.0, 2.5, 4.9, 5.0, 50.0])
def test_omega(epoch):
    expected = 6 * math.exp(-5 * (1 - min(epoch, 5) / 5) ** 2)
    assert get_method("sstap").omega(Progress(7, epoch)) == pytest.approx(expected)


@pytest.mark.parametrize("labeled", [True, False])
def test_the_consistency_of_both_views_against_loops(labeled):
    method = get_method("sstap")
    views = [[pair(0.95, 0), pair(0.6, 1)], [pair(0.61, 2), pair(0.3, 3)]]
    found = method.consistency(views, labeled=labeled, progress=Progress(3, 2.0))
    for videos, factor, name in zip(views, (1.0, 0.1), ("view", "flip"), strict=True):
        total = 0.0
        for m in videos:
            student, said, ends, told = (column.tolist() for column in m)
            if not labeled and max(map(max, said)) <= 0.6:
                continue
            if not labeled:
                said = [[1.0 if s >= 0.9 else 0.0 if s <= 0.1 else s for s in row] for row in said]
            total += sum((student[i][c] - said[i][c]) ** 2 for i in range(5) for c in range(3)) / 15
            best = [max(row) for row in said]
            away = [sum((ends[i][k] - told[i][k]) ** 2 for k in range(2)) for i in range(5)]
            total += sum(b * a for b, a in zip(best, away, strict=True)) / (2 * sum(best))
        expected = factor * 6 * math.exp(-5 * 0.6**2) * total / 2
        assert found[name].item() == pytest.approx(expected)


def test_sharpening():
    scores = torch.tensor([0.0, 0.1, 0.11, 0.89, 0.9, 1.0])
    torch.testing.assert_close(sharpened(scores, low=0.1, high=0.9), torch.tensor([0, 0, 0.11, 0.89, 1, 1]))


def test_channels_are_moved_one_step_each_way():
    feats = torch.arange(1.0, 401)[:, None] * 1000 + torch.arange(10)
    view, _ = make_view(feats, ViewSection(channel_shift=1 / 64), torch.Generator().manual_seed(0))
    past = future = same = 0
    for before, after in zip(feats, view, strict=True):
        past += bool(torch.equal(after[:-1], before[1:]) and after[-1] == 0)
        future += bool(torch.equal(after[1:], before[:-1]) and after[0] == 0)
        same += bool(torch.equal(after, before))
    assert (past, future, same) == (6, 6, 388)
    assert torch.equal(make_view(feats[:40], ViewSection(channel_shift=1 / 64), torch.Generator())[0], feats[:40])


def linear_trunk(weight, modules, count):
    """A network whose features are a linear map of every second snippet."""
    generators = [torch.Generator().manual_seed(k) for k in range(count)]
    return Trunk(lambda videos: [[(weight @ video["feats"])[:, ::2].T] for video in videos], 2, modules, generators)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reconstruction_and_order_against_loops(dtype):
    torch.manual_seed(0)
    method, weight = get_method("sstap"), torch.randn(4, 3, dtype=dtype)
    modules = method.modules(Sizes(input_dim=3, width=4, num_classes=5)).to(dtype)
    assert modules["decoder"].weight.shape == (3, 4) and modules["order"].weight.shape == (1, 8 * 4)
    videos = [{"video_id": f"v{k}", "feats": torch.randn(3, 21 + 16 * k, dtype=dtype)} for k in range(4)]
    found = method.auxiliary(videos, linear_trunk(weight, modules, 4), labeled=True, progress=START)
    rebuilt, told, swaps = 0.0, 0.0, []
    for k, video in enumerate(videos):
        feats, generator = video["feats"], torch.Generator().manual_seed(k)
        steps = feats.shape[1]
        keep = torch.rand(steps, generator=generator) >= 0.2
        assert not keep.all()
        error = 0.0
        for t in range(0, steps, 2):
            own = modules["decoder"](weight @ (feats[:, t] * keep[t]))
            error += ((own - feats[:, t]) ** 2).sum().item()
        rebuilt += error / (3 * len(range(0, steps, 2)))
        swap = bool(torch.rand((), generator=generator) < 0.5)
        swaps.append(swap)
        middle = steps // 2
        order = torch.cat([feats[:, middle:], feats[:, :middle]], 1) if swap else feats
        pooled = F.adaptive_avg_pool1d((weight @ order)[:, ::2], BINS).flatten()
        logit = modules["order"](pooled).item()
        told += math.log1p(math.exp(-logit if swap else logit))
    assert 0 < sum(swaps) < 4
    assert found["reconstruction"].item() == pytest.approx(5e-4 * rebuilt / 4, rel=1e-5)
    assert found["order"].item() == pytest.approx(0.01 * told / 4, rel=1e-5)


def test_its_gradients_against_finite_differences():
    torch.manual_seed(1)
    method = get_method("sstap")
    modules = method.modules(Sizes(3, 4, 5)).double()
    videos = [{"video_id": "v", "feats": torch.randn(3, 24, dtype=torch.float64)}]

    def auxiliary(weight):
        return sum(method.auxiliary(videos, linear_trunk(weight, modules, 1), labeled=True, progress=START).values())

    assert torch.autograd.gradcheck(auxiliary, torch.randn(4, 3, dtype=torch.float64, requires_grad=True))
    m = pair(0.95)

    def consistency(scores, places):
        moved = [[m._replace(scores=scores, places=places)], [m]]
        return sum(method.consistency(moved, labeled=False, progress=START).values())

    assert torch.autograd.gradcheck(consistency, (m.scores.requires_grad_(), m.places.requires_grad_()))


def test_helpers():
    feats = torch.arange(14.0).view(2, 7)
    assert swapped_halves(feats)[0].tolist() == [3, 4, 5, 6, 0, 1, 2]
    assert rows_at(feats, 4, 2)[:, 0].tolist() == [0, 2, 4, 6] and rows_at(feats, 7, 1).shape == (7, 2)
    assert rows_at(torch.arange(100.0)[None], 7, 16)[:, 0].tolist() == [0, 16, 32, 48, 64, 80, 96]
    masked = masked_snippets(torch.ones(3, 1000), 0.2, torch.Generator().manual_seed(0))
    assert torch.equal(masked[0], masked[1]) and 150 < (masked[0] == 0).sum() < 250
