import math

import numpy as np
import pytest
import torch

from actionformer_nt.methods import METHODS, Options, get_method, needs_truth
from actionformer_nt.pseudo_sections import ViewSection
from actionformer_nt.self_training.views import make_view, view_of
from actionformer_nt.spot.network import SpotOutput
from actionformer_nt.spot.pseudo_masks import (
    BackgroundAlignment,
    background_share,
    teacher_labels,
    to_view,
    unlabeled_losses,
    view_index,
)
from actionformer_nt.spot.schema import LossSection, PseudoSection
from actionformer_nt.spot.targets import quantise
from libs.core import load_config
from libs.datasets import make_dataset
from libs.datasets.video import SampleKey

USED = [name for name in METHODS if hasattr(get_method(name), "class_targets") and not needs_truth(name)]


def teacher(steps=6):
    """Snippets: sure action 0 (twice), unsure, sure background (twice), sure action 1 whose mask leaves it out."""
    p = torch.tensor([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.4, 0.3, 0.3], [0.05, 0.05, 0.9], [0.1, 0.1, 0.8],
                      [0.1, 0.85, 0.05]])  # fmt: skip
    masks = torch.full((1, steps, steps), -3.0)
    masks[0, :3, :3] = 3.0
    return SpotOutput(p.log()[None], masks, torch.zeros(1, steps, 2), torch.ones(1, steps, dtype=torch.bool))


def run(student, labels, method="target", class_weight=1.0):
    y, w = get_method(method).class_targets(
        labels.probs, Options(form="softmax", generator=torch.Generator().manual_seed(0))
    )
    return unlabeled_losses(student, labels, y, w, LossSection(), class_weight=class_weight)


def test_class_weight_weighs_the_class_loss_alone():
    student, labels = teacher(), teacher_labels(teacher(), PseudoSection(threshold=0.5))
    whole, part = (run(student, labels, class_weight=weight) for weight in (1.0, 0.1))
    assert whole["cls_loss"] > 0 and whole["mask_loss"] > 0
    assert part["cls_loss"] == whole["cls_loss"] and part["mask_loss"] == whole["mask_loss"]
    torch.testing.assert_close(whole["loss"] - part["loss"], 0.9 * whole["cls_loss"])


def test_confidence_and_masks():
    found = teacher_labels(teacher(), PseudoSection())
    torch.testing.assert_close(found.probs[0].sum(-1), torch.ones(6))
    assert found.confident[0].tolist() == [True, True, False, True, True, True]
    assert found.mask_rows[0].tolist() == [True, True, False, True, True, False]
    actions_only = teacher_labels(teacher(), PseudoSection(background_rows=False))
    assert actions_only.mask_rows[0].tolist() == [True, True, False, False, False, False]
    expected = torch.zeros(6, 6)
    expected[:3, :3] = 1
    assert torch.equal(found.masks[0], expected)
    sharper = teacher_labels(teacher(), PseudoSection(temperature=0.1))
    assert sharper.confident.all() and sharper.probs.max() > found.probs.max()


def test_a_confident_background_snippet_learns_an_empty_row():
    out = teacher()
    out.masks[0, 3, :4] = 3.0
    assert teacher_labels(out, PseudoSection()).masks[0, 3].sum() == 0
    assert teacher_labels(out, PseudoSection(background_rows=False)).masks[0, 3].sum() == 4


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_alignment_brings_the_share_of_background_to_the_labeled_one(share):
    torch.manual_seed(0)
    align = BackgroundAlignment(share)
    mask = torch.ones(2, 50, dtype=torch.bool)
    mask[1, 30:] = False
    for _ in range(500):
        logits = torch.randn(2, 50, 4) + torch.tensor([1.0, 0.0, 0.0, 0.0])
        logits[~mask] = 100.0  # padding has no say
        out = align(SpotOutput(logits, torch.zeros(2, 50, 50), torch.zeros(2, 50, 2), mask))
        align.update([out.logits.softmax(-1)[..., -1][mask]])
    assert float(out.logits.softmax(-1)[..., -1][mask].mean()) == pytest.approx(share, abs=0.05)
    assert torch.equal(out.logits[..., :-1], logits[..., :-1])


