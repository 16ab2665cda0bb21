import pytest
import torch

from actionformer_nt.pseudo_sections import ViewSection
from actionformer_nt.self_training.views import make_view

OFF = ViewSection()


def bump(center, steps=200, width=6.0):
    """Features whose first channel is a hill at `center`, so that its place can be read off a view."""
    time = torch.arange(steps, dtype=torch.float32)
    hill = torch.exp(-((time - center) ** 2) / (2 * width**2))
    return torch.stack([hill, torch.ones(steps)])


@pytest.mark.parametrize(
    "options",
    [{"crop": 0.3}, {"shift": 9}, {"warp": 0.4}, {"flip": 1.0}, {"crop": 0.2, "shift": 5, "warp": 0.3, "flip": 0.5}],
)
def test_the_geometry_says_where_a_moment_went(options):
    for seed in range(25):
        generator = torch.Generator().manual_seed(seed)
        center = 40.0 + 4.5 * seed
        feats, geometry = make_view(bump(center), OFF.model_copy(update=options), generator)
        there = geometry(torch.tensor([center])).item()
        if 15 < there < feats.shape[1] - 15:
            assert feats[0].argmax().item() == pytest.approx(there, abs=1.5)


def test_segments_are_projected_cut_and_dropped():
    _, geometry = make_view(bump(50.0), OFF.model_copy(update={"flip": 1.0}), torch.Generator())
    segments = torch.tensor([[10.0, 20.0], [195.0, 230.0], [190.0, 205.0]])
    moved, kept = geometry.project(segments, 200)
    assert kept.tolist() == [True, False, True]  # only 4.5 of 35 steps of the second are left
    assert moved.tolist() == [[179.0, 189.0], [-0.5, 9.0]]


def test_an_identity_view_changes_nothing():
    feats = torch.randn(5, 40)
    same, geometry = make_view(feats, OFF, torch.Generator())
    segments = torch.tensor([[1.0, 2.5], [3.0, 39.0]])
    moved, kept = geometry.project(segments, 40)
    assert torch.equal(same, feats) and torch.equal(moved, segments) and kept.all()


def test_masks_and_dropout_do_what_they_say_and_repeat_with_their_seed():
    feats = torch.ones(400, 999)
    options = OFF.model_copy(update={"snippet_mask": 0.2, "mask_length": 5, "channel_dropout": 0.25})
    a, _ = make_view(feats, options, torch.Generator().manual_seed(1))
    b, _ = make_view(feats, options, torch.Generator().manual_seed(1))
    assert torch.equal(a, b)
    channels, steps = (a != 0).any(1), (a != 0).any(0)
    assert 0.68 < channels.float().mean() < 0.82 and 0.7 < steps.float().mean() < 0.9
    assert a[channels][:, steps].unique().tolist() == pytest.approx([1 / 0.75])
    blocks = steps[:995].view(-1, 5)
    assert (blocks.all(1) | ~blocks.any(1)).all()
    noisy, _ = make_view(feats * torch.randn(400, 1), OFF.model_copy(update={"noise": 0.1}), torch.Generator())
    assert noisy.std() > 0 and not torch.equal(noisy, feats)
