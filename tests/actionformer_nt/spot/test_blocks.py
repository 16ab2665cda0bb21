"""The optional parts of SPOT's network: class tower, feed-forward part, further convolutions of the projection."""

import pytest
import torch
import torch.nn.functional as F

from actionformer_nt.spot.network import ConvTower, FeedForward
from actionformer_nt.spot.self_training import SpotSelfTraining

DEEP = {"embd_dim": 8, "embd_layers": 3, "feed_forward": 2, "class_tower": 2}
PARTS = [{"embd_dim": 8, "embd_layers": 2}, {"feed_forward": 0.5}, {"class_tower": 1}, DEEP]


def slow_tower(x, tower):
    """One video (T, W), snippet by snippet."""
    for conv, norm in zip(tower.convs, tower.norms, strict=True):
        rows = []
        for j in range(len(x)):
            total = conv.bias.clone()
            for k in range(3):
                if 0 <= j + k - 1 < len(x):
                    total = total + conv.weight[:, :, k] @ x[j + k - 1]
            centred = total - total.mean()
            normed = centred / (centred.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias
            rows.append(normed.clamp(min=0))
        x = torch.stack(rows)
    return x


@pytest.mark.two_paths
def test_the_tower_against_a_slow_version(in_64_bits):
    torch.manual_seed(0)
    tower = ConvTower(4, 2)
    for norm in tower.norms:
        torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)
    x, mask = torch.randn(2, 9, 4), torch.arange(9)[None] < torch.tensor([[9], [5]])
    found = tower(x, mask)
    torch.testing.assert_close(found[0], slow_tower(x[0], tower))
    torch.testing.assert_close(found[1, :5], slow_tower(x[1, :5], tower))
    assert not found[1, 5:].any()


@pytest.mark.two_paths
def test_the_feed_forward_part_is_post_norm_and_sees_each_snippet_by_itself(in_64_bits):
    torch.manual_seed(0)
    part, x = FeedForward(4, 6, 0.0), torch.randn(2, 5, 4)
    hidden = (x @ part.inner.weight.T + part.inner.bias).clamp(min=0)
    expected = F.layer_norm(x + hidden @ part.outer.weight.T + part.outer.bias, (4,))
    torch.testing.assert_close(part(x), expected)


@pytest.mark.parametrize("options", PARTS)
def test_shapes_and_gradients(spot, options):
    model = spot.make_spot(num_steps=20, num_classes=5, **options)
    mask = torch.arange(20)[None, None] < torch.tensor([20, 7])[:, None, None]
    out = model.network(torch.randn(2, 6, 20), mask)
    assert out.logits.shape == (2, 20, 6) and out.masks.shape == (2, 20, 20)
    assert out.embedding.shape == (2, 20, options.get("embd_dim", 6))
    losses = model([spot.make_video([(1, 9)], [2], steps=20), spot.make_video([(2, 5)], [0], steps=7)])
    losses["final_loss"].backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert all(name.startswith("net.order_head") for name in without)


@pytest.mark.parametrize("options", PARTS)
@pytest.mark.two_paths
def test_padding_has_no_influence(in_64_bits, spot, options):
    model = spot.make_spot(**options).eval()
    mask = (torch.arange(32) < 20).expand(2, 1, 32)
    a, b = torch.randn(2, 6, 32), torch.full((2, 6, 32), torch.nan)
    b[..., :20] = a[..., :20]
    one, two = model.network(a, mask), model.network(b, mask)
    torch.testing.assert_close(one.logits[:, :20], two.logits[:, :20])
    torch.testing.assert_close(one.masks[:, :20, :20], two.masks[:, :20, :20])
    short = spot.make_spot(num_steps=20, mask_head="conv", **options).eval()  # the same without any padding
    short.load_state_dict(
        {k: v for k, v in model.state_dict().items() if "mask_head" not in k and "order_head" not in k}, strict=False
    )
    alone = short.network(a[..., :20], mask[..., :20])
    torch.testing.assert_close(one.logits[:, :20], alone.logits)


