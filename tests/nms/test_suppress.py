"""NMS against figures of ActionFormer and against a slow version.

Exponentials are rounded differently from one library to the next, and candidates whose decayed scores are nearly equal
then change places. So what is compared in 32 bits has no such scores (`slow_nms` says how near they come), or it is the
scores alone, in their order. The rest is compared in 64 bits.
"""

import itertools
import logging

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from libs.nms import fallback, kernels
from libs.nms.suppress import batched_nms, nms_1d, nms_videos, soft_nms_1d

pytestmark = pytest.mark.two_paths
MODES = [(m, a) for m in ("soft", "hard") for a in ("multiclass", "agnostic", "agnostic_vote0.7")]
TIES = 5  # the case whose scores are mostly equal
HAS_KERNELS = kernels.compiled()
kernels_only = pytest.mark.skipif(not HAS_KERNELS, reason="the NMS kernels are not compiled")


@pytest.fixture(params=["compiled", "pytorch"])
def backend(request, monkeypatch):
    """Runs a test with the compiled kernels and with their PyTorch version."""
    if request.param == "pytorch":
        monkeypatch.setattr(kernels, "compiled", lambda: False)
    elif not HAS_KERNELS:
        pytest.skip("the NMS kernels are not compiled")
    return request.param


def run(segs, scores, labels, mode, kind, cap=100):
    return batched_nms(
        torch.as_tensor(segs), torch.as_tensor(scores), torch.as_tensor(labels), 0.3, 0.001, cap,
        use_soft_nms=mode == "soft", multiclass=kind == "multiclass", sigma=0.5,
        voting_thresh=0.7 if "vote" in kind else 0.0,
    )  # fmt: skip


def slow_nms(segs, scores, labels, mode, kind, cap=100, iou_threshold=0.3, min_score=0.001, sigma=0.5):
    """The greedy procedure, one candidate at a time, in the precision of the input; of equal scores the lowest index.

    Returns:
        segments, scores and labels; and the smallest relative difference in a comparison of scores that depends on how
        exponentials are rounded.
    """
    real, gap = segs.dtype.type, np.inf
    picked, decays = [], [() for _ in scores]  # the IoUs by which a candidate decayed

    def rounded(i, j):
        return bool(decays[i] or decays[j]) and (scores[i], decays[i]) != (scores[j], decays[j])

    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    groups = groups if kind == "multiclass" else [np.arange(len(labels))]
    one = real(1e-6)
    for group in groups:
        live = {int(i): real(scores[i]) for i in group if mode != "hard" or scores[i] > min_score}
        run_picks = []
        while live and (cap <= 0 or len(run_picks) < cap):
            best = min(live, key=lambda i: (-live[i], i))
            gap = min([gap, *(1 - live[i] / live[best] for i in live if rounded(i, best))])
            run_picks.append((best, live.pop(best)))
            for i in list(live):
                inter = max(real(0), min(segs[best, 1], segs[i, 1]) - max(segs[best, 0], segs[i, 0]))
                lengths = [segs[j, 1] - segs[j, 0] + one for j in (best, i)]
                iou = real(inter / (lengths[0] + lengths[1] - inter))
                if mode == "hard":
                    if iou >= real(iou_threshold):
                        del live[i]
                    continue
                if mode == "soft":
                    decay = np.exp(-(iou * iou) / real(sigma))
                    live[i] = real(live[i] * decay)
                    if decay < 1:
                        decays[i] += (iou,)
                        gap = min(gap, abs(live[i] / min_score - 1))
                elif iou >= real(iou_threshold):
                    live[i] = real(live[i] * (1 - iou))
                if live[i] < min_score:
                    del live[i]
        picked += run_picks
    picked.sort(key=lambda item: -item[1])
    for (i, x), (j, y) in itertools.pairwise(picked[: cap + 1] if cap > 0 else picked):
        gap = min(gap, 1 - y / x) if rounded(i, j) else gap
    picked = picked[:cap] if cap > 0 else picked
    index = np.array([i for i, _ in picked], dtype=int)
    return (segs[index].reshape(-1, 2), np.array([s for _, s in picked], segs.dtype), labels[index]), gap


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("mode", "kind"), MODES)
@pytest.mark.parametrize("case", [c for c in range(7) if c != TIES])
def test_equals_actionformer(backend, reference, case, mode, kind):
    z = np.load(reference / "nms.npz")
    inputs = [z[f"case{case}/{k}"] for k in ("segments", "scores", "labels")]
    prefix = f"case{case}/{mode}_{kind}/"
    np.testing.assert_allclose(run(*inputs, mode, kind)[1].numpy(), z[prefix + "scores"], atol=1e-6)
    segs, scores, labels = run(inputs[0].astype(float), inputs[1].astype(float), inputs[2], mode, kind)
    np.testing.assert_array_equal(labels.numpy(), z[prefix + "labels"])
    np.testing.assert_allclose(scores.numpy(), z[prefix + "scores"], atol=1e-6)
    expected = z[prefix + "segments"]
    known = np.isfinite(expected)  # ActionFormer's vote on a segment of no length is 0 / 0
    np.testing.assert_allclose(segs.numpy()[known], expected[known], atol=1e-5, rtol=1e-6)
    assert torch.isfinite(segs).all()


