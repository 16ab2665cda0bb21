import torch

from actionformer_nt.spot.pretext import normalise, pretext_losses, random_foreground, swap_halves
from actionformer_nt.spot.schema import PretextSection


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_network_sees_the_cropped_features_that_the_masks_describe():
    feats = torch.rand(3, 5, 20) + 1
    found = random_foreground(feats, [20, 12, 2], num_segments=2, generator=generator())
    inside = found.targets.classes == 0
    assert torch.equal(found.feats.abs().sum(1) > 0, inside)
    assert not inside[1, 12:].any() and not inside[2, 2:].any() and inside.any(dim=1).all()
    for mask, row in zip(found.targets.masks, inside, strict=True):
        blocks = (row.int().diff(prepend=torch.zeros(1)) == 1).cumsum(0) * row  # number of the run, 0 outside
        expected = (blocks[:, None] == blocks[None]) & (blocks[:, None] > 0)
        assert torch.equal(mask, expected)
        assert blocks.max() <= 2
    runs = [(random_foreground(feats, [20] * 3, num_segments=2, generator=generator(s)).targets.classes == 0).int()
            for s in range(20)]  # fmt: skip
    assert all((r.diff(prepend=torch.zeros(3, 1, dtype=torch.int)) == 1).sum(1).eq(2).all() for r in runs)


def test_11_constant_channels_are_finite_and_features_are_not_changed(spot):
    model = spot.make_spot()
    feats = torch.randn(2, 6, 32)
    feats[:, 0] = 4.0
    before = feats.clone()
    mask = torch.arange(32)[None] < torch.tensor([[32], [1]])
    low = normalise(feats, mask)
    assert torch.isfinite(low).all() and low.min() == 0 and low.max() == 1 and not low[:, 0].any()
    losses = pretext_losses(model.net, feats, mask, options=PretextSection(), generator=generator())
    losses["final_loss"].backward()
    assert torch.equal(feats, before)
    assert all(torch.isfinite(x) for x in losses.values())
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads and all(torch.isfinite(g).all() for g in grads)


def test_12_the_class_head_is_untouched_by_pretraining(spot):
    model = spot.make_spot()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    g = generator()
    for _ in range(3):
        optimizer.zero_grad(set_to_none=True)
        feats, mask = torch.randn(4, 6, 32, generator=g), torch.ones(4, 32, dtype=torch.bool)
        pretext_losses(model.net, feats, mask, options=PretextSection(), generator=g)["final_loss"].backward()
        optimizer.step()
    same = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert same == {"net.class_head.weight", "net.class_head.bias"}


def test_the_random_foreground_can_be_learned(spot):
    """From the uncropped features it could not."""
    model = spot.make_spot(embd_dim=16, mask_dims=[32], dropout=0.0, attn_dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    g, feats, mask = generator(), torch.rand(8, 6, 32), torch.ones(8, 32, dtype=torch.bool)
    history = []
    for _ in range(150):
        optimizer.zero_grad()
        losses = pretext_losses(model.net, feats, mask, options=PretextSection(), generator=g)
        losses["final_loss"].backward()
        optimizer.step()
        history.append(float(losses["mask_loss"].detach()))
    assert sum(history[-10:]) < 0.6 * sum(history[:5]) * 2


def test_halves_are_swapped_within_the_valid_snippets():
    feats = torch.arange(7.0).expand(2, 3, 7)
    got = swap_halves(feats, [7, 5], torch.tensor([False, True]))
    assert got[0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert got[1, 2].tolist() == [2, 3, 4, 0, 1, 5, 6]
    assert swap_halves(feats, [6, 6], torch.tensor([True, True]))[0, 0].tolist() == [3, 4, 5, 0, 1, 2, 6]


def test_randomness_comes_from_the_generator_alone(spot):
    model = spot.make_spot(dropout=0.0, attn_dropout=0.0).eval()
    feats, mask = torch.randn(4, 6, 32), torch.ones(4, 32, dtype=torch.bool)
    values = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(values))
        losses = pretext_losses(model.net, feats, mask, options=PretextSection(), generator=generator(seed))
        values.append(float(losses["final_loss"].detach()))
    assert values[0] == values[1] != values[2]