def test_background_share_counts_snippets(make_data, event):
    events = {"a": [event(1.0, 3.0, 0), event(2.0, 4.0, 1)], "b": [event(0.0, 5.0, 0)], "c": []}
    config = load_config(make_data(events, subsets=dict.fromkeys(events, "training"), steps=20))
    dataset = make_dataset(config["dataset_name"], True, ["training"], **config["dataset"])
    inside = 0
    for i in range(len(dataset)):
        segments, _ = dataset.events(i)
        for step in range(20):  # a snippet is an action's if an event, its ends rounded to borders, covers it
            inside += any(math.floor(a + 1) <= step < math.floor(b + 1) for a, b in segments)
    assert 0 < inside < 60
    assert background_share(dataset) == pytest.approx(1 - inside / (20 * len(dataset)))
    config["dataset"]["max_seq_len"] = 8
    short = make_dataset(config["dataset_name"], True, ["training"], **config["dataset"])
    draws = [short[SampleKey(i, epoch)] for i in range(3) for epoch in range(400)]  # what training sees
    seen = []
    for video in draws:
        ranges, on_grid = quantise(video["segments"], 8)
        covered = {step for (a, b), on in zip(ranges.tolist(), on_grid, strict=True) if on for step in range(a, b)}
        seen.append(1 - len(covered) / 8)
    assert background_share(short) == pytest.approx(np.mean(seen), abs=0.02)
    assert abs(background_share(short) - background_share(dataset)) > 0.05


def test_with_a_low_threshold_an_action_is_not_also_background():
    """p = .5, .1 and .4 (background), at a threshold of .3: the snippet is an action, and so is its mask."""
    logits = torch.tensor([[0.5, 0.1, 0.4]]).log().expand(4, 3)[None]
    masks = torch.full((1, 4, 4), 3.0)
    output = SpotOutput(logits, masks, torch.zeros(1, 4, 2), torch.ones(1, 4, dtype=torch.bool))
    for threshold in (0.3, 0.0):  # the latter is the paper's setting: every snippet learns
        labels = teacher_labels(output, PseudoSection(threshold=threshold, mask_threshold=0.5))
        assert labels.confident.all() and labels.mask_rows.all()
        assert torch.equal(labels.masks, torch.ones(1, 4, 4))


def test_the_class_loss_of_an_iteration_is_a_mean_over_all_snippets():
    """Snippets that the gate leaves out count: with half of them the loss is half as large, not the same."""
    p = torch.tensor([[0.9, 0.05, 0.05], [0.4, 0.3, 0.3]])
    output = SpotOutput(p.log()[None], torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), torch.ones(1, 2, dtype=torch.bool))
    loss = run(output, teacher_labels(output, PseudoSection(threshold=0.7)))["cls_loss"]
    torch.testing.assert_close(loss, -p[0, 0].log() / 2)


def test_reconstruction_aims_at_the_features_before_the_perturbation(spot):
    """Of a view in which everything is masked, the decoder is to recover what was there, moved as the view is."""
    model = spot.make_spot(num_steps=16).train()
    video = spot.make_video([(2.0, 9.0)], [1], steps=16)
    view, _ = view_of(video, "strong", ViewSection(flip=1.0, snippet_mask=1.0), 0, 0)
    assert view["feats"].abs().max() == 0 and torch.equal(view["clean"], video["feats"].flip(1))
    (batch,) = model.batches([view])
    output = model.network(batch.feats, batch.mask)
    decoded = model.net.decoder(output.embedding)
    found = model.consistency_losses(output, batch.clean)["recon_loss"]
    torch.testing.assert_close(found, (decoded - video["feats"].flip(1).T[None]).square().mean())
    again, _ = view_of(view, "strong", ViewSection(shift=0, flip=1.0, noise=5.0), 0, 1)  # a view of a view
    assert torch.equal(again["clean"], video["feats"])


def test_padding_is_never_confident():
    out = teacher()
    found = teacher_labels(out._replace(mask=torch.arange(6)[None] < 1), PseudoSection())
    assert found.confident[0].tolist() == [True] + [False] * 5 and found.masks.sum() == 1


