"""Each setting of what a pseudo label is, on a teacher and a student whose outputs are given: gradients say what the
student is taught."""

import math

import pytest
import torch

from actionformer_nt.methods import ClassTargets, Lesson
from actionformer_nt.pseudo_sections import PseudoSection
from actionformer_nt.self_training.point_targets import VideoTargets, assign_pseudo_labels
from actionformer_nt.self_training.pseudo_segments import candidates, propose
from actionformer_nt.self_training.setup import set_up
from libs.core import load_config
from libs.modeling.losses import sigmoid_focal_loss

SURE, UNSURE = (2.0, -4.0), (-4.0, -1.5)  # scores .88 and .18
TIMES = torch.tensor([*range(32), *range(0, 32, 2)])


def test_points_of_an_unsure_proposal_teach_nothing(output_for, adapter, taught):
    """The missed event (18, 24) is background without the band. The band frees its points and no others."""
    teacher = {"v": output_for([((3.0, 9.0), SURE), ((18.0, 24.0), UNSURE)])}
    pseudo = {"threshold": 0.5}
    plain = taught(adapter(pseudo=pseudo), teacher)
    band = taught(adapter(pseudo=pseudo | {"ignore_from": 0.1}), teacher)
    high = taught(adapter(pseudo=pseudo | {"ignore_from": 0.2}), teacher)  # above the score of the proposal
    assert torch.equal(high.logits["v"], plain.logits["v"])
    freed = (band.logits["v"] == 0).all(dim=1)
    assert (plain.logits["v"] != 0).all() and freed.any()
    assert ((TIMES[freed] > 18) & (TIMES[freed] < 24)).all()
    assert freed[:32].nonzero()[:, 0].tolist() == [20, 21, 22]  # centre sampling: 1.5 strides around 21
    assert torch.equal(band.logits["v"][~freed], plain.logits["v"][~freed])
    assert not band.offsets["v"][freed].any() and band.visible == plain.visible == 1


def test_a_pseudo_segment_keeps_its_points_within_the_band(output_for, adapter, taught):
    """A long unsure proposal around a sure one, whose points are taught all the same."""
    inside, around = ((8.0, 12.0), SURE), ((2.0, 20.0), UNSURE)
    teacher = {"v": output_for([around, inside])}
    found = taught(adapter(pseudo={"threshold": 0.5, "ignore_from": 0.1}), teacher)
    alone = taught(adapter(pseudo={"threshold": 0.5}), {"v": output_for([inside])})
    owned = found.offsets["v"].abs().sum(dim=1) > 0
    assert owned.sum() > 1 and torch.equal(owned, alone.offsets["v"].abs().sum(dim=1) > 0)
    assert (found.logits["v"][owned] == alone.logits["v"][owned]).all()


