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
@pytest.mark.parametrize("head", ["pairwise", "conv"])
@pytest.mark.two_paths
def test_padding_has_no_influence(in_64_bits, spot, options, head):
    model = spot.make_spot(mask_head=head, **options).eval()
    mask = (torch.arange(32) < 20).expand(2, 1, 32)
    a, b = torch.randn(2, 6, 32), torch.randn(2, 6, 32)
    b[..., :20] = a[..., :20]
    b[..., 20:] = torch.nan
    one, two = model.network(a, mask), model.network(b, mask)
    torch.testing.assert_close(one.logits[:, :20], two.logits[:, :20])
    torch.testing.assert_close(one.masks[:, :20, :20], two.masks[:, :20, :20])
    c = a.clone()
    c[..., 19] += 1.0  # while a valid snippet has
    assert (model.network(c, mask).logits[:, 0] - one.logits[:, 0]).abs().max() > 1e-4


def changed_by(head, snippet):
    """(T, T): which logits depend on this snippet's embedding."""
    torch.manual_seed(0)
    x = torch.randn(1, 10, 4)
    moved = x.clone()
    moved[0, snippet] += 1.0
    valid = torch.ones(1, 10, dtype=torch.bool)
    return (head(x, valid) - head(moved, valid))[0].abs() > 1e-9


@pytest.mark.two_paths
def test_14_rows_of_spots_mask_head_are_channels_and_columns_positions(in_64_bits):
    torch.manual_seed(1)
    changed = changed_by(MaskHead(4, 10, dims=[8], kind="conv"), 6)
    assert changed.any(dim=0).tolist() == [j in (5, 6, 7) for j in range(10)]  # columns within the kernel's reach
    assert changed.any(dim=1).all()


def test_14_rows_of_the_pairwise_mask_head_are_queries():
    head = MaskHead(4, 10, dims=[8], kind="pairwise")
    with torch.no_grad():
        for p in head.last.parameters():
            p.zero_()
        head.hidden[0].weight[..., [0, 2]] = 0.0  # each snippet by itself
    x = torch.randn(1, 10, 4)
    hidden = torch.relu(head.hidden[0](x.transpose(1, 2))).transpose(1, 2)[0]
    found = head(x, torch.ones(1, 10, dtype=torch.bool))[0]
    expected = head.query(hidden)[3] @ head.key(hidden)[8] / 8**0.5
    torch.testing.assert_close(found[3, 8], expected)
    assert (found - found.T).abs().max() > 1e-3


def test_the_pairwise_term_of_a_column_is_by_distance_from_query_to_column():
    head = MaskHead(3, 6, dims=[4], kind="pairwise")
    with torch.no_grad():
        for p in [*head.query.parameters(), *head.key.parameters(), head.last.weight]:
            p.zero_()
        head.last.bias.copy_(torch.arange(11) - 5.0)
    found = head(torch.randn(1, 6, 3), torch.ones(1, 6, dtype=torch.bool))[0]
    step = torch.arange(6.0)
    torch.testing.assert_close(found, step[:, None] - step[None, :])  # i - j


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