@pytest.mark.parametrize("method", USED)
def test_4_every_method_reaches_both_heads(spot, method):
    model = spot.make_spot(num_steps=6, num_classes=2)
    (batch,) = model.batches([spot.make_video(steps=6)])
    losses = run(model.network(batch.feats, batch.mask), teacher_labels(teacher(), PseudoSection()), method)
    losses["loss"].backward()
    assert model.net.class_head.weight.grad.abs().sum() > 0
    assert model.net.mask_head.last.weight.grad.abs().sum() > 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_4_nothing_confident_is_zero_with_a_graph(spot):
    student = spot.random_output(1, 6, 2)
    losses = run(student, teacher_labels(teacher(), PseudoSection(threshold=0.99)))
    assert float(losses["loss"].detach()) == 0
    losses["loss"].backward()
    assert not student.logits.grad.any() and not student.masks.grad.any()


def test_4_snippets_without_confidence_get_no_gradient(spot):
    student = spot.random_output(1, 6, 2)
    run(student, teacher_labels(teacher(), PseudoSection()), "nt")["loss"].backward()
    assert (student.logits.grad[0].abs().sum(-1) > 0).tolist() == [True, True, False, True, True, True]
    assert (student.masks.grad[0].abs().sum(-1) > 0).tolist() == [True, True, False, True, True, False]


@pytest.mark.parametrize("method", USED)
def test_5_no_gradient_through_pseudo_targets(spot, method):
    source = SpotOutput(*(x.requires_grad_() if x.is_floating_point() else x for x in teacher()[:4]))
    student = spot.random_output(1, 6, 2)
    labels = teacher_labels(source, PseudoSection())
    assert not any(column.requires_grad for column in labels)
    run(student, labels, method)["loss"].backward()
    assert source.logits.grad is None and source.masks.grad is None
    student = spot.random_output(1, 6, 2)  # also where a network is its own teacher
    loss = run(student, teacher_labels(student, PseudoSection(threshold=0.2)), method)["loss"]
    fixed = teacher_labels(student, PseudoSection(threshold=0.2))
    (own,) = torch.autograd.grad(loss, student.logits)
    (given,) = torch.autograd.grad(run(student, fixed, method)["loss"], student.logits)
    torch.testing.assert_close(own, given)


def test_the_loss_falls_towards_the_pseudo_labels(spot):
    labels = teacher_labels(teacher(), PseudoSection())
    near = SpotOutput(teacher().logits, 3 * teacher().masks, torch.zeros(1, 6, 2), torch.ones(1, 6, dtype=torch.bool))
    far = near._replace(logits=-near.logits, masks=-near.masks)
    close, distant = run(near, labels), run(far, labels)
    assert close["cls_loss"] < distant["cls_loss"] and close["mask_loss"] < 0.1 < distant["mask_loss"]


@pytest.mark.parametrize("options", [{}, {"flip": 1.0}, {"crop": 0.5}, {"shift": 3}, {"crop": 0.5, "flip": 1.0}])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pseudo_labels_follow_the_view(options, seed):
    """The features of a view tell where its snippets come from."""
    feats = torch.arange(6.0)[None]
    view, geometry = make_view(feats, ViewSection(**options), torch.Generator().manual_seed(seed))
    index = view_index(geometry, 6, view_length=view.shape[1], num_steps=6)
    labels, source = teacher_labels(teacher(), PseudoSection()), view[0].long().tolist()
    known = [j for j in range(6) if index[j] >= 0]
    assert [int(index[j]) for j in known] == [source[j] for j in known]
    assert len(known) >= 3 and set(index.tolist()) - {-1} == {source[j] for j in known}
    moved = to_view(labels, index[None])
    for j in range(6):
        if j not in known:
            assert not moved.confident[0, j] and not moved.masks[0, j].any() and not moved.masks[0, :, j].any()
    for j in known:
        assert torch.equal(moved.probs[0, j], labels.probs[0, source[j]])
        assert moved.confident[0, j] == labels.confident[0, source[j]]
        assert all(moved.masks[0, j, k] == labels.masks[0, source[j], source[k]] for k in known)