@pytest.mark.parametrize("kind", ["multiclass", "agnostic"])
def test_ties_take_the_lowest_index(backend, reference, kind):
    """Among equal scores ActionFormer's order is that of its swaps (soft) or of an unstable sort (hard). Here the
    lowest index wins: against the slow version everything is equal, against ActionFormer's soft NMS the scores."""
    z = np.load(reference / "nms.npz")
    inputs = [z[f"case{TIES}/{k}"] for k in ("segments", "scores", "labels")]
    for mode, cap in (("soft", 20), ("hard", 100)):  # further down, soft NMS has scores that are equal but for rounding
        expected, gap = slow_nms(*inputs, mode, kind, cap)
        assert gap > 1e-4
        assert_same(run(*inputs, mode, kind, cap), expected)
    np.testing.assert_allclose(run(*inputs, "soft", kind)[1].numpy(), z[f"case{TIES}/soft_{kind}/scores"], atol=1e-6)


@st.composite
def candidates(draw, max_size=40):
    """Segments on a coarse grid, so that they touch, nest, coincide and have no length; few different scores."""
    rows = draw(
        st.lists(st.tuples(st.integers(-5, 30), st.integers(0, 12), st.integers(0, 8)), min_size=0, max_size=max_size)
    )
    num_classes = draw(st.sampled_from([1, 3, 1000]))
    scale = np.float32(draw(st.sampled_from([1e-5, 0.3, 1.0, 1e4])))  # tiny to huge
    labels = draw(st.lists(st.integers(0, num_classes - 1), min_size=len(rows), max_size=len(rows)))
    segs = scale * np.array([(s, s + d) for s, d, _ in rows], np.float32).reshape(-1, 2)
    scores = np.array([k / 8 for *_, k in rows], np.float32)
    return segs, scores, np.array(labels, np.int64)


@pytest.mark.parametrize("mode", ["soft", "hard"])
@pytest.mark.parametrize("pytorch", [False, True], ids=["compiled", "pytorch"])
def test_equals_the_slow_version(mode, pytorch):
    if not pytorch and not HAS_KERNELS:
        pytest.skip("the NMS kernels are not compiled")

    @settings(max_examples=100 if pytorch else 600)
    @given(candidates(), st.sampled_from(["multiclass", "agnostic"]), st.integers(0, 12))
    def check(found, kind, cap):
        with pytest.MonkeyPatch.context() as patch:
            if pytorch:
                patch.setattr(kernels, "compiled", lambda: False)
            expected, gap = slow_nms(*found, mode, kind, cap)
            assume(gap > 1e-5)
            assert_same(run(*found, mode, kind, cap), expected)

    check()


