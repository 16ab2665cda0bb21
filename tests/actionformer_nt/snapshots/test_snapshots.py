"""What a run keeps for its report: it changes nothing, and says what the run did."""

import json

import numpy as np
import pytest
import torch

from actionformer_nt import run as semi_run
from actionformer_nt.methods.label_space import partition
from actionformer_nt.self_training.pyramid import PyramidSelfTraining
from actionformer_nt.snapshots import embeddings
from actionformer_nt.snapshots import write as samples
from actionformer_nt.spot.meta_arch import Spot
from actionformer_nt.spot.self_training import SpotSelfTraining
from libs.core import load_config, schema
from libs.datasets.annotations import read_annotations
from libs.evaluation.detections import read_results
from libs.modeling import make_meta_arch
from libs.training.checkpoint import load_checkpoint

ARCHITECTURES = ("LocPointTransformer", "SPOT")
MOMENTS = [4, 6, 8]  # of 4 iterations of burn-in and 4 of self-training, `moments: 2`


def run(path, folder, **semi):
    config = load_config(path)
    for key, value in semi.items():
        config["semi_cfg"][key] = value
    return semi_run.train(config, folder, progress=False)


def files(folder):
    return {p.name: p.read_bytes() for p in sorted((folder / "samples").glob("*"))}


def weights(folder):
    state = load_checkpoint(folder / "last.pth.tar")
    return {(k, n): v for k in ("state_dict", "state_dict_ema") for n, v in state[k].items()}, state["rng_state"]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("source", ["online", "refresh"])
def test_training_is_bit_identical_with_and_without(make_semi, tmp_path, arch, source):
    pseudo = {"source": source, "refresh_every": 3} | ({} if arch == "SPOT" else {"select": "per_class"})
    path = make_semi(arch=arch, pseudo=pseudo, method="complementary", strong={"flip": 0.5})
    on = run(path, tmp_path / "on", samples={"videos": 6, "moments": 2}, log_hidden=True)
    off = run(path, tmp_path / "off", samples={"videos": 0, "moments": 2})
    assert not (off / "samples").exists()
    (a, rng_a), (b, rng_b) = weights(on), weights(off)
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) and torch.equal(rng_a, rng_b)


@pytest.mark.parametrize("arch", [*ARCHITECTURES, "dense"])
def test_what_is_written(make_semi, tmp_path, arch):
    pseudo = {"pseudo": {"partition": "dense", "background_logit": -4.0}} if arch == "dense" else {}
    path = make_semi(arch=arch, log_hidden=True, **pseudo)
    folder = run(path, tmp_path / "run", samples={"videos": 4, "moments": 2})
    assert sorted(files(folder)) == [
        "hidden_labels.json", *(f"iteration_{i:08d}.json" for i in MOMENTS), "predictions.json",
    ]  # fmt: skip
    hidden = read_annotations(folder / "samples/hidden_labels.json")
    ids = {video.id for video in hidden.videos}
    assert len(ids) == 4 and all(len(video.events) == 2 for video in hidden.videos)
    for iteration in MOMENTS:
        file = folder / f"samples/iteration_{iteration:08d}.json"
        content = json.loads(file.read_text())
        assert content["iteration"] == iteration and set(content["seen"]) == ids
        assert content["classes"] == ["class0", "class1"] + ["background"] * (arch in ("SPOT", "dense"))
        pseudo = read_results(file, {"class0": 0, "class1": 1})
        assert len(pseudo.label) > 0 and set(pseudo.video_id) <= ids
        for video, start, end in zip(pseudo.video_id, pseudo.t_start, pseudo.t_end, strict=True):
            low, high = content["seen"][video]["part"]
            assert 0 <= start < end <= 9.0 and 0 <= low < high <= 9.0
        assert content["distributions"]
        for row in content["distributions"]:
            probs = torch.tensor(row["probs"])
            assert float(probs.sum()) == pytest.approx(1.0, abs=1e-3) and len(row["parts"]) == len(probs)
            assert row["parts"].count("t") == 1 and -1 <= row["truth"] < len(probs)
            # the file has 5 digits of them, which can move a class only where it lies at a border
            assert float(probs[row["parts"].index("t")]) >= float(probs.max()) - 2e-5
            if len(probs) == 2:
                (positive,) = partition(probs[None], 0.85).positive
                assert ("p" in row["parts"]) == bool(positive.any()) or abs(probs.min() - 0.85 * probs.max()) < 1e-3
    found = read_results(folder / "samples/predictions.json", {"class0": 0, "class1": 1})
    assert set(found.video_id) <= ids


def test_without_permission_no_hidden_label_is_read(make_semi, tmp_path):
    """Breaking the hidden labels leaves every file as it is."""
    path = make_semi()
    whole = run(path, tmp_path / "whole", samples={"videos": 6, "moments": 2})
    assert "hidden_labels.json" not in files(whole)
    file = path.parent / "annotations.json"
    content = json.loads(file.read_text())
    labeled = set(json.loads((tmp_path / "semi_split.json").read_text())["orders"][0][:2])
    for video, entry in content["database"].items():
        if entry["subset"] == "training" and video not in labeled:
            entry["annotations"] = [{"segment": "broken"}]
    file.write_text(json.dumps(content))
    assert files(run(path, tmp_path / "broken", samples={"videos": 6, "moments": 2})) == files(whole)


