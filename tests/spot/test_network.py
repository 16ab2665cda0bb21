import pytest
import torch

from actionformer_nt.spot.network import MaskHead, SnippetEmbedding


@pytest.mark.parametrize(("dim", "embd"), [(6, None), (400, None), (2048, 64)])
@pytest.mark.parametrize("steps", [100, 256])
def test_1_shapes(spot, dim, embd, steps):
    model = spot.make_spot(input_dim=dim, num_steps=steps, num_classes=5, embd_dim=embd).eval()
    mask = torch.arange(steps)[None, None] < torch.tensor([steps, 7])[:, None, None]
    out = model.network(torch.randn(2, dim, steps), mask)
    assert out.logits.shape == (2, steps, 6)
    assert out.masks.shape == (2, steps, steps)
    assert out.embedding.shape == (2, steps, embd or dim)
    assert all(torch.isfinite(x).all() for x in out[:3])


@pytest.mark.parametrize("options", [{}, {"embd_dim": 8}, {"embd_dim": 8, "full_width_heads": True, "positions": True}])
@pytest.mark.parametrize("columns", ["relative", "absolute"])
def test_padding_has_no_influence(spot, options, columns):
    model = spot.make_spot(mask_columns=columns, **options).eval()
    mask = (torch.arange(32) < 20).expand(2, 1, 32)
    a, b = torch.randn(2, 6, 32), torch.randn(2, 6, 32)
    b[..., :20] = a[..., :20]
    b[..., 20:] = torch.nan
    one, two = model.network(a, mask), model.network(b, mask)
    torch.testing.assert_close(one.logits[:, :20], two.logits[:, :20])
    torch.testing.assert_close(one.masks[:, :20], two.masks[:, :20])
    c = a.clone()
    c[..., 19] += 1.0  # while a valid snippet has
    assert (model.network(c, mask).logits[:, 0] - one.logits[:, 0]).abs().max() > 1e-6


@pytest.mark.parametrize("columns", ["relative", "absolute"])
def test_14_rows_of_the_mask_head_are_queries(columns):
    torch.manual_seed(0)
    head = MaskHead(4, 10, dims=[8], columns=columns)
    x = torch.randn(1, 10, 4)
    moved = x.clone()
    moved[0, 6] += 1.0
    valid = torch.ones(1, 10, dtype=torch.bool)
    changed = (head(x, valid) - head(moved, valid))[0].abs() > 1e-7
    assert changed.any(dim=1).tolist() == [i in (5, 6, 7) for i in range(10)]  # rows within the kernel's reach
    assert changed[6].sum() > 5  # and there, columns everywhere


def test_relative_columns_are_distances():
    head = MaskHead(3, 6, dims=[], columns="relative")
    with torch.no_grad():
        head.last.weight.zero_()
        head.last.bias.copy_(torch.arange(11) - 5.0)  # channel = distance
    found = head(torch.randn(1, 6, 3), torch.ones(1, 6, dtype=torch.bool))[0]
    step = torch.arange(6.0)
    torch.testing.assert_close(found, step[None, :] - step[:, None])


def test_full_width_heads_of_spot_have_67_million_parameters_at_2048():
    with torch.device("meta"):
        block = SnippetEmbedding(
            input_dim=2048, embd_dim=None, kernel_size=3, positions=False, n_head=4, full_width_heads=True,
            attn_dropout=0.1, dropout=0.3,
        )  # fmt: skip
    assert sum(p.numel() for p in block.parameters()) // 10**6 == 67


def test_a_width_that_heads_cannot_share(spot):
    with pytest.raises(ValueError, match=r"width 7 .* n_head 2"):
        spot.make_spot(input_dim=7)
    with pytest.raises(ValueError, match="16 snippets, expected max_seq_len=32"):
        spot.make_spot().network(torch.zeros(1, 6, 16), torch.ones(1, 1, 16, dtype=torch.bool))