def test_the_tower_feeds_the_class_head_only(spot):
    model = spot.make_spot(**DEEP).eval()
    mask = torch.ones(1, 1, 32, dtype=torch.bool)
    seen = {}
    for name in ("class_head", "mask_head"):
        getattr(model.net, name).register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
    feats = torch.randn(1, 6, 32)
    before = model.network(feats, mask)
    assert torch.equal(seen["mask_head"], before.embedding)
    assert torch.equal(seen["class_head"], model.net.class_tower(before.embedding, mask[:, 0]))
    with torch.no_grad():
        for p in model.net.class_tower.parameters():
            p.add_(torch.randn_like(p))
    after = model.network(feats, mask)
    assert torch.equal(before.masks, after.masks) and torch.equal(before.embedding, after.embedding)
    assert (before.logits - after.logits).abs().max() > 1e-3
    losses = model.consistency_losses(after, feats)  # reconstruction reads the embedding as well
    sum(losses.values()).backward()
    assert all(p.grad is None for p in model.net.class_tower.parameters())


def test_class_features_are_the_input_of_the_last_linear_layer(spot):
    model = spot.make_spot(**DEEP).eval()
    video = spot.make_video(steps=50)
    feats, time = SpotSelfTraining.class_features(model, video)
    assert feats.shape == (50, 8) and time.tolist() == list(range(50))
    (batch,) = model.batches([video])
    logits = model.network(batch.feats, batch.mask).logits[0].detach()
    found = model.net.class_head(torch.from_numpy(feats[:32])).detach()
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-4)


def test_without_the_new_keys_names_and_weights_stay(spot):
    """A checkpoint from before these keys loads, and each key adds only its own names."""
    old = spot.make_spot(embd_dim=8)
    embedding = {"proj.weight", "proj.bias", "proj_norm.weight", "proj_norm.bias", "qkv.weight", "out.weight"}
    embedding |= {"out.bias", "norm.weight", "norm.bias"}
    heads = {"class_head.weight", "class_head.bias", "mask_head.hidden.0.weight", "mask_head.hidden.0.bias"}
    heads |= {"mask_head.last.weight", "mask_head.last.bias", "mask_head.query.weight", "mask_head.key.weight"}
    heads |= {
        f"{part}.{kind}" for part in ("decoder", "order_head.conv", "order_head.fc") for kind in ("weight", "bias")
    }
    assert set(old.state_dict()) == {f"net.embedding.{n}" for n in embedding} | {f"net.{n}" for n in heads}
    added = set(spot.make_spot(**DEEP).state_dict()) - set(old.state_dict())
    prefixes = {"net.class_tower.", "net.embedding.proj_tower.", "net.embedding.feed_forward."}
    assert {prefix for prefix in prefixes for name in added if name.startswith(prefix)} == prefixes
    assert all(name.startswith(tuple(prefixes)) for name in added)
    neutral = spot.make_spot(embd_dim=8, embd_layers=1, feed_forward=0, class_tower=0)
    state = neutral.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in old.state_dict().items())


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("width", [8, 64])
def test_numbers_of_parameters(spot, width):
    """3 W^2 + 3 W for each convolution with its norm; 2 f W^2 + (f + 3) W for the feed-forward part."""
    plain = count(spot.make_spot(embd_dim=width))
    conv = 3 * width**2 + 3 * width
    assert count(spot.make_spot(embd_dim=width, class_tower=2)) - plain == 2 * conv
    assert count(spot.make_spot(embd_dim=width, embd_layers=2)) - plain == conv
    assert count(spot.make_spot(embd_dim=width, feed_forward=2)) - plain == 4 * width**2 + 5 * width
    if width == 64:  # docs/semi-supervised.md
        three = {"class_tower": 2, "embd_layers": 2, "feed_forward": 2}
        assert count(spot.make_spot(embd_dim=64, **three)) - plain == 54_144


def test_further_convolutions_need_a_projection(spot):
    with pytest.raises(ValueError, match="embd_layers 2: without embd_dim"):
        spot.make_spot(embd_layers=2)
