import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from actionformer_nt.spot.meta_arch import Spot
from actionformer_nt.spot.pretext import pretext_losses
from actionformer_nt.spot.pseudo_masks import teacher_labels
from libs.core import load_config, resolve_config
from libs.datasets.annotations import Event, Video
from libs.evaluation import run as evaluation
from libs.evaluation.average_precision import evaluate_detections, ground_truth
from libs.evaluation.detections import concatenate, make_detections
from libs.modeling import make_meta_arch
from libs.training import run as engine

LOSSES = {"cls_loss", "mask_loss", "refine_loss", "recon_loss", "final_loss"}


def toy_videos(spot, count=4, steps=32):
    """Class c shows as channel c being high."""
    videos = []
    for i in range(count):
        video = spot.make_video(
            [(3.5, 11.5), (17.5 + i, 25.5)], [i % 3, (i + 1) % 3], steps=steps, name=f"v{i}", seed=i
        )
        video["feats"] *= 0.1
        for (start, end), label in zip(video["segments"].round().int().tolist(), video["labels"].tolist(), strict=True):
            video["feats"][label, start:end] += 1.0
        videos.append(video)
    return videos


def test_training_gives_losses_and_gradients(spot):
    model = spot.make_spot()
    losses = model(toy_videos(spot, 3))
    assert set(losses) == LOSSES
    losses["final_loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without and all(name.startswith("net.order_head") for name in without)
    assert isinstance(model.loss_normalizer, float)


def test_the_total_is_the_weighted_sum(spot):
    weights = {"class_weight": 2.0, "mask_weight": 3.0, "refine_weight": 0.5, "recon_weight": 0.0}
    losses = spot.make_spot(loss=weights)(toy_videos(spot))
    expected = 2 * losses["cls_loss"] + 3 * losses["mask_loss"] + 0.5 * losses["refine_loss"]
    torch.testing.assert_close(losses["final_loss"], expected)


def test_a_batch_without_any_event_trains(spot):
    videos = [spot.make_video(name="a"), {**spot.make_video(steps=5), "segments": None, "labels": None}]
    losses = spot.make_spot()(videos)
    losses["final_loss"].backward()
    assert torch.isfinite(losses["final_loss"])


def test_detections_look_like_actionformers(spot):
    model = spot.make_spot(test={"max_seg_num": 20}).eval()
    videos = [spot.make_video(steps=20, name="short"), spot.make_video(steps=77, name="long")]
    found = model(videos)
    assert [set(d) for d in found] == [{"video_id", "segments", "scores", "labels"}] * 2
    for d, video in zip(found, videos, strict=True):
        assert d["video_id"] == video["video_id"] and len(d["segments"]) == len(d["scores"]) == len(d["labels"]) > 0
        assert d["segments"].min() >= 0 and d["segments"].max() <= video["duration"]
        assert (d["scores"].diff() <= 0).all()


@pytest.mark.two_paths
def test_videos_together_give_what_each_gives_alone(in_64_bits, spot):
    model = spot.make_spot().eval()
    videos = [spot.make_video(steps=20, name="short"), spot.make_video(steps=77, name="long")]
    for together, video in zip(model(videos), videos, strict=True):
        (alone,) = model([video])
        assert len(alone["scores"]) and torch.equal(alone["labels"], together["labels"])
        for name in ("segments", "scores"):
            torch.testing.assert_close(alone[name], together[name], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("key", "value"), [("segments", torch.tensor([[0.0, 31.0]])), ("labels", torch.tensor([9]))])
def test_6_what_unlabeled_videos_give_does_not_depend_on_their_labels(spot, key, value):
    model = spot.make_spot(dropout=0.0, attn_dropout=0.0)
    found = []
    for video in (toy_videos(spot, 1)[0], {**toy_videos(spot, 1)[0], key: value}):
        torch.manual_seed(0)  # dropout of the order head
        (batch,) = model.batches([video])
        output = model.network(batch.feats, batch.mask)
        generator = torch.Generator().manual_seed(0)
        pretext = pretext_losses(
            model.net, batch.feats, batch.mask[:, 0], options=model.options.pretext, generator=generator
        )
        labels = teacher_labels(output, model.options.pseudo)
        found.append([*labels, *pretext.values(), *model.consistency_losses(output, batch.feats).values()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_13_a_toy_set_is_learned_by_heart(spot):
    model = spot.make_spot(embd_dim=16, mask_dims=[32], dropout=0.0, attn_dropout=0.0)
    videos = toy_videos(spot)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(300):
        optimizer.zero_grad()
        model(videos)["final_loss"].backward()
        optimizer.step()
    rows = [
        make_detections([d["video_id"]] * len(d["scores"]), *d["segments"].T, d["labels"], d["scores"])
        for d in model.eval()(videos)
    ]
    seconds = [
        [Event(float(s) + 0.5, float(e) + 0.5, int(y)) for (s, e), y in zip(v["segments"], v["labels"], strict=True)]
        for v in videos
    ]
    truth = ground_truth([Video(v["video_id"], "t", 32.0, 1.0, tuple(e)) for v, e in zip(videos, seconds, strict=True)])
    result = evaluate_detections(truth, concatenate(rows), tiou=np.linspace(0.3, 0.7, 5))
    assert result.average_mAP > 0.95


@pytest.mark.parametrize("field", ["logits", "masks"])
def test_an_output_that_is_not_finite_names_the_video(spot, field):
    model = spot.make_spot().eval()
    output = spot.random_output(1, 32, 3, grad=False)
    getattr(output, field)[0, 3, 2] = torch.nan
    with pytest.raises(ValueError, match="video 'v': the network's output is not finite"):
        model.candidates(output, 0, spot.make_video())


def test_mistakes_are_named(spot):
    model = spot.make_spot()
    with pytest.raises(ValueError, match=r"video 'v': label ids \[7\] outside \[0, num_classes=3\)"):
        model([spot.make_video([(1, 3)], [7])])
    with pytest.raises(ValueError, match=r"video 'v': features must be \(input_dim=6, T > 0\), found \(5, 32\)"):
        model([spot.make_video(channels=5)])


def test_classes_without_labels_start_at_almost_no_probability(spot):
    train = {**spot.make_spot().train_cfg, "head_empty_cls": [1]}
    model = Spot(input_dim=6, num_classes=3, max_seq_len=32, train_cfg=train, test_cfg={}, n_head=2)
    (batch,) = model.batches([spot.make_video()])
    assert model.network(batch.feats, batch.mask).logits.softmax(-1)[..., 1].max() < 1e-4


# ----------------------------------------------------------------------------------------------- as a whole


def write(make_data, model, **sections):
    path = make_data(model_name="SPOT", plugins=["actionformer_nt"], **sections)
    raw = yaml.safe_load(path.read_text())
    raw["model"] = model
    path.write_text(yaml.safe_dump(raw))
    return path


def test_the_registry_builds_it_from_a_configuration(make_data):
    config = load_config(write(make_data, {"n_head": 2, "loss": {"focal_gamma": 2}}))
    model = make_meta_arch(config["model_name"], **config["model"])
    assert isinstance(model, Spot) and model.options.loss.focal_gamma == 2 and model.num_steps == 64
    assert config == resolve_config(config)  # a resolved configuration resolves to itself


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"n_heads": 2}, "did you mean 'n_head'"),
        ({"embd_dim": 9, "n_head": 2}, "embd_dim 9 must be divisible by n_head 2"),
        ({"embd_kernel_size": 2}, "embd_kernel_size 2 must be odd"),
        ({"loss": {"refine_radii": [4, 2]}}, "expected near < far"),
        ({"decode": {"mask_thresholds": [1.0]}}, "mask_thresholds"),
    ],
)
def test_a_wrong_model_section_is_refused(make_data, model, message):
    with pytest.raises(ValueError, match=message):
        load_config(write(make_data, model))


def test_train_resume_and_evaluate_with_the_engine(make_data, tmp_path):
    path = write(
        make_data, {"n_head": 2, "embd_dim": 8, "mask_dims": [8]}, dataset={"max_seq_len": 48},
        train_cfg={"numbered_checkpoints": "full"},
    )  # fmt: skip
    whole = engine.train(load_config(path), tmp_path / "whole", progress=False, ckpt_freq=1)
    half = engine.train(load_config(path), tmp_path / "half", progress=False, ckpt_freq=1)
    first = half / "epoch_001.pth.tar"
    engine.train(load_config(path), tmp_path / "rest", resume=first, progress=False)
    a, b = (torch.load(f / "last.pth.tar", weights_only=True)["state_dict"] for f in (whole, tmp_path / "rest"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    found = evaluation.evaluate(load_config(path), whole, weights="raw", progress=False)
    assert 0 <= found.result.average_mAP <= 1 and found.result.counts["predictions"] > 0


def test_importing_the_plug_in_does_not_load_torch():
    code = "import sys, actionformer_nt; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
