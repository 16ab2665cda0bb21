import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actionformer_nt.spot.targets import assign_targets, class_weights, quantise, to_segments

T, C = 12, 3
event = st.tuples(
    st.floats(-3, 14, allow_nan=False, width=32), st.floats(0, 9, allow_nan=False, width=32), st.integers(0, C - 1)
)


def slow_targets(events, length):
    """Event by event and snippet by snippet."""
    classes, masks = [C] * T, torch.zeros(T, T, dtype=torch.bool)
    ranges = []
    for k, (start, end, label) in enumerate(events):
        s, e = start + 0.5, end + 0.5
        if e <= 0 or s >= length:
            continue
        a = min(max(math.floor(s + 0.5), 0), length - 1)
        b = max(a + 1, min(math.floor(e + 0.5), length))
        ranges.append((end - start, start, label, k, a, b))
    for j in range(T):
        over = [r for r in ranges if r[4] <= j < r[5]]
        if over:
            *_, label, _, a, b = min(over)
            classes[j], masks[j, a:b] = label, True
    return torch.tensor(classes), masks


@settings(max_examples=150)
@given(st.lists(event, max_size=5), st.integers(1, T))
def test_targets_against_a_slow_loop(found, length):
    segments = torch.tensor([[s, s + d] for s, d, _ in found], dtype=torch.float32).view(-1, 2)
    labels = torch.tensor([y for *_, y in found], dtype=torch.long)
    # lengths as the targets see them, after rounding to float32
    events = [(a, b, y) for (a, b), y in zip(segments.tolist(), labels.tolist(), strict=True)]
    spans = (segments[:, 1] - segments[:, 0]).tolist()
    if len({round(x, 4) for x in spans}) < len(spans):  # ties are tested below
        return
    got = assign_targets([segments], [labels], [length], num_steps=T, num_classes=C)
    classes, masks = slow_targets(events, length)
    assert got.classes[0].tolist() == classes.tolist()
    assert torch.equal(got.masks[0], masks)


def test_2_two_instances_are_two_blocks():
    got = assign_targets(
        [torch.tensor([[0.5, 3.5], [6.4, 9.6]])], [torch.tensor([2, 0])], [T], num_steps=T, num_classes=C
    )
    assert got.classes[0].tolist() == [3, 2, 2, 2, 3, 3, 3, 0, 0, 0, 3, 3]
    expected = torch.zeros(T, T, dtype=torch.bool)
    expected[1:4, 1:4] = expected[7:10, 7:10] = True
    assert torch.equal(got.masks[0], expected)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_overlaps_go_to_the_shortest_whatever_the_order(order):
    segments = torch.tensor([[-0.5, 11.5], [1.5, 5.5], [3.5, 7.5]])[order]  # the last two are equally long
    labels = torch.tensor([0, 1, 2])[order]
    got = assign_targets([segments], [labels], [T], num_steps=T, num_classes=C)
    assert got.classes[0].tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 0, 0, 0, 0]
    assert got.masks[0, 0].all()  # the long one keeps its whole extent
    assert got.masks[0, 6].nonzero()[:, 0].tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("labels", [[1, 2], [2, 1]])
def test_equal_events_go_to_the_lower_class(labels):
    segments = torch.tensor([[2.0, 6.0], [2.0, 6.0]])
    got = assign_targets([segments], [torch.tensor(labels)], [T], num_steps=T, num_classes=C)
    assert set(got.classes[0].tolist()) == {1, C}


def test_no_event_and_events_off_the_grid():
    nothing = torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)
    off = torch.tensor([[-4.0, -0.5], [7.5, 9.0]]), torch.tensor([0, 1])
    got = assign_targets([nothing[0], off[0]], [nothing[1], off[1]], [T, 8], num_steps=T, num_classes=C)
    assert (got.classes == C).all() and not got.masks.any()


@settings(max_examples=50)
@given(st.floats(-0.5, 29), st.floats(1, 20))
def test_borders_move_by_half_a_snippet_at_most(start, span):
    segment = torch.tensor([[start, start + span]], dtype=torch.float64)
    ranges, on_grid = quantise(segment, 50)
    assert bool(on_grid)
    assert (to_segments(ranges) - segment).abs().max() <= 0.5 + 1e-9


def test_class_weights():
    classes = torch.tensor([[0, 3, 1]])
    valid = torch.tensor([[True, True, False]])
    y, w = class_weights(classes, valid, num_classes=3)
    assert y[0].argmax(-1).tolist() == [0, 3, 1] and torch.equal(w, y * valid[..., None])
    _, w = class_weights(classes, valid, num_classes=3, form="hybrid")
    assert w.sum(-1).tolist() == [[4, 4, 0]]
    with pytest.raises(ValueError, match="'both'"):
        class_weights(classes, valid, num_classes=3, form="both")