def random_candidates(seed, n, classes, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(n, generator=generator) * 300
    segs = torch.stack([start, start + 0.1 + 20 * torch.rand(n, generator=generator)], dim=1)
    scores = torch.rand(n, generator=generator)
    return segs.to(dtype), scores.to(dtype), torch.randint(0, classes, (n,), generator=generator)


@pytest.mark.parametrize(("n", "classes", "cap"), [(3000, 20, 200), (2000, 1000, 100), (2000, 1, 50), (600, 3, 0)])
@pytest.mark.parametrize("method", ["gaussian", "linear", "hard"])
def test_many_candidates(backend, n, classes, cap, method):
    segs, scores, labels = random_candidates(0, n, classes, torch.float64)
    (found,) = nms_videos(
        [(segs, scores, labels)], iou_threshold=0.3, min_score=0.001, max_seg_num=cap, method=method, sigma=0.5
    )
    mode = {"gaussian": "soft", "linear": "linear", "hard": "hard"}[method]
    expected, gap = slow_nms(segs.numpy(), scores.numpy(), labels.numpy(), mode, "multiclass", cap)
    assert gap > 1e-12
    assert_same(found, expected)


@pytest.mark.parametrize("multiclass", [True, False])
def test_several_videos_in_one_call_equal_one_by_one(backend, multiclass):
    videos = [random_candidates(i, n, 7, torch.float64) for i, n in enumerate((300, 0, 1, 120, 0))]
    options = dict(iou_threshold=0.3, min_score=0.001, max_seg_num=60, multiclass=multiclass, voting_thresh=0.6)
    together = nms_videos(videos, **options)
    assert len(together) == 5 and len(together[1].scores) == 0
    for video, found in zip(videos, together, strict=True):
        (alone,) = nms_videos([video], **options)
        for a, b in zip(found, alone, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert nms_videos([], **options) == []


def test_voting_equals_its_definition(backend):
    rng = np.random.default_rng(0)
    segs, scores = np.sort(rng.uniform(0, 30, (60, 2)), axis=1), rng.uniform(size=60)
    inputs = torch.from_numpy(segs), torch.from_numpy(scores), torch.zeros(60, dtype=torch.long)
    plain, voted = (
        batched_nms(*inputs, 0.5, 0.001, 9, use_soft_nms=False, multiclass=False, voting_thresh=t) for t in (0.0, 0.6)
    )
    for (start, end), found in zip(plain[0].numpy(), voted[0].numpy(), strict=True):
        total, mean = 0.0, np.zeros(2)
        for (s, e), score in zip(segs, scores, strict=True):
            inter = max(min(end, e) - max(start, s), 0)
            iou = inter / (end - start + e - s - inter)
            if iou >= 0.6:
                total, mean = total + score * iou, mean + score * iou * np.array([s, e])
        np.testing.assert_allclose(found, mean / total)


def test_single_lists(backend):
    segs = torch.tensor([[0.0, 4.0], [1.0, 5.0], [9.0, 12.0], [0.0, 4.0]])
    scores = torch.tensor([0.5, 0.9, 0.7, 0.5])
    assert nms_1d(segs, scores, 0.5).tolist() == [1, 2]
    assert nms_1d(segs, scores, 0.7).tolist() == [1, 2, 0]  # the last is the first again
    iou = 3 / 5
    index, kept = soft_nms_1d(segs, scores, sigma=0.5, min_score=0.3)
    first = 0.5 * np.exp(-(iou**2) / 0.5)
    assert index.tolist() == [1, 2] and first < 0.3
    index, kept = soft_nms_1d(segs, scores, method="linear", iou_threshold=0.1, min_score=0.01)
    assert index.tolist() == [1, 2, 0]  # the copy of the first decays to nothing
    np.testing.assert_allclose(kept.numpy(), [0.9, 0.7, 0.5 * (1 - iou)], atol=1e-5)
    index, kept = soft_nms_1d(segs, scores, method="vanilla", iou_threshold=0.5)
    assert index.tolist() == [1, 2] and kept.tolist() == pytest.approx([0.9, 0.7])
    with pytest.raises(ValueError, match="cubic"):
        soft_nms_1d(segs, scores, method="cubic")


def test_the_module_of_actionformers_extension(backend):
    import nms_1d_cpu

    segs, scores, _ = random_candidates(3, 50, 1)
    assert torch.equal(nms_1d_cpu.nms(segs, scores, iou_threshold=0.4), nms_1d(segs, scores, 0.4))
    dets = segs.new_zeros(50, 3)
    index = nms_1d_cpu.softnms(segs, scores, dets, iou_threshold=0.1, sigma=0.5, min_score=0.01, method=2)
    expected, kept = soft_nms_1d(segs, scores, sigma=0.5, min_score=0.01)
    assert torch.equal(index, expected) and torch.equal(dets[: len(index), 2], kept)
    assert torch.equal(dets[: len(index), :2], segs[index]) and not dets[len(index) :].any()
    with pytest.raises(ValueError, match="method 3"):
        nms_1d_cpu.softnms(segs, scores, dets, 0.1, 0.5, 0.01, 3)


def test_refuses_what_cannot_be_a_detection(backend):
    good = torch.tensor([[0.0, 1.0], [1.0, 2.0]]), torch.tensor([0.5, 0.4]), torch.tensor([0, 0])
    for bad in (float("nan"), float("inf")):
        for which in (0, 1):
            inputs = [x.clone() for x in good]
            inputs[which][1] = bad
            with pytest.raises(ValueError, match="number 1"):
                batched_nms(*inputs, 0.5, 0.001, 10)
            with pytest.raises(ValueError, match=r"video 1 of the batch.*number 1"):
                nms_videos([good, tuple(inputs)], iou_threshold=0.5, min_score=0.0, max_seg_num=5)
    with pytest.raises(ValueError, match=r"\(N, 2\)"):
        batched_nms(good[0][:, 0], good[1], good[2], 0.5, 0.001, 10)
    with pytest.raises(ValueError, match="'softer' is not one of"):
        nms_videos([good], iou_threshold=0.5, min_score=0.0, max_seg_num=5, method="softer")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_precisions(backend, dtype):
    """Half precision is computed in float32, float64 as such; results come back in the precision of the input."""
    segs, scores = torch.tensor([[0.0, 4.0], [1.0, 5.0], [9.0, 12.0]]), torch.tensor([0.75, 0.5, 0.25])
    labels = torch.zeros(3, dtype=torch.long)
    a = batched_nms(segs.to(dtype), scores.to(dtype), labels, 0.5, 0.001, 10)
    b = batched_nms(segs.double(), scores.double(), labels, 0.5, 0.001, 10)
    assert a[0].dtype == a[1].dtype == dtype and torch.equal(a[0].double(), b[0])
    exact = [0.75, 0.25, 0.5 * np.exp(-((3 / (5 + 1e-6)) ** 2) / 0.5)]
    assert b[1].tolist() == pytest.approx(exact, rel=1e-6)
    assert torch.allclose(a[1].double(), b[1], rtol=1e-2 if dtype != torch.float64 else 0)


def op_inputs(seed=0, n=400, classes=9, dtype=torch.float32):
    """Arguments of the operator for two videos."""
    segs, scores, labels = random_candidates(seed, n, classes)
    scores = (scores * 20).round() / 20  # with ties
    group = labels + classes * (torch.arange(n) >= n // 3)
    order = group.argsort(stable=True)
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), group.bincount(minlength=2 * classes).cumsum(0)])
    return segs[order].to(dtype), scores[order].to(dtype), offsets, torch.tensor([0, classes, 2 * classes])


