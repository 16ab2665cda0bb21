"""Further views for the teacher: what it finds there is moved back to the weak view and averaged."""

from types import SimpleNamespace

import pytest
import torch

from actionformer_nt.pseudo_sections import PseudoSection, ViewSection
from actionformer_nt.self_training.pseudo_segments import candidates, mapped_back, propose
from actionformer_nt.self_training.setup import set_up
from actionformer_nt.self_training.views import Geometry, make_view
from actionformer_nt.spot.average import average
from actionformer_nt.spot.network import SpotOutput
from actionformer_nt.spot.pseudo_masks import view_index
from actionformer_nt.spot.self_training import SpotSelfTraining
from libs.core import load_config

SURE = (2.0, -4.0)
SHIFTED = Geometry([(torch.tensor([0.0, 1.0]), torch.tensor([3.0, 4.0]))])  # three steps later in the view


ALL = {"crop": 0.3, "shift": 2, "warp": 0.3, "flip": 0.5}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("options", [{"shift": 4}, {"crop": 0.4}, {"warp": 0.4}, {"flip": 1.0}, ALL])
def test_the_inverse_takes_times_back(options, seed):
    _, geometry = make_view(torch.zeros(1, 50), ViewSection(**options), torch.Generator().manual_seed(seed))
    times = torch.linspace(-3, 53, 40, dtype=torch.float64)
    torch.testing.assert_close(geometry.inverse(geometry(times)), times, atol=1e-4, rtol=0)
    torch.testing.assert_close(geometry(geometry.inverse(times)), times, atol=1e-4, rtol=0)
    assert geometry.inverse.reverses == geometry.reverses


def pooled(outputs, **options):
    """Proposals of a weak view and of further views: (output, geometry, steps)."""
    (first, *rest) = outputs
    views = [candidates(first, 0)] + [mapped_back(candidates(o, 0), geometry, steps) for o, geometry, steps in rest]
    return propose(views, PseudoSection(**options))


