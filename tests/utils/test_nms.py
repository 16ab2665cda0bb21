import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.utils.nms import batched_nms, seg_voting

MODES = [(m, a) for m in ("soft", "hard") for a in ("multiclass", "agnostic", "agnostic_vote0.7")]
TIES = 5  # the case whose scores are mostly equal


def run(segs, scores, labels, mode, kind, cap=100):
    return batched_nms(
        torch.as_tensor(segs), torch.as_tensor(scores), torch.as_tensor(labels), 0.3, 0.001, cap,
        use_soft_nms=mode == "soft", multiclass=kind == "multiclass", sigma=0.5,
        voting_thresh=0.7 if "vote" in kind else 0.0,
    )  # fmt: skip


def slow_nms(segs, scores, labels, mode, kind, cap=100, iou_threshold=0.3, min_score=0.001, sigma=0.5):
    """The greedy procedure, one candidate at a time, in float32; of equal scores the lowest index."""
    picked = []
    groups = (
        [np.flatnonzero(labels == c) for c in np.unique(labels)] if kind == "multiclass" else [np.arange(len(labels))]
    )
    one = np.float32(1e-6)
    for group in groups:
        live = {int(i): np.float32(scores[i]) for i in group if mode == "soft" or scores[i] > min_score}
        run_picks = []
        while live and (cap <= 0 or len(run_picks) < cap):
            best = min(live, key=lambda i: (-live[i], i))
            run_picks.append((best, live.pop(best)))
            for i in list(live):
                inter = max(np.float32(0), min(segs[best, 1], segs[i, 1]) - max(segs[best, 0], segs[i, 0]))
                lengths = [segs[j, 1] - segs[j, 0] + one for j in (best, i)]
                iou = np.float32(inter / (lengths[0] + lengths[1] - inter))
                if mode == "hard":
                    if iou >= np.float32(iou_threshold):
                        del live[i]
                    continue
                live[i] = np.float32(live[i] * np.exp(-(iou * iou) / np.float32(sigma)))
                if live[i] < min_score:
                    del live[i]
        picked += run_picks
    picked.sort(key=lambda item: -item[1])
    picked = picked[:cap] if cap > 0 else picked
    index = np.array([i for i, _ in picked], dtype=int)
    return segs[index].reshape(-1, 2), np.array([s for _, s in picked], np.float32), labels[index]


@pytest.mark.parametrize(("mode", "kind"), MODES)
@pytest.mark.parametrize("case", [c for c in range(7) if c != TIES])
def test_equals_actionformer(reference, case, mode, kind):
    z = np.load(reference / "nms.npz")
    segs, scores, labels = run(*(z[f"case{case}/{k}"] for k in ("segments", "scores", "labels")), mode, kind)
    prefix = f"case{case}/{mode}_{kind}/"
    np.testing.assert_array_equal(labels.numpy(), z[prefix + "labels"])
    np.testing.assert_allclose(scores.numpy(), z[prefix + "scores"], atol=1e-6)
    expected = z[prefix + "segments"]
    known = np.isfinite(expected)  # ActionFormer's vote on a segment of no length is 0 / 0
    np.testing.assert_allclose(segs.numpy()[known], expected[known], atol=1e-5)
    assert torch.isfinite(segs).all()


@pytest.mark.parametrize("kind", ["multiclass", "agnostic"])
def test_ties_take_the_lowest_index(reference, kind):
    """Among equal scores ActionFormer's order is that of its swaps (soft) or of an unstable sort (hard). Here the
    lowest index wins: against the slow version everything is equal, against ActionFormer's soft NMS the scores."""
    z = np.load(reference / "nms.npz")
    inputs = [z[f"case{TIES}/{k}"] for k in ("segments", "scores", "labels")]
    for mode in ("soft", "hard"):
        found = run(*inputs, mode, kind)
        for a, b in zip(found, slow_nms(*inputs, mode, kind), strict=True):
            np.testing.assert_allclose(a.numpy(), b, atol=1e-6)
    np.testing.assert_allclose(run(*inputs, "soft", kind)[1].numpy(), z[f"case{TIES}/soft_{kind}/scores"], atol=1e-6)


candidates = st.lists(
    st.tuples(st.integers(-5, 30), st.integers(0, 12), st.integers(0, 3), st.integers(0, 8)), min_size=0, max_size=40
)


@settings(max_examples=150, deadline=None)
@given(candidates, st.sampled_from(["soft", "hard"]), st.sampled_from(["multiclass", "agnostic"]), st.integers(0, 12))
def test_equals_the_slow_version(found, mode, kind, cap):
    segs = np.array([(s, s + d) for s, d, _, _ in found], np.float32).reshape(-1, 2)
    labels = np.array([c for _, _, c, _ in found], np.int64)
    scores = np.array([k / 8 for _, _, _, k in found], np.float32)  # many ties, some zero
    for a, b in zip(
        run(segs, scores, labels, mode, kind, cap), slow_nms(segs, scores, labels, mode, kind, cap), strict=True
    ):
        np.testing.assert_allclose(a.numpy(), b, atol=1e-6)


def test_voting_equals_its_definition():
    rng = np.random.default_rng(0)
    segs = np.sort(rng.uniform(0, 30, (60, 2)), axis=1)
    scores = rng.uniform(size=60)
    found = seg_voting(torch.from_numpy(segs[:9]), torch.from_numpy(segs), torch.from_numpy(scores), 0.6)
    for (start, end), voted in zip(segs[:9], found.numpy(), strict=True):
        total, mean = 0.0, np.zeros(2)
        for (s, e), score in zip(segs, scores, strict=True):
            inter = max(min(end, e) - max(start, s), 0)
            iou = inter / (end - start + e - s - inter)
            if iou >= 0.6:
                total, mean = total + score * iou, mean + score * iou * np.array([s, e])
        np.testing.assert_allclose(voted, mean / total)


def test_refuses_what_cannot_be_a_detection():
    good = torch.tensor([[0.0, 1.0], [1.0, 2.0]]), torch.tensor([0.5, 0.4]), torch.tensor([0, 0])
    for bad in (float("nan"), float("inf")):
        for which in (0, 1):
            inputs = [x.clone() for x in good]
            inputs[which][1] = bad
            with pytest.raises(ValueError, match="number 1"):
                batched_nms(*inputs, 0.5, 0.001, 10)
    with pytest.raises(ValueError, match=r"\(N, 2\)"):
        batched_nms(good[0][:, 0], good[1], good[2], 0.5, 0.001, 10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_are_computed_in_float32_and_given_back(dtype):
    segs, scores = torch.tensor([[0.0, 4.0], [1.0, 5.0], [9.0, 12.0]]), torch.tensor([0.75, 0.5, 0.25])
    a = batched_nms(segs.to(dtype), scores.to(dtype), torch.zeros(3, dtype=torch.long), 0.5, 0.001, 10)
    b = batched_nms(segs, scores, torch.zeros(3, dtype=torch.long), 0.5, 0.001, 10)
    assert a[0].dtype == a[1].dtype == dtype
    assert torch.equal(a[0], b[0].to(dtype)) and torch.equal(a[1], b[1].to(dtype))
