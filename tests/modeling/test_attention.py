import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.modeling import cpu
from libs.modeling.attention import global_attention, windowed_attention

pytestmark = pytest.mark.two_paths


def slow_attention(q, k, v, allowed, bias=None):
    """softmax(q k / sqrt(D) + bias) v over the allowed pairs, one query at a time."""
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                keys = allowed[b, i].nonzero()[:, 0]
                if not len(keys):
                    continue
                score = (k[b, h, keys] @ q[b, h, i]) / q.shape[3] ** 0.5
                if bias is not None:
                    score = score + bias[h, keys - i + bias.shape[1] // 2]
                out[b, h, i] = score.softmax(0) @ v[b, h, keys]
    return out


def tensors(seed, batch, heads, length, dim=4):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, batch, heads, length, dim, generator=generator, dtype=torch.float64)
    valid = torch.randint(1, length + 1, (batch,), generator=generator)
    return q, k, v, torch.arange(length)[None] < valid[:, None]


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 70), st.integers(1, 9), st.booleans())
def test_windowed_attention_equals_the_definition(seed, length, radius, with_bias):
    q, k, v, mask = tensors(seed, 2, 2, length)
    bias = torch.randn(2, 2 * radius + 1, dtype=torch.float64) if with_bias else None
    step = torch.arange(length)
    near = (step[:, None] - step[None, :]).abs() <= radius
    expected = slow_attention(q, k, v, near[None] & mask[:, None, :], bias)
    found = windowed_attention(q, k, v, mask, radius=radius, bias=bias)
    assert torch.allclose((found * mask[:, None, :, None]), expected * mask[:, None, :, None], atol=1e-12)
    assert torch.isfinite(found).all()


def test_global_attention_equals_the_definition_and_survives_an_empty_sample():
    q, k, v, mask = tensors(0, 3, 2, 17)
    mask[1] = False
    expected = slow_attention(q, k, v, mask[:, None, :].expand(-1, 17, -1))
    assert torch.allclose(global_attention(q, k, v, mask), expected, atol=1e-12)


def test_fused_kernels_may_lay_their_output_out_by_time(monkeypatch):
    """As those for GPUs do: (B, T, H, D) in memory."""
    fused = F.scaled_dot_product_attention

    def by_time(*args, **options):
        return fused(*args, **options).transpose(1, 2).contiguous().transpose(1, 2)

    monkeypatch.setattr(cpu, "enabled", frozenset())
    q, k, v, mask = tensors(2, 2, 2, 40)
    expected = windowed_attention(q, k, v, mask, radius=3)
    monkeypatch.setattr(F, "scaled_dot_product_attention", by_time)
    assert torch.equal(windowed_attention(q, k, v, mask, radius=3), expected)


@pytest.mark.parametrize("with_bias", [False, True])
def test_gradients(with_bias):
    q, k, v, mask = tensors(1, 1, 2, 20)
    inputs = [x.requires_grad_() for x in (q, k, v)]
    bias = torch.randn(2, 7, dtype=torch.float64, requires_grad=True) if with_bias else None

    def masked(q, k, v, bias=None):
        return windowed_attention(q, k, v, mask, radius=3, bias=bias) * mask[:, None, :, None]

    assert torch.autograd.gradcheck(masked, (*inputs, *([bias] if with_bias else [])))


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 70), st.integers(1, 9), st.booleans())
def test_blocks_on_cpus_equal_the_general_way(seed, length, radius, with_bias):
    q, k, v, mask = tensors(seed, 2, 2, length)
    inputs = [q, k, v] + ([torch.randn(2, 2 * radius + 1, dtype=torch.float64)] if with_bias else [])
    results = []
    for enabled in (cpu.KERNELS, frozenset()):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cpu, "enabled", enabled)
            leaves = [x.clone().requires_grad_() for x in inputs]
            out = windowed_attention(*leaves[:3], mask, radius=radius, bias=leaves[3] if with_bias else None)
            (out.sin() * mask[:, None, :, None]).sum().backward()
            results.append([out.detach() * mask[:, None, :, None], *(x.grad for x in leaves)])
    for found, expected in zip(*results, strict=True):
        assert torch.allclose(found, expected, atol=1e-11)
