import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actionformer_nt.spot.decode import decode, runs
from actionformer_nt.spot.schema import DecodeSection
from libs.datasets.annotations import Event, Video
from libs.evaluation.average_precision import evaluate_detections, ground_truth
from libs.evaluation.detections import make_detections
from libs.nms.suppress import batched_nms


@settings(max_examples=100)
@given(st.integers(0, 5), st.integers(1, 9), st.integers(0, 2**31))
def test_runs_against_a_loop(rows, steps, seed):
    x = torch.rand(rows, steps, generator=torch.Generator().manual_seed(seed)) < 0.6
    expected = []
    for r in range(rows):
        begin = None
        for j in range(steps + 1):
            inside = j < steps and bool(x[r, j])
            if inside and begin is None:
                begin = j
            elif not inside and begin is not None:
                expected.append((r, begin, j))
                begin = None
    row, ranges = runs(x)
    assert [(r, *ab) for r, ab in zip(row.tolist(), ranges.tolist(), strict=True)] == expected


def slow_decode(probs, masks, o, factor):
    """Snippet by snippet, threshold by threshold; (range, label) -> best score."""
    best, length = {}, len(probs)

    def overlap(rows, a, b):
        inside = float(rows[:, a:b].sum())
        size = len(rows) * (b - a)
        return inside / size if o.mask_score == "mean" else inside / (size + float(rows.sum()) - inside)

    def add(a, b, label, score):
        best[a, b, label] = max(score, best.get((a, b, label), 0.0))

    for i in range(length):
        order = sorted(range(probs.shape[1] - 1), key=lambda c: -float(probs[i, c]))[: o.classes_per_snippet]
        for theta in o.mask_thresholds:
            for a, b in runs(masks[i : i + 1] > theta)[1].tolist():
                for c in order:
                    if probs[i, c] > o.snippet_threshold:
                        p = probs[i, c] if o.class_score == "query" else probs[a:b, c].mean()
                        add(a, b, c, float(p) * overlap(masks[i : i + 1], a, b) * float(factor[i]))
    for c in range(probs.shape[1] - 1):
        for tau in o.class_thresholds:
            for a, b in runs(probs[None, :, c] > tau)[1].tolist():
                add(a, b, c, float(probs[a:b, c].mean()) * overlap(masks[a:b], a, b) * float(factor[a:b].mean()))
    return best


@settings(max_examples=40)
@given(
    st.integers(1, 7), st.integers(1, 4), st.sampled_from(["query", "mean"]), st.sampled_from(["iou", "mean"]),
    st.booleans(), st.integers(0, 2**31),
)  # fmt: skip
def test_decode_against_a_slow_version(length, classes, class_score, mask_score, weighted, seed):
    g = torch.Generator().manual_seed(seed)
    probs = (2 * torch.randn(length, classes + 1, generator=g)).softmax(-1)
    masks = torch.rand(length, length, generator=g)
    options = DecodeSection(class_score=class_score, mask_score=mask_score, classes_per_snippet=2)
    factor = torch.rand(length, generator=g) if weighted else None
    found = decode(probs, masks, options, factor=factor)
    expected = slow_decode(probs, masks, options, torch.ones(length) if factor is None else factor)
    ranges = (found.segments + 0.5).long().tolist()
    got = {(a, b, c): s for (a, b), c, s in zip(ranges, found.labels.tolist(), found.scores.tolist(), strict=True)}
    assert len(got) == len(found.scores)  # no candidate twice
    assert got.keys() == expected.keys()
    assert all(got[k] == pytest.approx(expected[k], abs=1e-5) for k in got)
    assert (found.scores.diff() <= 0).all()


def test_14_rows_are_queries_in_decoding():
    """Only row 2 of an asymmetric mask marks snippets 5..7, and only snippet 2 is of class 1."""
    probs = torch.zeros(10, 3)
    probs[:, 2] = 1.0
    probs[2] = torch.tensor([0.0, 1.0, 0.0])
    masks = torch.zeros(10, 10)
    masks[2, 5:8] = 1.0
    options = DecodeSection(class_thresholds=[], class_score="query")
    found = decode(probs, masks, options)
    assert found.segments.tolist() == [[4.5, 7.5]] and found.labels.tolist() == [1]
    assert not len(decode(probs, masks.T.contiguous(), options).scores)