@pytest.mark.parametrize("seed", range(20))
def test_ownership_against_a_loop(output_for, seed):
    """Every point: the shortest eligible pseudo segment; else nothing if an ignored segment is eligible; else what is
    elsewhere."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n):
        start = 30 * torch.rand(n, generator=generator)
        return torch.stack([start, start + 1 + 12 * torch.rand(n, generator=generator)], dim=1)

    segments, ignored = draw(4), draw(6)
    y, w, v = torch.rand(4, 2, generator=generator), torch.rand(4, 2, generator=generator) + 0.1, torch.rand(4) + 0.1
    output = output_for([])
    elsewhere = ClassTargets(torch.zeros(2), torch.full((2,), 0.5))
    video = VideoTargets(segments, ClassTargets(y, w), elsewhere, v, ignored)
    (found, owned) = assign_pseudo_labels(output, [video], center_sample="radius", center_sample_radius=1.5)

    def eligible(point, segment):
        t, low, high, stride = point.tolist()
        start, end = segment.tolist()
        middle = (start + end) / 2
        near = max(start, middle - 1.5 * stride) < t < min(end, middle + 1.5 * stride)
        return near and low <= max(t - start, end - t) <= high

    for i, point in enumerate(torch.cat(output.points)):
        mine = [k for k in range(4) if eligible(point, segments[k])]
        best = min(mine, key=lambda k: float(segments[k, 1] - segments[k, 0]), default=None)
        assert bool(owned[0, i]) == (best is not None)
        if best is not None:
            assert torch.equal(found.cls[0, i], y[best]) and torch.equal(found.cls_weight[0, i], w[best])
            assert found.offset_weight[0, i] == v[best]
        else:
            free = any(eligible(point, segment) for segment in ignored)
            assert found.cls_weight[0, i].tolist() == [0.0 if free else 0.5] * 2 and found.offset_weight[0, i] == 0


def test_a_video_without_pseudo_segments_can_be_left_out(output_for, adapter, taught):
    teacher = {"some": output_for([((3.0, 9.0), SURE)]), "none": output_for([((18.0, 24.0), UNSURE)])}
    plain = taught(adapter(pseudo={"threshold": 0.5}), teacher)
    skip = taught(adapter(pseudo={"threshold": 0.5, "without_segments": "skip"}), teacher)
    assert (plain.logits["none"] != 0).all() and not skip.logits["none"].any()
    assert torch.equal(plain.logits["some"], skip.logits["some"]) and skip.logits["some"].any()


def test_one_normalizer_makes_an_unlabeled_point_weigh_as_much_as_a_labeled_one(output_for, adapter, taught):
    """The labeled normaliser is 20. Without pseudo segments the own one falls towards 2, and background weighs more."""
    teacher = {"v": output_for([])}
    own, labeled = (adapter(pseudo={"normalizer": name}) for name in ("own", "labeled"))
    for _ in range(30):
        background, shared = taught(own, teacher), taught(labeled, teacher)
    z = torch.cat([torch.full((48, 2), -1.0)])
    z[(TIMES > 4) & (TIMES < 12)] = 0.0
    expected = sigmoid_focal_loss(z, torch.zeros_like(z)).sum() / 20
    torch.testing.assert_close(shared.losses["cls_loss"].detach(), expected)
    assert background.losses["cls_loss"] > 5 * expected
    assert labeled.state()["normalizer"] is None and own.state()["normalizer"] < 3


@pytest.mark.parametrize("method", ["target", "nt_negative", "nt", "complementary"])
def test_the_second_class_of_an_event_is_not_taught_as_negative(output_for, adapter, taught, method):
    """A dive from a cliff is two classes. The third class is none, and stays a negative."""
    teacher = {"v": output_for([((3.0, 9.0), (2.0, 0.5))])}  # scores .88 and .62
    for pseudo, pushed in (({}, True), ({"second_class": "ignore"}, False)):
        found = taught(adapter(pseudo=pseudo | {"threshold": 0.5}), teacher, method=method)
        owned = found.offsets["v"].abs().sum(dim=1) > 0
        assert owned.any() and (found.logits["v"][owned, 0] < 0).all()  # pulled up
        second = found.logits["v"][owned, 1]
        assert (second > 0).all() if pushed else (second == 0).all(), second
        assert (found.logits["v"][~owned] > 0).all()  # background all the same
    unlikely = {"v": output_for([((3.0, 9.0), (2.0, -0.5))])}  # .38 is below the threshold
    pseudo = {"threshold": 0.5, "second_class": "ignore"}
    found = taught(adapter(pseudo=pseudo), unlikely, method=method)
    owned = found.offsets["v"].abs().sum(dim=1) > 0
    assert (found.logits["v"][owned, 1] > 0).all()


def test_own_scores_do_not_depend_on_the_temperature(output_for, adapter, taught):
    pseudo = {"threshold": 0.4, "second_class": "ignore", "temperature": 4.0}  # -0.5 is .38, and a quarter of it .47
    (labels,) = taught(adapter(pseudo=pseudo), {"v": output_for([((3.0, 9.0), (2.0, -0.5))])}).pseudo
    assert labels.likely.tolist() == [[True, False]]
    (labels,) = taught(adapter(pseudo=pseudo), {"v": output_for([((3.0, 9.0), (2.0, 0.1))])}).pseudo
    assert labels.likely.tolist() == [[True, True]]


def test_a_class_that_was_never_seen_is_not_likely_everywhere(output_for, adapter, taught):
    pseudo = {"threshold": 0.5, "second_class": "ignore", "select": "per_class"}
    (labels,) = taught(adapter(pseudo=pseudo), {"v": output_for([((3.0, 9.0), SURE)])}).pseudo
    assert labels.selected.tolist() == [True] and labels.likely.tolist() == [[True, False]]


@pytest.fixture
def disagreeing(output_for):
    """Supporters of (4, 12) that disagree about the start: 4 at half of the points, 3 at the others."""
    output = output_for([((4.0, 12.0), SURE)])
    for level, points in enumerate(output.points):
        inside = ((points[:, 0] > 4) & (points[:, 0] < 12)).nonzero()[:, 0]
        output.offsets[level][0, inside[::2], 0] += 1 / points[0, 3]
    return output


def test_spread_is_the_deviation_of_the_supporters(disagreeing):
    found = propose([candidates(disagreeing, 0)], PseudoSection())
    starts = []
    for level, points in enumerate(disagreeing.points):
        inside = ((points[:, 0] > 4) & (points[:, 0] < 12)).nonzero()[:, 0]
        starts += [3.0 if k % 2 == 0 else 4.0 for k in range(len(inside))]
        assert level < 2
    mean = sum(starts) / len(starts)  # equal scores: equal weights
    deviation = (sum((s - mean) ** 2 for s in starts) / len(starts)) ** 0.5
    assert found.segments[0].tolist() == pytest.approx([mean, 12.0])
    assert found.spread[0].tolist() == pytest.approx([deviation, 0.0], abs=1e-4)
    assert float(found.boundary_weight) == pytest.approx(math.exp(-deviation / (12 - mean)), abs=1e-4)


def test_boundaries_that_supporters_disagree_about_teach_less(disagreeing, output_for, adapter, taught):
    plain = taught(adapter(pseudo={"threshold": 0.5}), {"v": disagreeing})
    weighed = taught(adapter(pseudo={"threshold": 0.5, "boundary_weight": "spread"}), {"v": disagreeing})
    (labels,) = weighed.pseudo
    weight = float(labels.segments.boundary_weight)
    assert 0.8 < weight < 0.97
    torch.testing.assert_close(weighed.offsets["v"], weight * plain.offsets["v"])
    assert torch.equal(weighed.logits["v"], plain.logits["v"]) and plain.offsets["v"].any()
    sure = {"v": output_for([((4.0, 12.0), SURE)])}
    losses = [taught(adapter(pseudo={"boundary_weight": name}), sure).losses for name in ("none", "spread")]
    torch.testing.assert_close(*[one["reg_loss"] for one in losses])


def test_nested_pseudo_segments_are_dropped_where_labeled_events_never_overlap(output_for, adapter, taught):
    """A sure fragment (14, 18) in a less sure whole (4, 28), at an IoU that NMS leaves alone. The labeled events of the
    tiny data set never overlap."""
    teacher = {"v": output_for([((4.0, 28.0), (0.5, -4.0)), ((14.0, 18.0), SURE)])}
    kept = [
        taught(adapter(pseudo={"threshold": 0.5, "overlap": overlap}), teacher).pseudo[0].segments.segments
        for overlap in ("nms", "labels")
    ]
    assert kept[0].tolist() == [pytest.approx([14.0, 18.0]), pytest.approx([4.0, 28.0])]
    assert kept[1].tolist() == [pytest.approx([14.0, 18.0])]


def test_settings_without_effect_are_refused(make_semi, adapter):
    with pytest.raises(ValueError, match="second_class: ignore: without effect"):
        adapter(arch="softmax", pseudo={"second_class": "ignore"})
    for pseudo, word in (
        ({"threshold": 0.3, "ignore_from": 0.3}, r"ignore_from: 0\.3: must be below threshold"),
        ({"partition": "dense", "background_logit": -1.0, "ignore_from": 0.001}, r"pseudo\.ignore_from.*own targets"),
        ({"partition": "dense", "background_logit": -1.0, "second_class": "ignore"}, "second_class.*own targets"),
    ):
        with pytest.raises(ValueError, match=word):
            load_config(make_semi(pseudo=pseudo))
    with pytest.raises(ValueError, match="teacher_views: flip"):
        load_config(make_semi(teacher_views=[{"flip": 0.5}]))


def everything(e, **more):
    y = torch.zeros_like(e.probs).scatter_(1, e.probs.argmax(1, keepdim=True), 1.0)
    return Lesson(y=y, w=torch.ones_like(y), **more)


def test_a_lesson_decides_about_units_and_boundaries(output_for, adapter, taught):
    """Two proposals, of which the head selects the sure one."""
    teacher = {"v": output_for([((3.0, 9.0), SURE), ((18.0, 24.0), UNSURE)])}
    own = adapter(pseudo={"threshold": 0.5, "normalizer": "labeled"})
    seen = []
    plain = taught(own, teacher, lesson=lambda e: seen.append(e) or everything(e))
    (e,) = seen
    assert e.selected.tolist() == [True, False] and e.scores.tolist() == pytest.approx([0.8808, 0.1824], abs=1e-3)
    assert e.segments.tolist() == [pytest.approx([3.0, 9.0]), pytest.approx([18.0, 24.0])] and e.spread.shape == (2, 2)
    first, second = (TIMES > 3) & (TIMES < 9), (TIMES > 18) & (TIMES < 24)

    def owned(found):
        return found.offsets["v"].abs().sum(dim=1) > 0

    assert owned(plain)[first].any() and not owned(plain)[second].any()
    other = taught(own, teacher, lesson=lambda e: everything(e, keep=~e.selected))
    assert owned(other)[second].any() and not owned(other)[first].any() and (other.logits["v"][first] > 0).all()
    none = taught(own, teacher, lesson=lambda e: everything(e, ignore=torch.tensor([True, True])))
    assert not owned(none).any() and none.visible == 0
    assert not none.logits["v"][owned(plain) | owned(other)].any() and (none.logits["v"][~(first | second)] > 0).all()
    half = taught(own, teacher, lesson=lambda e: everything(e, v=torch.tensor([0.5, 9.0])))
    torch.testing.assert_close(half.offsets["v"], 0.5 * plain.offsets["v"])
    moved = taught(own, teacher, lesson=lambda e: everything(e, segments=e.segments + 10))
    assert ((TIMES[owned(moved)] > 13) & (TIMES[owned(moved)] < 19)).all() and owned(moved).any()
    tenth = taught(own, teacher, lesson=lambda e: everything(e, normalizer=200.0))
    torch.testing.assert_close(tenth.logits["v"], 0.1 * plain.logits["v"])
    teacher["w"] = teacher["v"]
    with pytest.raises(ValueError, match="normalizer for some videos of a batch only"):
        given = [2.0, None]
        taught(own, teacher, lesson=lambda e: everything(e, normalizer=given.pop()))


def test_dense_lessons_are_about_points(output_for, adapter, taught):
    own = adapter(pseudo={"partition": "dense", "background_logit": -1.0, "threshold": 0.5})
    teacher = {"v": output_for([((3.0, 9.0), SURE)])}
    seen = []
    taught(own, teacher, lesson=lambda e: seen.append(e) or everything(e))
    assert seen[0].probs.shape == (48, 3) and seen[0].selected.all() and seen[0].unit == "point"
    every = taught(own, teacher, lesson=everything).logits["v"]
    half = torch.arange(48) % 2 == 0
    kept = taught(own, teacher, lesson=lambda e: everything(e, keep=half, normalizer=48.0)).logits["v"]
    left = taught(own, teacher, lesson=lambda e: everything(e, ignore=~half, normalizer=48.0)).logits["v"]
    assert torch.equal(kept, left) and not kept[~half].any() and (kept[half] != 0).all() and (every != 0).all()
    plain, moved = (
        taught(own, teacher, lesson=lambda e, by=by: everything(e, segments=e.segments + by, v=2.0 * half)).offsets["v"]
        for by in (0.0, 1.0)
    )
    assert not plain[~half].any() and moved[half].any(dim=1).all() and not torch.equal(plain, moved)
    with pytest.raises(ValueError, match="dense: a lesson about points"):
        taught(own, teacher, lesson=lambda e: everything(e, segments=e.segments))


def test_second_classes_are_spared_in_a_view_that_runs_backwards(make_semi):
    """The class of a flipped view is the class played backwards, and so is the class that is spared."""
    path = make_semi(
        method="target", pseudo={"threshold": 0.012, "second_class": "ignore"}, reversed_classes=[["class0", "class1"]],
        strong={"flip": 1.0, "snippet_mask": 0.0, "channel_dropout": 0.0},
    )  # fmt: skip
    run = set_up(load_config(path))
    batch = run.teacher.teach([run.stages.unlabeled[0]], run.stages.burn_in, run.model)
    (labels,), (lesson,) = batch.pseudo, batch.lessons
    assert batch.geometries[0].reverses and labels.selected.any()
    likely, y, w = (column[labels.selected] for column in (labels.likely, lesson.y, lesson.w))
    expected = torch.where(likely.flip(1) & (y == 0), 0.0, 1.0)  # two classes, each other played backwards
    assert torch.equal(w, expected) and (expected == 0).any()
