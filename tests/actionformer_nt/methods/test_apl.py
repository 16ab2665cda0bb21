"""`apl` and `apl_quality`: thresholds, weights, soft labels, discriminator and pretraining."""

from dataclasses import replace

import pytest
import torch

from actionformer_nt.methods import Averaged, Evidence, Options, Progress, Sizes, Trunk, get_method
from actionformer_nt.methods.apl import Discriminator, actionness

SIZES = Sizes(input_dim=3, width=4, num_classes=3)


def segments(seed, n=10):
    generator = torch.Generator().manual_seed(seed)
    start = 30 * torch.rand(n, 1, generator=generator)
    return Evidence(
        probs=torch.randn(n, 3, generator=generator).softmax(-1), scores=torch.rand(n, generator=generator),
        selected=torch.rand(n, generator=generator) > 0.3, quality=torch.rand(n, generator=generator),
        segments=torch.cat([start, start + 8], dim=1),
    )  # fmt: skip


def snippets(seed, n=12, padded=3):
    generator = torch.Generator().manual_seed(seed)
    probs = (2 * torch.randn(n, 4, generator=generator)).softmax(-1)
    valid = torch.arange(n) < n - padded
    return Evidence(
        probs=probs * valid[:, None], scores=probs[:, :-1].amax(-1), unit="snippet", valid=valid,
        selected=(torch.rand(n, generator=generator) > 0.3) & valid, quality=torch.rand(n, generator=generator),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["apl_quality", "nt+apl_quality"])
@pytest.mark.parametrize("make", [segments, snippets])
def test_thresholds_and_weights_against_loops(name, make):
    method = get_method(name, {"apl_quality": {"factor": 0.9, "window": 3}})
    videos = [make(seed) for seed in range(5)]
    method.observe([e.shared() for e in videos[:2]])
    method.observe([e.shared() for e in videos[2:]])
    options = Options(form="softmax" if make is snippets else "sigmoid")
    plain = get_method("nt" if "nt" in name else "apl_quality").teach(videos, options)
    lessons = method.locate(videos, method.teach(videos, options), options)
    scores = {}

    def joint(e, i):
        return float(e.scores[i]) * (float(e.quality[i]) if make is snippets else 1)

    for e in videos[2:]:
        for i in e.selected.nonzero()[:, 0].tolist():
            scores.setdefault(int(e.probs[i].argmax()), []).append(joint(e, i))
    ignored = 0
    for e, lesson, other in zip(videos, lessons, plain, strict=True):
        for i in range(len(e.probs)):
            c, q = int(e.probs[i].argmax()), float(e.quality[i])
            action = c < 3
            low = action and c in scores and joint(e, i) < 0.9 * sum(scores[c]) / len(scores[c])
            assert bool(lesson.ignore[i]) == (low and bool(e.selected[i])), (i, c)
            ignored += int(lesson.ignore[i])
            if make is segments:
                assert lesson.v[i].item() == pytest.approx(q) and torch.equal(lesson.w[i], other.w[i])
            else:
                torch.testing.assert_close(lesson.w[i], other.w[i] * (q if action else 1))
    assert ignored > 3


def test_soft_class_targets():
    e = replace(segments(0), averaged=None)
    method = get_method("apl")
    target = torch.nn.functional.one_hot(e.probs.argmax(-1), 3).float()
    (sigmoid,) = method.teach([e], Options())
    torch.testing.assert_close(sigmoid.y, target * e.quality[:, None])
    assert sigmoid.w.eq(1).all()
    (softmax,) = method.teach([e], Options(form="softmax"))
    torch.testing.assert_close(softmax.y * softmax.w, target * e.quality[:, None])
    assert (softmax.w * (1 - softmax.y)).eq(0).all(), "nothing is pushed down"
    s = snippets(0)
    (lesson,) = method.teach([s], Options(form="softmax"))
    for i in range(9):
        c, expected = int(s.probs[i].argmax()), torch.zeros(4)
        expected[c] += float(s.quality[i]) if c < 3 else 1
        expected[3] += 1 - expected.sum()
        torch.testing.assert_close(lesson.w[i], expected)
    assert lesson.y.eq(1).all()


def sure_discriminator(classes):
    """A discriminator that finds feature k unlike all but class `classes[k]`."""
    module = Discriminator(SIZES, 4, 0.05)
    with torch.no_grad():
        module.embedding.weight.copy_(torch.eye(4))
        module.embedding.bias.zero_()
        module.classes.zero_()
        for k, c in enumerate(classes):
            module.classes[c, k] = 1.0
    return module


def test_the_discriminator_drops_and_mines():
    method = get_method("apl", {"apl": {"discriminator_after": 0, "factor": 0.5, "drop": 0.1, "mine": 0.9}})
    features = torch.zeros(20, 4)
    features[:10, 0], features[10:, 3] = 1.0, 1.0  # an instance of class 0, then background
    probs = torch.tensor([[0.8, 0.1, 0.1]] * 5)
    e = Evidence(
        probs=probs, scores=torch.tensor([0.9, 0.9, 0.8, 0.8, 0.1]),
        selected=torch.tensor([True, True, False, False, False]), quality=torch.ones(5),
        segments=torch.tensor([[2.0, 14.0], [24.0, 36.0], [4.0, 10.0], [26.0, 30.0], [4.0, 12.0]]),
        averaged=Averaged(features, 2, sure_discriminator([0, 1, 2, 3])),
    )  # fmt: skip
    method.observe([e.shared()])
    (lesson,) = method.locate([e], method.teach([e], Options()), Options())
    assert lesson.kept(e).tolist() == [True, False, True, False, False]  # the last one's score is below the threshold
    assert lesson.ignore.tolist() == [False, True, False, False, False]
    method.renew()
    assert method.updates == 0
    for options in ({"discriminator_after": 1}, {"discriminator_after": 0, "discriminator_weight": 0}):
        idle = get_method("apl", {"apl": options})
        idle.observe([e.shared()])
        (lesson,) = idle.locate([e], idle.teach([e], Options()), Options())
        assert lesson.kept(e).tolist() == [True, True, False, False, False]
    composed = get_method("fixmatch+apl", {"apl": {"discriminator_after": 0}, "fixmatch": {"threshold": 0.81}})
    composed.observe([e.shared()])
    own = torch.nn.ModuleDict({"apl": e.averaged.modules})
    e = replace(e, averaged=e.averaged._replace(modules=own))
    (lesson,) = composed.locate([e], composed.teach([e], Options()), Options())
    assert not lesson.kept(e).any(), "what is mined is filtered too"