@kernels_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cap", [-1, 1, 25, 1000])
@pytest.mark.parametrize("method", [0, 1, 2])
def test_the_algorithm_of_the_cuda_kernel_equals_the_lazy_one_bit_for_bit(method, cap, dtype):
    for seed in range(8):
        arguments = (*op_inputs(seed, dtype=dtype), 0.4, 0.5, 0.01, cap, method)
        lazy, greedy = torch.ops.actionformer_nt.nms_1d(*arguments), torch.ops.actionformer_nt.nms_1d_greedy(*arguments)
        for a, b in zip(lazy, greedy, strict=True):
            assert torch.equal(a, b)
        if method != fallback.GAUSSIAN or dtype == torch.float64:
            index, score, count = fallback.nms_1d(*arguments)
            assert torch.equal(count, lazy[2]) and torch.equal(index, lazy[0])
            torch.testing.assert_close(score, lazy[1], atol=1e-6, rtol=1e-5)


@kernels_only
def test_threads_change_no_bit():
    videos = [random_candidates(i, 2000, 5) for i in range(6)]
    options = dict(iou_threshold=0.3, min_score=0.001, max_seg_num=100, multiclass=False, voting_thresh=0.6)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            results.append(nms_videos(videos, **options))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@kernels_only
def test_operators_are_well_behaved():
    segs, scores, groups, videos = op_inputs(n=60, classes=3)
    for name in ("nms_1d", "nms_1d_greedy"):
        op = getattr(torch.ops.actionformer_nt, name).default
        torch.library.opcheck(op, (segs, scores, groups, videos, 0.4, 0.5, 0.01, 10, 2))
    bounds = torch.tensor([0, 60])
    voting = torch.ops.actionformer_nt.segment_voting.default
    torch.library.opcheck(voting, (segs[:5].contiguous(), torch.tensor([0, 5]), segs, scores, bounds, 0.5))


