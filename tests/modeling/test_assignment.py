import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.modeling.assignment import assign_labels, pyramid_points

RANGES = [(0, 4), (4, 8), (8, 10000)]
POINTS = torch.cat(pyramid_points([32, 16, 8], [1, 2, 4], RANGES, torch.device("cpu")))


def slow_assign(segments, labels, num_classes, center_sample, radius):
    """The rules of ActionFormer for one video, a point at a time, straight from their wording."""
    cls = np.zeros((len(POINTS), num_classes), np.float32)
    offsets = {}
    for p, (time, low, high, stride) in enumerate(POINTS.numpy()):
        eligible = []
        for n, (start, end) in enumerate(segments):
            left, right = time - start, end - time
            if center_sample == "radius":
                middle = np.float32(0.5) * (start + end)
                inside = max(middle - radius * stride, start) < time < min(middle + radius * stride, end)
            else:
                inside = left > 0 and right > 0
            if inside and low <= max(left, right) <= high:
                eligible.append((end - start, n))
        if not eligible:
            continue
        shortest, chosen = min(eligible)
        for length, n in eligible:
            if length <= shortest + np.float32(1e-3):
                cls[p, labels[n]] = 1
        offsets[p] = ((time - segments[chosen][0]) / stride, (segments[chosen][1] - time) / stride)
    return cls, offsets


events = st.lists(
    st.tuples(st.integers(-8, 36), st.integers(1, 40), st.integers(0, 2), st.sampled_from([0.0, 0.25, 0.0005])),
    max_size=6,
)


@settings(max_examples=150)
@given(events, st.sampled_from(["radius", "none"]), st.sampled_from([0.5, 1.5, 3.0]))
def test_equals_the_rules(found, center_sample, radius):
    segments = np.array([(s, s + d + f) for s, d, _, f in found], np.float32).reshape(-1, 2)
    labels = np.array([label for _, _, label, _ in found], np.int64)
    mask = torch.ones(1, len(POINTS), dtype=torch.bool)
    mask[0, 20:32] = False
    targets = assign_labels(
        POINTS, mask, [torch.from_numpy(segments)], [torch.from_numpy(labels)],
        num_classes=3, center_sample=center_sample, center_sample_radius=radius,
    )  # fmt: skip
    cls, offsets = slow_assign(segments, labels, 3, center_sample, np.float32(radius))
    np.testing.assert_array_equal(targets.cls[0].numpy(), cls)
    np.testing.assert_array_equal(targets.cls_weight[0, :, 0].numpy(), mask[0].numpy())
    positive = (cls.sum(1) > 0) & mask[0].numpy()
    np.testing.assert_array_equal(targets.offset_weight[0].numpy() > 0, positive)
    for p in np.flatnonzero(positive):
        np.testing.assert_allclose(targets.offsets[0, p].numpy(), offsets[p], rtol=1e-6)


def test_two_classes_of_one_event_share_its_points():
    segment = torch.tensor([[4.0, 10.0], [4.0, 10.0]])
    mask = torch.ones(1, len(POINTS), dtype=torch.bool)
    targets = assign_labels(POINTS, mask, [segment], [torch.tensor([0, 2])], num_classes=3)
    positive = targets.cls[0].sum(-1) > 0
    assert positive.any() and targets.cls[0][positive].tolist() == [[1.0, 0.0, 1.0]] * int(positive.sum())
