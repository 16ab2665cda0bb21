"""Equality with the public ActionFormer: names, shapes, outputs, losses, gradients, detections, 20 steps.

Its figures were computed in 32 bits. Ours are, too, where rounding stays small (outputs); where it would decide (NMS,
ReLUs) or grow (20 steps of AdamW), ours are computed in 64 bits, and rounding is in the figures alone.
"""

import json

import numpy as np
import pytest
import torch

from libs.modeling import make_meta_arch
from libs.modeling.blocks import AffineDropPath
from libs.utils import ModelEma, make_optimizer, make_scheduler

pytestmark = pytest.mark.two_paths
VARIANTS = (
    "local_identity",
    "local_fpn_relpe",
    "global_abspe",
    "mixed_windows",
    "conv_fpn",
    "multi_input",
    "start_level1",
    "nocenter_smooth_noln",
)
# Shift invariance of the softmax makes these gradients zero; what is left is rounding noise.
ZERO_GRADIENT = ("attn.key.bias", "attn.key_norm.bias")


def build(reference, variant):
    facts = json.loads((reference / "models.json").read_text())[variant]
    arrays = np.load(reference / f"model_{variant}.npz")
    model = make_meta_arch("LocPointTransformer", **facts["config"]["model"])
    model.load_state_dict({k[6:]: torch.from_numpy(arrays[k]) for k in arrays.files if k.startswith("param/")})
    for module in model.modules():
        if isinstance(module, AffineDropPath):
            module.drop_prob = 0.0
    return model, arrays, [video(arrays, i) for i in range(len(facts["eval_lengths"]))]


def video(arrays, i):
    fps, duration, stride, num_frames = arrays[f"eval{i}/meta"].tolist()
    return {
        "video_id": f"eval{i}",
        "feats": torch.from_numpy(arrays[f"eval{i}/feats"]),
        "segments": torch.from_numpy(arrays[f"eval{i}/segments"]),
        "labels": torch.from_numpy(arrays[f"eval{i}/labels"]),
        "fps": fps,
        "duration": duration,
        "feat_stride": stride,
        "feat_num_frames": num_frames,
    }


def train_batch(videos):
    return [videos[0], videos[1], without_events(videos[2])]


def without_events(item):
    return {**item, "segments": torch.zeros(0, 2), "labels": torch.zeros(0, dtype=torch.long)}


def test_state_dicts_of_the_public_configs(reference):
    for name, facts in json.loads((reference / "actionformer_state_dicts.json").read_text()).items():
        with torch.device("meta"):
            model = make_meta_arch("LocPointTransformer", **facts["resolved_config"]["model"])
        assert {k: list(v.shape) for k, v in model.state_dict().items()} == facts["state_dict"], name
        assert sum(p.numel() for p in model.parameters()) == facts["num_params"], name


@pytest.mark.parametrize("together", [True, False], ids=["batched", "one by one"])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_outputs(reference, variant, together):
    model, arrays, videos = build(reference, variant)
    model.eval()
    for group in [videos] if together else [[v] for v in videos]:
        for batch in model.batches(group):
            output = model.network(batch.feats, batch.mask, batch.lengths)
            for row, i in enumerate(batch.index):
                compare_levels(arrays, group[i]["video_id"], output, row)


@pytest.mark.parametrize("variant", VARIANTS)
def test_detections(in_64_bits, reference, variant):
    model, arrays, videos = build(reference, variant)
    model.eval()
    for group in [videos, *([v] for v in videos)]:
        for found in model(group):
            expected = {k: arrays[f"{found['video_id']}/det_{k}"] for k in ("segments", "scores", "labels")}
            np.testing.assert_array_equal(found["labels"].numpy(), expected["labels"])
            np.testing.assert_allclose(found["scores"].numpy(), expected["scores"], atol=1e-5)
            np.testing.assert_allclose(found["segments"].numpy(), expected["segments"], atol=1e-4)


def compare_levels(arrays, name, output, row):
    for level, mask in enumerate(output.masks):
        expected_mask = arrays[f"{name}/level{level}/mask"]
        valid = int(expected_mask.sum())
        assert expected_mask[:valid].all() and mask[row, :valid].all() and not mask[row, valid:].any()
        for key, found in (
            ("cls_logits", output.logits[level][row]),
            ("offsets", output.offsets[level][row]),
            ("points", output.points[level]),
        ):
            expected = arrays[f"{name}/level{level}/{key}"][:valid]
            np.testing.assert_allclose(found[:valid].numpy(), expected, atol=1e-5, err_msg=f"{key}, level {level}")


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_and_gradients(in_64_bits, reference, variant):
    model, arrays, videos = build(reference, variant)
    losses = model.train()(train_batch(videos))
    losses["final_loss"].backward()
    for name, value in losses.items():
        assert value.item() == pytest.approx(float(arrays[f"train/{name}"]), rel=1e-6), name
    assert model.loss_normalizer == pytest.approx(float(arrays["train/loss_normalizer"]), rel=1e-12)
    for name, parameter in model.named_parameters():
        expected = arrays[f"grad/{name}"]
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        # relative to the largest entry; the zero gradients absolutely
        bound = 1e-6 if name.endswith(ZERO_GRADIENT) else 1e-4 * np.abs(expected).max() + 1e-12
        assert np.abs(found.numpy() - expected).max() <= bound, name


def test_twenty_steps_of_training(in_64_bits, reference):
    model, _, videos = build(reference, "local_identity")
    path = np.load(reference / "trajectory.npz")
    options = json.loads(str(path["opt"]))
    optimizer = make_optimizer(model, options)
    scheduler = make_scheduler(optimizer, options, int(path["iters_per_epoch"]))
    ema = ModelEma(model)
    model.train()
    for step, batch in enumerate(path["batches"]):
        optimizer.zero_grad()
        losses = model([videos[i] for i in batch])
        losses["final_loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), float(path["clip"]))
        optimizer.step()
        scheduler.step()
        ema.update(model)
        for name, value in losses.items():
            assert value.item() == pytest.approx(path[name][step], rel=1e-5, abs=1e-5), (step, name)
        assert model.loss_normalizer == pytest.approx(path["loss_normalizer"][step], rel=1e-9)
        assert scheduler.get_last_lr()[0] == pytest.approx(path["lr"][step], abs=1e-12)
        assert norm.item() == pytest.approx(path["grad_norm"][step], rel=1e-4)
    for i, name in enumerate(path["names"]):
        if name.endswith(ZERO_GRADIENT):
            continue  # AdamW scales the noise of a zero gradient up to full steps
        for found, expected in ((model, path["final_abs_sum"]), (ema.module, path["ema_abs_sum"])):
            total = found.state_dict()[str(name)].double().abs().sum().item()
            assert total == pytest.approx(expected[i], rel=1e-4, abs=1e-5), name
