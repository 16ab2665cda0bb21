"""Features of segments, and contrastive losses, against loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actionformer_nt.methods.contrast import coarse_contrast, fine_contrast
from actionformer_nt.methods.recent import Recent
from actionformer_nt.methods.regions import around_boundaries, gaps, pooled, sampled


@given(st.integers(1, 6), st.floats(-2, 8))
def test_sampling_interpolates_and_stops_at_the_ends(size, position):
    features = torch.randn(size, 2, generator=torch.Generator().manual_seed(size))
    at = min(max(position, 0), size - 1)
    low = min(int(at), max(size - 2, 0))
    high = min(low + 1, size - 1)
    expected = features[low] + (at - low) * (features[high] - features[low])
    torch.testing.assert_close(sampled(features, torch.tensor([position]))[0], expected, rtol=1e-5, atol=1e-5)


def test_pooling_samples_the_middles_of_equal_parts():
    features = torch.arange(20.0)[:, None]  # the feature of point k is k
    found = pooled(features, torch.tensor([[4.0, 12.0], [10.0, 30.0]]), stride=2, bins=4)
    assert found.shape == (2, 4, 1)
    assert found[0, :, 0].tolist() == [2.5, 3.5, 4.5, 5.5]  # times 5, 7, 9, 11
    assert found[1, :, 0].tolist() == [6.25, 8.75, 11.25, 13.75]
    start, inside, end = around_boundaries(torch.tensor([[4.0, 12.0]]), reach=0.25)
    assert (start.tolist(), inside.tolist(), end.tolist()) == ([[2.0, 6.0]], [[4.0, 12.0]], [[10.0, 14.0]])


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), max_size=5))
def test_gaps_are_what_no_event_covers(events):
    segments = torch.tensor([[a, a + b] for a, b in events], dtype=torch.float32).view(-1, 2)
    covered = {t for a, b in events for t in range(a, a + b)}
    found = gaps(segments, 20)
    assert found.shape[1] == 2 and bool((found[:, 1] - found[:, 0] >= 1).all())
    assert {t for a, b in found.tolist() for t in range(int(a), int(b))} == set(range(20)) - covered


def test_fine_contrast_against_a_loop():
    one, two = torch.randn(2, 5, 3, dtype=torch.float64)
    unit = [x / x.norm(dim=1, keepdim=True) for x in (one, two)]
    expected = 0.0
    for a, b in (unit, unit[::-1]):
        for i in range(5):
            s = [math.exp(float(a[i] @ b[j]) / 0.2) for j in range(5)]
            expected -= math.log(s[i] / sum(s)) / 10
    assert float(fine_contrast(one, two, temperature=0.2)) == pytest.approx(expected)
    assert torch.autograd.gradcheck(lambda x: fine_contrast(x, two, temperature=0.5), one.requires_grad_())


def test_coarse_contrast_against_a_loop():
    rows, groups = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 0, 1, 1, 1, 2])
    unit = rows / rows.norm(dim=1, keepdim=True)
    losses = []
    for i in range(5):  # row 5 is alone in its group
        s = {j: math.exp(float(unit[i] @ unit[j]) / 0.2) for j in range(6) if j != i}
        losses.append(-math.log(sum(v for j, v in s.items() if groups[j] == groups[i]) / sum(s.values())))
    assert float(coarse_contrast(rows, groups, temperature=0.2)) == pytest.approx(sum(losses) / 5)
    assert torch.autograd.gradcheck(lambda x: coarse_contrast(x, groups, temperature=0.5), rows.requires_grad_())
    alone = coarse_contrast(rows[:2].detach().requires_grad_(), torch.tensor([0, 1]), temperature=0.2)
    alone.backward()
    assert alone == 0


def test_recent_figures_are_restored():
    recent = Recent()
    assert [len(x) for x in recent.by_class(2)] == [0, 0]
    recent.videos = [torch.tensor([[0.0, 0.5], [1.0, 0.7]]), torch.zeros(0, 2), torch.tensor([[1.0, 0.9]])]
    again = Recent()
    again.load_state(recent.state())
    assert [len(video) for video in again.videos] == [2, 0, 1]
    assert [x.tolist() for x in again.by_class(2)] == [pytest.approx([0.5]), pytest.approx([0.7, 0.9])]
