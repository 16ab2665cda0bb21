import pytest
import torch

from actionformer_nt.methods import ClassTargets
from actionformer_nt.methods.label_space import partition
from actionformer_nt.pseudo_sections import PseudoSection
from actionformer_nt.self_training.point_targets import (
    VideoTargets,
    assign_pseudo_labels,
    at_points,
    background_targets,
    spare_likely,
)
from actionformer_nt.self_training.pseudo_segments import PseudoSegments, candidates, propose
from actionformer_nt.self_training.selection import Selector
from libs.modeling.assignment import assign_labels, pyramid_points
from libs.modeling.class_form import ClassForm
from libs.modeling.losses import iou_matrix
from libs.modeling.meta_archs import PyramidOutput

OPTIONS = PseudoSection()
RANGES = [(0, 8), (8, 10000)]


def output_for(segments, logits, num_classes=3, length=32):
    """A teacher that is sure of `segments`: the points inside one have its logits and its exact distances."""
    points = pyramid_points([length, length // 2], [1, 2], RANGES, torch.device("cpu"))
    z, offsets = [], []
    for level in points:
        zl, ol = torch.full((len(level), num_classes), -8.0), torch.full((len(level), 2), 0.1)
        for (start, end), own in zip(segments, logits, strict=True):
            inside = (level[:, 0] > start) & (level[:, 0] < end)
            zl[inside] = torch.tensor(own)
            ol[inside] = torch.stack([level[inside, 0] - start, end - level[inside, 0]], 1) / level[inside, 3:4]
        z.append(zl[None])
        offsets.append(ol[None])
    masks = [torch.ones(1, len(level), dtype=torch.bool) for level in points]
    return PyramidOutput(z, offsets, masks, points)


def test_segments_scores_and_logits_of_a_sure_teacher():
    output = output_for([(3.0, 9.0), (15.0, 27.0)], [[2.0, 1.0, -3.0], [-2.0, -1.0, 0.5]])
    found = propose([candidates(output, 0)], OPTIONS)
    torch.testing.assert_close(found.segments, torch.tensor([[3.0, 9.0], [15.0, 27.0]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.logits, torch.tensor([[2.0, 1.0, -3.0], [-2.0, -1.0, 0.5]]), atol=1e-4, rtol=0)
    assert found.scores.tolist() == pytest.approx(torch.tensor([2.0, 0.5]).sigmoid().tolist())
    assert torch.allclose(found.probs.sum(-1), torch.ones(2))
    flat = propose([candidates(output, 0)], PseudoSection(temperature=4.0))
    torch.testing.assert_close(flat.probs, (found.logits / 4).softmax(-1))
    assert torch.equal(flat.scores, found.scores)


def test_mean_logits_are_weighted_by_score():
    output = output_for([(3.0, 9.0)], [[2.0, 1.0, -3.0]])
    output.logits[0][0, 5] = torch.tensor([0.0, 3.0, 0.0])  # one supporter thinks otherwise
    found = propose([candidates(output, 0)], OPTIONS)
    supporters = torch.cat([output.logits[0][0, 4:9], output.logits[1][0, 2:5]])
    weight = supporters.max(-1).values.sigmoid()
    torch.testing.assert_close(found.logits[0], (weight[:, None] * supporters).sum(0) / weight.sum(), atol=1e-4, rtol=0)


def test_the_mean_of_equal_ends_is_that_end():
    """Of supporters with different scores and starts: a point at the end is not inside, whatever is rounded."""
    for end in range(11, 28):
        output = output_for([(4.0, float(end))], [[1.0, 0.0, -1.0]])
        output.logits[0][0, 5:10] += torch.rand(5, 1)
        output.offsets[0][0, 5:10, 0] += torch.rand(5)
        found = propose([candidates(output, 0)], OPTIONS)
        assert found.segments[0, 1] == end and found.segments[0, 0] != 4.0


def select(found, options, class_scores=None):
    selector = Selector(options, torch.zeros(3))
    if class_scores is not None:
        selector.class_scores = class_scores
    return selector.select(found, selector.thresholds())


def test_nothing_found():
    found = propose([candidates(output_for([], []), 0)], OPTIONS)
    assert len(found.scores) == 0 and found.probs.shape == (0, 3)
    assert len(select(found, OPTIONS)) == len(select(found, PseudoSection(select="topk"))) == 0


def test_selection():
    logits = torch.eye(3)[[0, 1, 0, 2]]
    found = PseudoSegments(torch.zeros(4, 2), torch.tensor([0.9, 0.5, 0.35, 0.2]), logits)
    assert found.scores[select(found, OPTIONS)].tolist() == pytest.approx([0.9, 0.5, 0.35])
    assert select(found, PseudoSection(select="topk", topk=2)).tolist() == [True, True, False, False]
    per_class = select(found, PseudoSection(select="per_class", threshold=0.4), torch.tensor([0.8, 0.8, 0.4]))
    assert found.scores[per_class].tolist() == pytest.approx([0.9, 0.5, 0.2])  # 0.4 * 0.4 / 0.8 = 0.2 for class 2


@pytest.mark.parametrize(("background", "weight"), [("negative", 1.0), ("ignore", 0.0), ("weighted", 0.5)])
def test_points_get_what_label_assignment_gives_them(background, weight):
    segments = [torch.tensor([[3.0, 9.0], [5.0, 8.0], [14.0, 31.0]]), torch.zeros(0, 2)]
    output = output_for([], [])
    output = output._replace(
        logits=[z.repeat(2, 1, 1) for z in output.logits], masks=[m.repeat(2, 1) for m in output.masks]
    )
    output.masks[0][0, 20:] = False
    y, w = torch.rand(3, 3), torch.rand(3, 3)
    empty = ClassTargets(torch.zeros(0, 3), torch.zeros(0, 3))
    options = PseudoSection(background=background)
    elsewhere = background_targets(3, options, form="sigmoid", partitioning=True)
    nothing = torch.zeros(0, 2)
    videos = [
        VideoTargets(s, at, elsewhere, torch.ones(len(s)), nothing)
        for s, at in zip(segments, (ClassTargets(y, w), empty), strict=True)
    ]
    found, owned = assign_pseudo_labels(output, videos, center_sample="radius", center_sample_radius=1.5)
    mask = torch.cat(output.masks, 1)
    numbers = [torch.arange(3), torch.zeros(0, dtype=torch.long)]
    expected = assign_labels(torch.cat(output.points), mask, segments, numbers, num_classes=3)
    assert torch.equal(found.offset_weight, expected.offset_weight) and found.offset_weight[0].sum() > 3
    positive = expected.offset_weight > 0
    assert torch.equal(owned, positive)
    assert torch.equal(found.offsets[positive], expected.offsets[positive])
    owner = expected.cls[positive].argmax(-1)
    assert torch.equal(found.cls[positive], y[owner]) and torch.equal(found.cls_weight[positive], w[owner])
    rest = ~positive & mask
    assert (
        (found.cls[rest] == 0).all()
        and (found.cls_weight[rest] == weight).all()
        and (found.cls_weight[~mask] == 0).all()
    )


def test_points_keep_the_order_of_levels_and_leave_out_padding():
    output = output_for([(3.0, 9.0)], [[2.0, 1.0, -3.0]])
    output.masks[0][0, 20:] = False
    output.masks[1][0, 10:] = False
    options = PseudoSection(background_logit=-0.85, temperature=2.0)
    found, scores, segments, quality = at_points(output, 0, options, form=ClassForm.SIGMOID)
    assert quality is None
    rows = [torch.tensor([*row.tolist(), -0.85]) for row in (*output.logits[0][0, :20], *output.logits[1][0, :10])]
    torch.testing.assert_close(found, torch.stack([(row / 2).softmax(0) for row in rows]))
    assert found[5].argmax() == 0 and found[0].argmax() == 3
    torch.testing.assert_close(scores, torch.cat([output.logits[0][0, :20], output.logits[1][0, :10]]).sigmoid())
    assert segments.shape == (30, 2) and torch.allclose(segments[5], torch.tensor([3.0, 9.0]))


@pytest.mark.parametrize("form", ["sigmoid", "softmax"])
def test_likely_actions_are_spared_at_background_points(form):
    torch.manual_seed(0)
    probs = torch.cat([torch.randn(200, 5).softmax(-1), torch.tensor([[0.36, 0.04, 0.04, 0.16, 0.4]])])
    background = background_targets(4, OPTIONS, form=form, partitioning=True)
    y, w = spare_likely(background, probs, lam=0.85)
    ambiguous = partition(probs, 0.85).ambiguous
    for i, p in enumerate(probs):
        for c in range(4):
            spared = p[c] >= 0.85 * p[4] or bool(ambiguous[i, c])
            assert y[i, c] == 0 and w[i, c] == (0 if spared else 1)
    assert w[-1, :4].tolist() == [0, 1, 1, 1] and ambiguous[:, :4].any()
    assert form == "sigmoid" or ((y[:, 4] == 1).all() and (w[:, 4] == 1).all())


def test_in_the_softmax_form_self_training_on_the_target_has_the_background_alone_elsewhere():
    y, w = background_targets(3, OPTIONS, form="softmax", partitioning=False)
    assert y.tolist() == [0, 0, 0, 1] and w.tolist() == [0, 0, 0, 1]
    half = PseudoSection(background="weighted", background_weight=0.5)
    assert background_targets(3, half, form="softmax", partitioning=True).weight.tolist() == [0.5] * 4
    assert background_targets(3, half, form="sigmoid", partitioning=False).weight.tolist() == [0.5] * 3


def test_dense_targets_stay_at_their_points():
    output = output_for([], [])
    output.masks[1][0, 10:] = False
    valid = torch.cat(output.masks, 1)[0]
    targets = ClassTargets(torch.rand(int(valid.sum()), 3), torch.rand(int(valid.sum()), 3))
    video = VideoTargets(torch.tensor([[3.0, 9.0]]), None, targets, torch.ones(1), torch.zeros(0, 2))
    found, _ = assign_pseudo_labels(output, [video], center_sample="radius", center_sample_radius=1.5)
    assert torch.equal(found.cls[0, valid], targets.target)
    assert torch.equal(found.cls_weight[0, valid], targets.weight)
    assert (found.cls_weight[0, ~valid] == 0).all() and found.offset_weight.sum() == 3


def test_points_may_have_boundaries_of_their_own():
    output = output_for([(3.0, 9.0)], [[2.0, 1.0, -3.0]])
    output.masks[0][0, 20:] = False
    valid = torch.cat(output.masks, 1)[0]
    said = at_points(output, 0, PseudoSection(background_logit=-0.85), form=ClassForm.SIGMOID)
    targets = ClassTargets(*(torch.ones(len(said.probs), 3) for _ in range(2)))
    v = torch.rand(len(said.probs)) * (torch.rand(len(said.probs)) > 0.5)
    own = (said.segments + 1.0, v)
    video = VideoTargets(torch.tensor([[3.0, 9.0]]), None, targets, torch.ones(1), torch.zeros(0, 2), own)
    found, owned = assign_pseudo_labels(output, [video], center_sample="radius", center_sample_radius=1.5)
    assert torch.equal(found.offset_weight[0, valid], v) and not found.offset_weight[0, ~valid].any()
    assert torch.equal(owned[0, valid], v > 0)
    points = torch.cat(output.points)[valid]
    for point, segment, offsets in zip(points, said.segments + 1.0, found.offsets[0, valid], strict=True):
        expected = torch.stack([point[0] - segment[0], segment[1] - point[0]]) / point[3]
        torch.testing.assert_close(offsets, expected)


def test_a_quality_head_weighs_candidates_and_is_averaged_over_supporters():
    """Points within an event say different things about the quality of the same segment."""
    output = output_for([(4.0, 12.0)], [[0.0, -6.0, -6.0]])
    generator = torch.Generator().manual_seed(0)
    quality = [torch.randn(1, z.shape[1], 2, generator=generator) for z in output.logits]
    output = output._replace(quality=quality)
    factor = torch.cat([(q[0, :, 0].sigmoid() - q[0, :, 1].sigmoid()).clamp(0, 1) for q in quality])
    scores = torch.cat([z[0].sigmoid().amax(dim=-1) for z in output.logits])
    found = candidates(output, 0)
    own = (scores * factor).sort(descending=True).values
    torch.testing.assert_close(found.scores, own[own > 0.01])
    plain = candidates(output, 0, quality_score=False)
    torch.testing.assert_close(plain.scores, candidates(output._replace(quality=None), 0).scores)
    assert plain.quality is not None and not torch.equal(plain.scores[: len(found.scores)], found.scores)
    segments = propose([found], OPTIONS)
    weight = torch.where(iou_matrix(segments.segments[:1], found.segments) >= OPTIONS.support_iou, found.scores, 0.0)[0]
    assert (weight > 0).sum() > 1
    torch.testing.assert_close(segments.quality[0], (weight * found.quality).sum() / weight.sum())
    points = at_points(output, 0, PseudoSection(background_logit=-0.85), form=ClassForm.SIGMOID)
    torch.testing.assert_close(points.quality, factor)