def test_the_same_view_twice_is_that_view(output_for):
    output = output_for([((4.0, 12.0), SURE), ((16.0, 27.0), (-1.0, 0.5))])
    alone, twice = pooled([output]), pooled([output, (output, Geometry(), 32)])
    assert len(alone.scores) == 2
    for one, two in zip(alone, twice, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_a_teacher_that_moves_with_the_video_finds_the_same_segments(output_for):
    weak = output_for([((4.0, 12.0), SURE), ((14.0, 25.0), (-1.0, 0.5))])
    view = output_for([((7.0, 15.0), SURE), ((17.0, 28.0), (-1.0, 0.5))])
    alone, found = pooled([weak]), pooled([weak, (view, SHIFTED, 32)])
    torch.testing.assert_close(found.segments, alone.segments, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.scores, alone.scores)
    torch.testing.assert_close(found.logits, alone.logits, atol=1e-4, rtol=0)
    assert float(found.spread.max()) < 0.01


def test_logits_ends_scores_and_spread_over_views_that_disagree(output_for):
    """In the second view the segment ends a step later and is of the other class."""
    weak, view = output_for([((4.0, 12.0), SURE)]), output_for([((7.0, 16.0), (-4.0, 1.0))])
    found = pooled([weak, (view, SHIFTED, 32)])
    first, second = candidates(weak, 0), candidates(view, 0)
    w = torch.cat([first.scores, second.scores])
    w = w / w.sum()
    segments = torch.cat([first.segments, second.segments - 3])
    mean = (w[:, None] * segments).sum(0)
    torch.testing.assert_close(found.segments[0], mean, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.logits[0], w @ torch.cat([first.logits, second.logits]), atol=1e-4, rtol=0)
    deviation = (w[:, None] * (segments - mean).square()).sum(0).sqrt()
    torch.testing.assert_close(found.spread[0], deviation, atol=1e-3, rtol=0)
    assert deviation[1] > 0.4 and deviation[0] < 0.01
    assert float(found.scores[0]) == pytest.approx(float(torch.tensor([2.0, 1.0]).sigmoid().mean()))


def test_a_segment_that_a_view_does_not_confirm_loses_score_unless_the_view_does_not_see_it(output_for):
    weak = output_for([((4.0, 12.0), SURE), ((20.0, 26.0), (1.0, -4.0))])
    score = {4.0: float(torch.tensor(2.0).sigmoid()), 20.0: float(torch.tensor(1.0).sigmoid())}
    cropped = Geometry([(torch.tensor([0.0, 1.0]), torch.tensor([-16.0, -15.0]))])  # sees steps 16 to 31
    found = pooled([weak, (output_for([], length=16), cropped, 16)])
    starts = [round(start) for start in found.segments[:, 0].tolist()]
    assert starts == [4, 20] and found.scores.tolist() == pytest.approx([score[4.0], score[20.0] / 2])
    both = pooled([weak, (output_for([]), Geometry(), 32), (output_for([((20.0, 26.0), (1.0, -4.0))]), Geometry(), 32)])
    assert [round(start) for start in both.segments[:, 0].tolist()] == [20, 4]  # by falling score
    assert both.scores.tolist() == pytest.approx([score[20.0] * 2 / 3, score[4.0] / 3])


def test_a_segment_that_only_a_further_view_shows(output_for):
    found = pooled([output_for([]), (output_for([((7.0, 15.0), SURE)]), SHIFTED, 32)])
    assert found.segments[0].tolist() == pytest.approx([4.0, 12.0], abs=1e-4)
    assert float(found.scores[0]) == pytest.approx(float(torch.tensor(2.0).sigmoid()) / 2)


def spot(probs, masks):
    return SpotOutput(
        probs.log()[None], masks.logit()[None], torch.zeros(1, len(probs), 1), torch.ones(1, len(probs)) > 0
    )


def test_spot_s_mean_by_a_loop():
    torch.manual_seed(0)
    steps, views = 9, []
    weak = torch.rand(steps, 4).softmax(-1), torch.rand(steps, steps).clamp(0.05, 0.95)
    for shift in (-2, 3):
        probs, masks = torch.rand(steps, 4).softmax(-1), torch.rand(steps, steps).clamp(0.05, 0.95)
        geometry = Geometry([(torch.tensor([0.0, 1.0]), torch.tensor([shift, shift + 1.0]))])
        index = view_index(geometry.inverse, steps, view_length=steps, num_steps=steps)
        views.append((spot(probs, masks), index[None], probs, masks, shift))
    found = average(spot(*weak), [(output, index) for output, index, *_ in views])
    for i in range(steps):
        shown = [weak[0][i]] + [p[i + s] for *_, p, _, s in views if 0 <= i + s < steps]
        torch.testing.assert_close(found.logits[0, i].softmax(-1), torch.stack(shown).mean(0))
        for j in range(steps):
            pairs = [weak[1][i, j]]
            pairs += [m[i + s, j + s] for *_, m, s in views if 0 <= i + s < steps and 0 <= j + s < steps]
            torch.testing.assert_close(found.masks[0, i, j].sigmoid(), torch.stack(pairs).mean())


class Equivariant:
    """A SPOT network whose output at a snippet depends on the features of this snippet alone."""

    num_steps = 40

    def batches(self, videos):
        (video,) = videos
        return [SimpleNamespace(index=[0], feats=video["feats"], mask=None)]

    def network(self, feats, mask):
        steps = feats.shape[1]
        logits, masks = torch.zeros(1, 40, 3), torch.zeros(1, 40, 40)
        logits[0, :steps] = feats[:3].T
        masks[0, :steps, :steps] = feats[3][:, None] * feats[4]
        return SpotOutput(logits, masks, torch.zeros(1, 40, 1), torch.arange(40)[None] < steps)


@pytest.mark.parametrize(("start", "end"), [(5, 25), (0, 18), (9, 30)])
def test_spot_s_views_are_moved_back(start, end):
    """A view of the snippets `start` to `end`. All snippets have the output that they have without it."""
    video = {"feats": torch.randn(5, 30)}
    view = video["feats"][:, start:end]
    geometry = Geometry([(torch.tensor([0.0, 1.0]), torch.tensor([-start, 1.0 - start]))])
    teacher = Equivariant()
    (batch,) = teacher.batches([video])
    output = teacher.network(batch.feats, None)
    found = SpotSelfTraining._averaged(teacher, output, batch, [video], [[({"feats": view}, geometry)]])
    torch.testing.assert_close(found.logits[0, :30].softmax(-1), output.logits[0, :30].softmax(-1))
    masks = [one.masks[0, :30, :30].sigmoid() for one in (found, output)]
    torch.testing.assert_close(*masks, atol=2e-6, rtol=1e-4)
    other = SpotSelfTraining._averaged(teacher, output, batch, [video], [[({"feats": -view}, geometry)]])
    changed = (other.logits[0, :30].softmax(-1) - output.logits[0, :30].softmax(-1)).abs().amax(-1) > 1e-6
    assert changed.nonzero()[:, 0].tolist() == list(range(start, end))


@pytest.mark.parametrize("arch", ["LocPointTransformer", "SPOT"])
def test_the_teacher_sees_the_further_views(make_semi, monkeypatch, arch):
    """Of the views of a run, each is another view of the weak one, and its geometry leads from the weak one to it."""
    run = set_up(load_config(make_semi(arch=arch, teacher_views=[{"shift": 5}, {"shift": 5}, {"crop": 0.3}])))
    self_training, seen = run.teacher.self_training, []
    pseudo_labels = self_training.pseudo_labels
    monkeypatch.setattr(
        self_training, "pseudo_labels", lambda *args: seen.append(args) or pseudo_labels(*args)
    )  # fmt: skip
    batch = run.teacher.teach([run.stages.unlabeled[0], run.stages.unlabeled[1]], run.stages.burn_in, run.model)
    ((_, weak, further),) = seen
    assert len(further) == 3 and [len(views) for views in further] == [2, 2, 2]
    for views in further:
        for video, (view, geometry) in zip(weak, views, strict=True):
            back = geometry.inverse(torch.arange(view["feats"].shape[1], dtype=torch.float32)).round().long()
            inside = (back >= 0) & (back < video["feats"].shape[1])
            assert inside.sum() > 20 and torch.equal(view["feats"][:, inside], video["feats"][:, back[inside]])
    assert not torch.equal(further[0][0][0]["feats"], further[1][0][0]["feats"])
    alone = pseudo_labels(run.teacher.network, weak)
    evidence = [self_training.evidence(labels) for labels in alone], [self_training.evidence(p) for p in batch.pseudo]
    assert not torch.equal(evidence[0][0].probs, evidence[1][0].probs)