def test_the_diagnostic_method_alone_shows_no_hidden_label(make_semi, tmp_path):
    config = load_config(make_semi(method="oracle_class", samples={"videos": 3, "moments": 1}))
    folder = semi_run.train(config, tmp_path / "run", progress=False, diagnostic=True)
    assert sorted(files(folder)) == ["iteration_00000004.json", "iteration_00000008.json", "predictions.json"]
    content = json.loads((folder / "samples/iteration_00000008.json").read_text())
    assert content["distributions"] and all(row["truth"] is None for row in content["distributions"])


def test_a_run_that_goes_on_writes_the_same(make_semi, tmp_path):
    path = make_semi(samples={"videos": 4, "moments": 2})
    whole = run(path, tmp_path / "whole")
    assert len(files(whole)) == 4
    shared = run(path, tmp_path / "shared", burn_in_checkpoint=str(whole / "burn_in.pth.tar"))
    assert files(shared) == files(whole)


def test_labeled_only_has_embeddings_alone(make_semi, tmp_path):
    path = make_semi(method="labeled_only")
    folder = run(path, tmp_path / "run")
    assert not (folder / "samples").exists()
    semi_run.evaluate(load_config(path), folder, progress=False)
    assert sorted(files(folder)) == ["embeddings.json"]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_embeddings(make_semi, tmp_path, arch):
    path = make_semi(arch=arch)
    folder = run(path, tmp_path / "run", samples={"videos": 0, "moments": 1})
    semi_run.evaluate(load_config(path), folder, progress=False)
    found = json.loads((folder / "samples/embeddings.json").read_text())
    assert found["labels"] == {"0": "class0", "1": "class1"}
    points = np.array(found["foreground"]["points"])
    assert set(points[:, 2]) == {-1, 0, 1}
    assert np.abs(points[:, :2].mean(axis=0)).max() < 1e-2  # centred
    assert 0 <= found["foreground"]["nearest"] <= 1
    assert {label for *_, label in found["classes"]["points"]} == {0, 1}


def test_moments():
    assert samples.moments(100, 10, 4) == {100, 102, 105, 108, 110}
    assert samples.moments(100, 0, 4) == set() and samples.moments(0, 1, 4) == {0, 1}
    assert samples.spread_out(3, 5) == [0, 1, 2] and samples.spread_out(10, 4) == [0, 2, 5, 7]


def test_principal_components_against_the_covariance():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 5)) * [5, 3, 1, 1, 0.5]
    labels, videos = rng.integers(-1, 3, 80), rng.integers(0, 4, 80)
    found = embeddings.embed(x, labels, videos)["foreground"]
    variance = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    np.testing.assert_allclose(found["explained"], variance[:2] / variance.sum(), atol=1e-4)
    points = np.array(found["points"])[:, :2]
    assert points[:, 0].std() == pytest.approx(1, abs=1e-2) and abs(points[:, 0] @ points[:, 1]) < 1
    hits = 0  # nearest other point of another video, in loops
    for i in range(80):
        nearest = min((j for j in range(80) if videos[j] != videos[i]), key=lambda j: np.linalg.norm(x[i] - x[j]))
        hits += (labels[i] == -1) == (labels[nearest] == -1)
    assert found["nearest"] == pytest.approx(hits / 80, abs=1e-4)


def test_of_overlapping_windows_each_step_is_there_once():
    """A video of 50 snippets in windows of 20: the features of each, as the window that has it first gives them."""
    torch.manual_seed(0)
    model = Spot(
        input_dim=4, num_classes=2, max_seq_len=20, train_cfg=schema.TrainSection().model_dump(),
        test_cfg=schema.TestSection().model_dump(), n_head=1, mask_dims=[4], embd_dim=4,
    ).eval()  # fmt: skip
    video = {"video_id": "v", "feats": torch.randn(4, 50)}
    feats, time = SpotSelfTraining.class_features(model, video)
    assert len(feats) == 50 and time.tolist() == list(range(50))
    with torch.no_grad():
        windows = [
            (w, row) for b in model.batches([video])
            for w, row in zip(b.windows, model.network(b.feats, b.mask)[2], strict=True)
        ]  # fmt: skip
    for step in range(50):
        start, row = next((w.start, row) for w, row in windows if w.start <= step < w.start + w.length)
        np.testing.assert_allclose(feats[step], row[step - start].numpy(), atol=1e-6)


def test_features_of_a_pyramid_give_its_logits(make_semi):
    """The last layer, applied to them by hand, away from the ends."""
    config = load_config(make_semi())
    torch.manual_seed(0)
    model = make_meta_arch(config["model_name"], **config["model"]).eval()
    video = {"video_id": "v", "feats": torch.randn(8, 50)}
    feats, time = PyramidSelfTraining.class_features(model, video)
    assert time.tolist() == list(range(50))
    with torch.no_grad():
        (batch,) = model.batches([video])
        logits = model.network(batch.feats, batch.mask, batch.lengths).logits[0][0, :50]
        conv = model.cls_head.cls_head.conv
        by_hand = torch.nn.functional.conv1d(torch.from_numpy(feats).T[None], conv.weight, conv.bias)[0].T
    np.testing.assert_allclose(by_hand.numpy(), logits[1:-1].numpy(), atol=1e-5)


def test_labels_of_points():
    segments, labels = np.array([[0.0, 9.0], [2.0, 3.0]]), np.array([4, 7])
    time = np.array([-1.0, 0.0, 2.5, 9.0, 9.5])
    assert embeddings.label_at(time, segments, labels).tolist() == [-1, 4, 7, 4, -1]