def test_8_oracle_scores_decode_to_the_ground_truth(spot):
    """Two classes, adjacent instances of one class, and one class inside another: within half a snippet."""
    truth = [(0.2, 5.1, 0), (5.1, 9.9, 0), (14.0, 30.0, 1), (18.3, 21.6, 2)]
    video = spot.make_video([(s - 0.5, e - 0.5) for s, e, _ in truth], [y for *_, y in truth])
    model = spot.make_spot().eval()
    (batch,) = model.batches([video])
    output = spot.oracle_output([video["segments"]], [video["labels"]], [32], num_steps=32, num_classes=3)
    (found,) = model.detect([(batch, output)], [video])
    top = sorted(
        (y, s, e) for (s, e), y in zip(found["segments"][:4].tolist(), found["labels"][:4].tolist(), strict=True)
    )
    for (label, start, end), (s, e, y) in zip(top, sorted(truth, key=lambda t: (t[2], t[0])), strict=True):
        assert label == y and abs(start - s) <= 0.5 and abs(end - e) <= 0.5
    assert found["scores"][:4].tolist() == pytest.approx([1.0, 1.0, 1.0, 12 / 16], abs=1e-3)  # 4 of 16 are class 2's
    assert (found["scores"][4:] < 0.7).all()


def test_8_oracle_scores_of_a_long_video_decode_through_windows(spot):
    truth = [(3.0, 9.0, 0), (27.0, 40.0, 1), (40.0, 44.0, 1), (60.0, 71.0, 2), (80.0, 90.0, 0)]
    video = spot.make_video([(s - 0.5, e - 0.5) for s, e, _ in truth], [y for *_, y in truth], steps=90)
    model = spot.make_spot(window_batch=2).eval()
    pairs = []
    for batch in model.batches([video]):
        targets = [video["segments"] - w.start for w in batch.windows]
        labels, lengths = [video["labels"]] * len(targets), [w.length for w in batch.windows]
        pairs.append((batch, spot.oracle_output(targets, labels, lengths, num_steps=32, num_classes=3)))
    (found,) = model.detect(pairs, [video])
    top = sorted(zip(found["segments"][:5].tolist(), found["labels"][:5].tolist(), strict=True))
    assert [(s, e, y) for (s, e), y in top] == truth
    assert (found["scores"][5:] < 0.95).all()


def test_9_iou_is_symmetric_and_nms_never_raises_scores(spot):
    """(0, 1) and (.5, 1) overlap by one half, from either side; the public code has 2 and 0.5."""
    from libs.modeling.losses import iou_matrix

    a = torch.tensor([[0.0, 1.0], [0.5, 1.0], [3.0, 4.0]])
    iou = iou_matrix(a, a)
    assert torch.equal(iou, iou.T) and iou.max() <= 1 and float(iou[0, 1]) == 0.5
    segments = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)).sort(dim=1).values
    scores = torch.rand(50, generator=torch.Generator().manual_seed(1))
    kept = batched_nms(segments, scores, torch.zeros(50, dtype=torch.long), 0.1, 0.0, -1, sigma=0.6)
    assert len(kept.scores) == 50  # the last one too
    before = {tuple(s): float(x) for s, x in zip(segments.tolist(), scores, strict=True)}
    assert all(float(x) <= before[tuple(s)] + 1e-7 for s, x in zip(kept.segments.tolist(), kept.scores, strict=True))


def test_10_a_video_without_predictions_counts_as_missed():
    videos = [Video(f"v{i}", "test", 10.0, 1.0, (Event(1.0, 3.0, 0),)) for i in range(4)]
    ids = ["v0", "v1"]
    found = evaluate_detections(ground_truth(videos), make_detections(ids, [1.0] * 2, [3.0] * 2, [0] * 2, [0.9] * 2))
    assert found.average_mAP == pytest.approx(0.5) and found.recall.max() == pytest.approx(0.5)
    assert found.counts["videos_without_predictions"] == 2


def test_a_fragment_of_a_mask_scores_less_than_the_whole():
    """One row dips in the middle: at a high threshold it falls into two runs."""
    probs, masks = torch.tensor([[0.9, 0.1]]).repeat(7, 1), torch.full((7, 7), 0.9)
    masks[:, 3] = 0.7
    found = decode(probs, masks, DecodeSection())
    assert found.segments[0].tolist() == [-0.5, 6.5] and len(found.scores) > 1
    by_mean = decode(probs, masks, DecodeSection(mask_score="mean"))
    assert by_mean.segments[0].tolist() != [-0.5, 6.5]


def test_several_classes_in_one_snippet():
    probs = torch.tensor([[0.45, 0.45, 0.1]]).repeat(4, 1)
    found = decode(probs, torch.ones(4, 4), DecodeSection())
    assert sorted(found.labels.tolist()) == [0, 1]
    assert found.segments.tolist() == [[-0.5, 3.5]] * 2


def test_nothing_above_the_thresholds_gives_nothing():
    probs = torch.tensor([[0.001, 0.001, 0.998]]).repeat(4, 1)
    found = decode(probs, torch.ones(4, 4), DecodeSection())
    assert found.segments.shape == (0, 2)