@kernels_only
def test_operators_check_their_arguments():
    segs, scores, groups, videos = op_inputs(n=60, classes=3)
    rest = (0.4, 0.5, 0.01, 10)
    for arguments, word in (
        ((segs[:, :1], scores, groups, videos, *rest, 2), "shape"),
        ((segs, scores[1:], groups, videos, *rest, 2), "scores"),
        ((segs, scores.double(), groups, videos, *rest, 2), "one dtype"),
        ((segs.t().contiguous().t(), scores, groups, videos, *rest, 2), "contiguous"),
        ((segs, scores, groups.int(), videos, *rest, 2), "group_offsets"),
        ((segs.half(), scores.half(), groups, videos, *rest, 2), "float32 and float64"),
        ((segs, scores, groups, videos, *rest, 3), "method"),
        ((segs, scores, groups + 1, videos, *rest, 2), "group_offsets"),
        ((segs, scores, groups.flip(0), videos, *rest, 2), "group_offsets"),
        ((segs, scores, groups, videos * 2, *rest, 2), "video_groups"),
    ):
        with pytest.raises(RuntimeError, match=word):
            torch.ops.actionformer_nt.nms_1d(*arguments)


def test_without_kernels_it_says_so_once(monkeypatch, caplog):
    import importlib

    def missing(name):
        raise ImportError("no such file")

    monkeypatch.setattr(importlib, "import_module", missing)
    kernels.compiled.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            segs, scores, labels = random_candidates(0, 30, 2)
            for _ in range(2):
                batched_nms(segs, scores, labels, 0.3, 0.001, 10)
        warnings = [r.getMessage() for r in caplog.records if "NMS runs in PyTorch" in r.getMessage()]
        assert len(warnings) == 1 and "no such file" in warnings[0] and "build_ext --inplace" in warnings[0]
    finally:
        monkeypatch.undo()
        kernels.compiled.cache_clear()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
class TestCuda:
    @pytest.mark.parametrize("n", [0, 1, 1000, 50_000])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
    @pytest.mark.parametrize("kind", ["multiclass", "agnostic_vote0.7"])
    @pytest.mark.parametrize("mode", ["soft", "hard"])
    def test_equals_the_cpu_on_a_stream_of_its_own(self, n, dtype, kind, mode):
        assert kernels.compiled_for_cuda()
        segs, scores, labels = random_candidates(0, n, 20)
        segs, scores = segs.to(dtype), scores.to(dtype)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            found = run(segs.cuda(), scores.cuda(), labels.cuda(), mode, kind)
        stream.synchronize()
        assert all(column.is_cuda for column in found)
        for a, b in zip(found, run(segs, scores, labels, mode, kind), strict=True):
            torch.testing.assert_close(a.cpu(), b, atol=1e-4, rtol=1e-5)

    def test_same_input_same_bits(self):
        segs, scores, labels = (x.cuda() for x in random_candidates(1, 8000, 20))
        first, second = (run(segs, scores, labels, "soft", "agnostic_vote0.7") for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
