"""Less padding, same results: against the padding of ActionFormer, done by hand. Long videos in pieces, likewise."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.modeling import batching, make_meta_arch
from libs.modeling.batching import Batch, PaddingRule
from libs.modeling.blocks import AffineDropPath
from libs.modeling.chunks import in_chunks, receptive_field

pytestmark = pytest.mark.two_paths
MAX_LEN = 96
RULE = {"backbone_arch": (2, 1, 3), "regression_range": [(0, 4), (4, 8), (8, 16), (16, 10000)]}
VARIANTS = {
    "local": {"n_mha_win_size": 7},
    "fpn, relative positions": {"n_mha_win_size": 7, "fpn_type": "fpn", "use_rel_pe": True},
    "global, absolute positions": {"n_mha_win_size": -1, "use_abs_pe": True, "fpn_type": "fpn"},
    "mixed windows": {"n_mha_win_size": [7, 9, -1, 3]},
    "windows that do not divide": {"n_mha_win_size": [5, 7, 5, 5]},
    "conv": {"backbone_type": "conv", "fpn_type": "fpn"},
    "wide kernels": {"n_mha_win_size": 7, "embd_kernel_size": 5, "head_kernel_size": 7},
    "no norms": {"n_mha_win_size": 7, "embd_with_ln": False, "head_with_ln": False, "fpn_with_ln": False},
    "no embedding": {"n_mha_win_size": 7, "backbone_arch": (0, 1, 3), "embd_dim": 6, "fpn_dim": 6, "n_head": 2},
    "scale 4": {"scale_factor": 4, "backbone_arch": (1, 1, 2), "regression_range": RULE["regression_range"][:3]},
    "quality head": {"n_mha_win_size": 7, "quality": True},
    "start level": {"fpn_type": "fpn", "fpn_start_level": 1, "regression_range": RULE["regression_range"][:3]},
}


def build(**changes):
    torch.manual_seed(0)
    arguments = {
        "backbone_type": "convTransformer", "fpn_type": "identity", "scale_factor": 2, "input_dim": 6,
        "max_seq_len": MAX_LEN, "n_head": 2, "n_mha_win_size": 7, "embd_kernel_size": 3, "embd_dim": 16,
        "embd_with_ln": True, "fpn_dim": 16, "fpn_with_ln": True, "fpn_start_level": 0, "head_dim": 16,
        "head_num_layers": 3, "head_kernel_size": 3, "head_with_ln": True, "use_abs_pe": False, "use_rel_pe": False,
        "num_classes": 3,
        "train_cfg": {
            "center_sample": "radius", "center_sample_radius": 1.5, "loss_weight": 1.0, "cls_prior_prob": 0.01,
            "init_loss_norm": 10, "head_empty_cls": [], "dropout": 0.0, "droppath": 0.1, "label_smoothing": 0.0,
        },
        "test_cfg": {
            "pre_nms_thresh": 0.001, "pre_nms_topk": 200, "iou_threshold": 0.1, "min_score": 0.001, "max_seg_num": 40,
            "nms_method": "soft", "nms_sigma": 0.5, "duration_thresh": 0.05, "multiclass_nms": True,
            "voting_thresh": 0.7,
        },
    }  # fmt: skip
    model = make_meta_arch("LocPointTransformer", **(arguments | RULE | changes))
    for parameter in model.parameters():  # at the initial values the effects of padding are invisible
        torch.nn.init.normal_(parameter, std=0.5)
    for module in model.modules():
        if isinstance(module, AffineDropPath):
            module.drop_prob = 0.0
    return model


def video(length, seed=0):
    generator = torch.Generator().manual_seed(seed * 1000 + length)
    return {
        "video_id": f"v{length}",
        "feats": torch.randn(6, length, generator=generator),
        "segments": torch.tensor([[0.3 * length, 0.3 * length + 5], [0.5 * length, 0.5 * length + 20]]),
        "labels": torch.tensor([0, 2]),
        "fps": 30.0, "duration": 100.0, "feat_stride": 4, "feat_num_frames": 16,
    }  # fmt: skip


def padded_as_actionformer(model, item):
    """One video in a tensor of the length that ActionFormer gives it."""
    length = item["feats"].shape[1]
    full = model.padding.reference_length(length)
    feats = torch.zeros(1, 6, full)
    feats[0, :, :length] = item["feats"]
    return Batch([0], feats, torch.arange(full)[None, None] < length, torch.tensor([full]))


def assert_same_at_valid_steps(found, row, expected):
    for level, mask in enumerate(expected.masks):
        valid = int(mask.sum())
        for name in ("logits", "offsets", "quality") if expected.quality else ("logits", "offsets"):
            a, b = getattr(found, name)[level][row, :valid], getattr(expected, name)[level][0, :valid]
            assert torch.allclose(a, b, atol=1e-10, rtol=1e-10), (name, level, (a - b).abs().max())


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_every_length_gives_what_full_padding_gives(in_64_bits, variant):
    model = build(**VARIANTS[variant]).eval()
    lengths = [1, 2, 7, 8, 9, 31, 32, 33, 50, 79, 80, 81, 87, 88, 89, 95, 96, 97, 100, 119, 120, 121, 200, 288]
    items = [video(n) for n in lengths]
    expected = []
    for item in items:
        batch = padded_as_actionformer(model, item)
        expected.append(model.network(batch.feats, batch.mask, batch.lengths))
    for item, full in zip(items, expected, strict=True):
        (alone,) = model.batches([item])
        assert alone.feats.shape[2] <= model.padding.reference_length(item["feats"].shape[1])
        assert_same_at_valid_steps(model.network(alone.feats, alone.mask, alone.lengths), 0, full)
    seen = []
    for batch in model.batches(items):
        output = model.network(batch.feats, batch.mask, batch.lengths)
        for row, i in enumerate(batch.index):
            assert_same_at_valid_steps(output, row, expected[i])
            seen.append(i)
    assert sorted(seen) == list(range(len(items)))


@pytest.mark.parametrize("most", [batching.MOST_PADDING, math.inf])
@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_and_gradients_do_not_depend_on_padding(in_64_bits, variant, most, monkeypatch):
    monkeypatch.setattr(batching, "MOST_PADDING", most)
    compare_with_full_padding(variant, [video(30), video(41), video(8), video(40, seed=1), video(9, seed=1)])


def test_a_training_batch_may_hold_the_longest_and_short_videos(in_64_bits):
    compare_with_full_padding("local", [video(MAX_LEN), video(MAX_LEN // 4), video(MAX_LEN // 5)])


def compare_with_full_padding(variant, items):
    results = []
    for full in (False, True):
        model = build(**VARIANTS[variant]).train()
        model.padding = replace(model.padding, spare=0)  # short videos get batches of their own
        if full:
            model.padding = PaddingRule(MAX_LEN, (1,), (1,), halo=MAX_LEN)  # everything to max_seq_len
        batches = model.batches(items)
        assert len(batches) > 1 or full or math.inf == batching.MOST_PADDING
        assert full == all(batch.feats.shape[2] == MAX_LEN for batch in batches)
        losses = model(items)
        losses["final_loss"].backward()
        results.append((losses, [p.grad for p in model.parameters()]))
    for name in results[0][0]:
        assert torch.allclose(results[0][0][name], results[1][0][name], rtol=1e-10), name
    for a, b in zip(results[0][1], results[1][1], strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=0, atol=1e-10 * max(1.0, b.abs().max().item()))


@settings(max_examples=200)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=8), st.integers(1, 3))
def test_plan_covers_every_video_once_with_the_padding_it_needs(lengths, halo):
    rule = PaddingRule(96, (1, 2, 4, 8), (6, 12, 24, 48), halo)
    groups = rule.plan(lengths)
    assert sorted(i for _, group in groups for i in group) == list(range(len(lengths)))
    for padded, group in groups:
        assert padded % 8 == 0
        for i in group:
            full = rule.reference_length(lengths[i])
            for stride in rule.strides:
                valid = -(-lengths[i] // stride)
                assert min(padded // stride - valid, halo) == min(full // stride - valid, halo)


def test_short_videos_cost_what_they_are_long():
    rule = PaddingRule(2304, (1, 2, 4, 8, 16, 32), (18, 36, 72, 144, 288, 576))
    assert rule.needed_length(250) == (288, False)  # one padded step on the coarsest level: 9 * 32
    assert rule.needed_length(2300) == (2304, True)
    assert rule.reference_length(2305) == 2880


def test_bad_videos_are_named():
    model = build()
    with pytest.raises(ValueError, match=r"'v7'.*not finite"):
        model.eval()([{**video(7), "feats": torch.full((6, 7), 3e38)}])
    with pytest.raises(ValueError, match=r"'v97'.*97 steps exceed max_seq_len=96"):
        model.train()([video(97)])
    with pytest.raises(ValueError, match=r"'v5'.*input_dim=6.*\(5, 6\)"):
        model.eval()([{**video(5), "feats": torch.zeros(5, 6)}])
    with pytest.raises(ValueError, match=r"'v9'.*\[0, 5\].*num_classes=3"):
        model.train()([{**video(9), "labels": torch.tensor([0, 5])}])


WINDOWED = [name for name in VARIANTS if name not in ("global, absolute positions", "mixed windows")]


def whole_and_pieces(model, chunk, halo):
    outputs = []
    for batch in model.batches([video(300), video(410), video(37)]):
        pieces = in_chunks(
            model.network, batch.feats, batch.mask, chunk=chunk, halo=halo, multiple=max(model.padding.strides)
        )
        outputs.append((model.network(batch.feats, batch.mask), pieces))
    return outputs


def largest_difference(whole, pieces):
    return max(
        (a * m[..., None] - b * m[..., None]).abs().max().item()
        for x, y in zip(
            (whole.logits, whole.offsets, whole.quality), (pieces.logits, pieces.offsets, pieces.quality), strict=True
        )
        if x is not None
        for a, b, m in zip(x, y, whole.masks, strict=True)
    )


@pytest.mark.parametrize("variant", WINDOWED)
@torch.no_grad()
def test_pieces_give_what_the_whole_gives(in_64_bits, variant):
    model = build(**VARIANTS[variant]).eval()
    for chunk in (24, 100):
        for whole, pieces in whole_and_pieces(model, chunk, model.receptive_field):
            scale = max(x.abs().max().item() for x in (*whole.logits, *whole.offsets))
            assert largest_difference(whole, pieces) <= 1e-12 * scale
            for name in ("masks", "points"):
                for a, b in zip(getattr(whole, name), getattr(pieces, name), strict=True):
                    assert torch.equal(a, b)


@torch.no_grad()
def test_without_their_surroundings_they_do_not():
    model = build().eval()
    assert any(largest_difference(*both) > 1e-2 for both in whole_and_pieces(model, 24, 0))


@pytest.mark.parametrize("quality", [False, True])
@torch.no_grad()
def test_detections_are_the_same_in_pieces(in_64_bits, quality):
    model = build(quality=quality).eval()
    found = []
    for chunk in (None, 64):
        model.test_cfg["chunk_len"] = chunk
        found.append(model([video(410)])[0])
    assert len(found[0]["scores"]) and torch.equal(found[0]["labels"], found[1]["labels"])
    for name in ("segments", "scores"):
        assert torch.allclose(found[0][name], found[1][name], rtol=0, atol=1e-9)


def test_what_depends_on_the_whole_video_is_not_cut():
    for variant in ("global, absolute positions", "mixed windows"):
        assert build(**VARIANTS[variant]).receptive_field is None


def test_receptive_field_of_the_thumos_network():
    # 2 embedding convolutions, 2 blocks of 1 + 9, then at strides 2^l: 1 before halving, 9 after; 2 + 3 at stride 32
    expected = 2 + 2 * 10 + sum(2**level + 9 * 2 ** (level + 1) for level in range(5)) + 5 * 32
    found = receptive_field(arch=(2, 2, 5), scale_factor=2, embd_kernel_size=3, windows=[19] * 6, head_reach=3)
    assert found == expected == 771


@torch.no_grad()
def test_nothing_beyond_the_receptive_field_matters():
    model = build().double().eval()
    reach = model.receptive_field
    feats, mask = torch.randn(1, 6, 800, dtype=torch.float64), torch.ones(1, 1, 800, dtype=torch.bool)
    before = model.network(feats, mask)
    feats[:, :, 400:] += 1
    after = model.network(feats, mask)
    for level, (a, b) in enumerate(zip(before.logits, after.logits, strict=True)):
        same = (a == b).all(-1)[0]
        assert same[: (400 - reach) // 2**level].all() and not same[400 // 2**level :].all()


@given(st.lists(st.integers(1, MAX_LEN), min_size=1, max_size=9), st.floats(1, 3), st.integers(0, 40))
def test_groups_of_training(lengths, most, spare):
    rule = PaddingRule(MAX_LEN, (1, 2, 4, 8), (8,), halo=2, spare=spare)
    plan = rule.plan_training(lengths, most=most)
    assert sorted(i for _, index in plan for i in index) == list(range(len(lengths)))
    for padded, index in plan:
        needed = [rule.needed_length(lengths[i])[0] for i in index]
        assert padded == max(needed) <= max(most * min(needed), min(needed) + spare)
    lengths_of_batches = [padded for padded, _ in plan]
    assert lengths_of_batches == sorted(lengths_of_batches, reverse=True)
    for longer, shorter in itertools.pairwise(lengths_of_batches):  # as few batches as the rule allows
        assert longer > max(most * shorter, shorter + spare)


def test_short_videos_of_a_narrow_network_share_a_batch():
    items = [video(30), video(41), video(8)]
    assert [len(build(embd_dim=dim, fpn_dim=dim).train().batches(items)) for dim in (64, 512)] == [1, 3]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
@pytest.mark.parametrize("variant", ["local", "fpn, relative positions", "global, absolute positions", "conv"])
def test_mixed_precision_is_near_and_its_outputs_have_32_bits(variant, amp):
    items = [video(30), video(41)]
    outputs, losses = [], []
    for kind in ("off", amp):
        model = build(**VARIANTS[variant])
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)  # 16 bits have few digits and a small range
        model.load_state_dict(outputs[0][1] if outputs else model.state_dict())
        model.train_cfg["amp"] = kind
        outputs.append((model.train().outputs(items), model.state_dict()))
        losses.append(model(items))
        losses[-1]["final_loss"].backward()
        assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())
    exact, near = outputs[0][0], outputs[1][0]
    for name in ("logits", "offsets"):
        for a, b in zip(getattr(exact, name), getattr(near, name), strict=True):
            assert b.dtype == torch.float32
            assert (a - b).abs().max() <= 0.1 * max(1.0, a.abs().max().item())
    assert any((a != b).any() for a, b in zip(exact.logits, near.logits, strict=True))
    assert losses[1]["final_loss"].item() == pytest.approx(losses[0]["final_loss"].item(), rel=0.1)
    assert losses[1]["final_loss"].dtype == torch.float32