def test_a_class_without_pseudo_labels_has_the_mean_threshold_for_mining():
    method = get_method("apl", {"apl": {"discriminator_after": 0, "factor": 0.5, "mine": 0.9}})
    features = torch.zeros(20, 4)
    features[:, 1] = 1.0
    e = Evidence(
        probs=torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]]), scores=torch.tensor([0.8, 0.3, 0.5]),
        selected=torch.tensor([True, False, False]), quality=torch.ones(3),
        segments=torch.tensor([[2.0, 14.0], [4.0, 10.0], [20.0, 30.0]]),
        averaged=Averaged(features, 2, sure_discriminator([0, 1, 2, 3])),
    )  # fmt: skip
    empty = replace(e, selected=torch.zeros(3, dtype=torch.bool))
    method.observe([empty.shared()])
    (lesson,) = method.locate([empty], method.teach([empty], Options()), Options())
    assert not lesson.kept(empty).any(), "nothing is known"
    method.observe([e.shared()])
    (lesson,) = method.locate([e], method.teach([e], Options()), Options())
    assert lesson.kept(e)[1:].tolist() == [False, True]


def test_padded_snippets_are_never_mined():
    method = get_method("apl", {"apl": {"discriminator_after": 0, "factor": 1e-6, "drop": 0.0, "mine": 0.0}})
    e = replace(snippets(3), averaged=Averaged(torch.randn(9, 4), 1, sure_discriminator([0, 1, 2, 3])))
    method.observe([e.shared()])
    options = Options(form="softmax")
    (lesson,) = method.locate([e], method.teach([e], options), options)
    action = e.probs.argmax(-1) < 3
    assert torch.equal(lesson.kept(e), e.selected | (action & e.valid))


def test_the_discriminator_learns_from_events_and_gaps():
    torch.manual_seed(0)
    method = get_method("apl")
    module = method.modules(SIZES)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    feats = 0.1 * torch.randn(4, 40)
    feats[0, 5:15] += 1
    feats[1, 20:30] += 1
    video = {"feats": feats, "segments": torch.tensor([[5.0, 14.0], [20.0, 29.0]]), "labels": torch.tensor([2, 0])}
    trunk = Trunk(lambda videos: [[v["feats"].T] for v in videos], 1, module, [torch.Generator()])
    for _ in range(100):
        (loss,) = method.auxiliary([video], trunk, labeled=True, progress=Progress(0, 0)).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logits = module(torch.stack([feats[:, 5:15].mean(1), feats[:, 20:30].mean(1), feats[:, 32:38].mean(1)]))
    assert logits.argmax(-1).tolist() == [2, 0, 3]
    expected = torch.nn.functional.cross_entropy(logits.detach(), torch.tensor([2, 0, 3]))
    assert expected < 0.3 and loss < 0.1 * 0.5
    assert method.auxiliary([video], trunk, labeled=False, progress=Progress(0, 0)) == {}


def test_actionness_takes_the_extremes():
    feats = torch.zeros(2, 20)
    feats[0, 8:12] = 5.0
    group = actionness(feats, 10, 0.2)  # points 0, 2, ..., 18
    assert group[4:6].tolist() == [1, 1] and (group == 0).sum() == 2 and (group == -1).sum() == 6


def test_pretraining_compares_two_views_of_every_level():
    method = get_method("apl", {"apl": {"fine_weight": 2.0, "coarse_weight": 0.0, "pretext_points": 5}})
    videos = [{"feats": torch.randn(3, 16, generator=torch.Generator().manual_seed(k))} for k in range(2)]

    def run():
        seen = []

        def levels(views):
            seen.append([view["feats"] for view in views])
            return [[view["feats"].T, view["feats"].T[::4]] for view in views]

        generators = [torch.Generator().manual_seed(k) for k in range(2)]
        return method.pretext(videos, Trunk(levels, 1, None, generators)), seen

    (losses, seen), (again, _) = run(), run()
    assert set(losses) == {"fine", "coarse"} and losses["coarse"] == 0 and losses == again
    assert len(seen) == 2 and not torch.equal(seen[0][0], seen[1][0])
    for view in seen[0]:
        assert view.shape == (3, 16)
    trivial = get_method("apl", {"apl": {"pretext_points": 1, "pretext_dropout": 0.0, "pretext_noise": 0.0}})
    generators = [torch.Generator().manual_seed(k) for k in range(2)]
    trunk = Trunk(lambda views: [[view["feats"].T] for view in views], 1, None, generators)
    assert trivial.pretext(videos, trunk)["fine"] == 0, "one moment is told from no other"


def test_the_state_is_restored():
    method, again = get_method("apl"), get_method("apl")
    method.observe([segments(0).shared()])
    again.load_state(method.state())
    assert again.updates == 1 and torch.equal(again.thresholds(3), method.thresholds(3))
