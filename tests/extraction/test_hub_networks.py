"""Presets timm:NAME and hf:ID against the libraries themselves, with small networks of random weights."""

import hashlib
import sys

import numpy as np
import pytest
import torch

from libs.core.extras import MissingExtraError
from libs.extraction.extractor import Wanted
from libs.extraction.hub_networks import hf_preset, timm_preset
from libs.extraction.presets import make_extractor
from libs.extraction.weights import state_digest

SMALL = {"image_size": 32, "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SIZES = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}


def build(name, weights=None, **options):
    """An extractor of random weights of a seed, or of those of a file or a hub."""
    torch.manual_seed(options.get("seed") or 0)
    preset = {"timm": timm_preset, "hf": hf_preset}[name.partition(":")[0]]
    extractor = preset(Wanted(name, weights, **options))
    extractor.network.eval()
    return extractor


def video(frames=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, 60, 90, 3), dtype=np.uint8)


def features(extractor, images):
    """(1, C) of one clip."""
    return extractor(torch.stack([extractor.transform(image) for image in images])[None])


@pytest.fixture
def timm(torchvision):
    return pytest.importorskip("timm")


@pytest.fixture
def transformers(torchvision):
    return pytest.importorskip("transformers")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """The hub refuses, and nothing of it is at hand."""
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def timm_features(timm, model, images):
    """Of each image, by timm alone."""
    from PIL import Image

    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.no_grad():
        x = model.forward_features(torch.stack([transform(Image.fromarray(image)) for image in images]))
        return model.forward_head(x, pre_logits=True)


@pytest.mark.parametrize(("name", "channels"), [
    ("resnet10t", 512), ("test_vit", 64),
    ("mobilenetv3_small_050", 1024),  # 288 before its head
])  # fmt: skip
def test_timm_presets_are_timms(timm, tmp_path, name, channels):
    torch.manual_seed(3)
    model = timm.create_model(name).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    extractor = build(f"timm:{name}", tmp_path / "weights.pt")
    assert (extractor.window, extractor.stride, extractor.channels) == (1, 1, channels)
    assert extractor.weights == hashlib.sha256((tmp_path / "weights.pt").read_bytes()).hexdigest()
    images = video(3)
    each = timm_features(timm, model, images)
    torch.testing.assert_close(features(extractor, images[:1]), each[:1])
    torch.testing.assert_close(features(extractor, images), each.mean(dim=0, keepdim=True))


def test_files_of_timm_weights(timm, tmp_path):
    """Of safetensors, with another classifier, with none, within an entry, without counters."""
    from safetensors.torch import save_file

    model = timm.create_model("densenet121", num_classes=7).eval()  # all its names begin "features."
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    state = {f"module.{name}": value for name, value in model.state_dict().items() if "num_batches" not in name}
    bare = {name: value for name, value in state.items() if "classifier" not in name}
    torch.save({"state_dict": bare}, tmp_path / "bare.pt")
    image = video(1)
    expected = timm_features(timm, model, image)
    for file in ("model.safetensors", "bare.pt"):
        torch.testing.assert_close(features(build("timm:densenet121", tmp_path / file), image), expected)


def test_timm_weights_that_do_not_fit(timm, tmp_path):
    state = timm.create_model("test_vit").state_dict()
    wrong = {name: value for name, value in state.items() if name != "norm.bias"}
    torch.save(wrong | {"more": torch.zeros(1), "norm.weight": torch.zeros(3)}, tmp_path / "wrong.pt")
    torch.save([1], tmp_path / "list.pt")
    (tmp_path / "text.safetensors").write_text("weights")
    for file, words in (
        ("wrong.pt", ["missing: norm.bias", "not of the network: more", "of another shape: norm.weight"]),
        ("list.pt", ["no state dict"]), ("text.safetensors", ["text.safetensors: no weights"]),
    ):  # fmt: skip
        with pytest.raises(ValueError) as error:
            build("timm:test_vit", tmp_path / file)
        assert all(word in str(error.value) for word in words)
    with pytest.raises(FileNotFoundError, match="weights not found"):
        build("timm:test_vit", tmp_path / "none.pt")


def test_weights_that_timm_loads_itself(timm, tmp_path, offline):
    """The digest is that of the features' weights, of whatever file they came from."""
    model = timm.create_model("test_vit").eval()
    timm.models.save_for_hf(model, tmp_path / "folder", safe_serialization=True)
    extractor = build(f"timm:local-dir:{tmp_path / 'folder'}")
    torch.testing.assert_close(features(extractor, video(1)), timm_features(timm, model, video(1)))
    model.reset_classifier(0)
    assert extractor.weights == state_digest(model.state_dict())
    with pytest.raises(ValueError, match=r"weights could not be downloaded: .*; give --weights FILE") as error:
        build("timm:resnet10t")
    assert "\n" not in str(error.value)


def test_names_that_timm_does_not_have(timm):
    for name, near in (("resnet10", "resnet10t"), ("resnet10t.mine", "resnet10t.c3_in1k"), ("dinov2", "14_dinov2")):
        with pytest.raises(ValueError, match=rf"timm has no model '{name}'; near it are .*{near}"):
            build(f"timm:{name}", seed=0)


def test_digest():
    state = {"b": torch.ones(2, 3), "a": torch.tensor(1), "c": torch.zeros(2, dtype=torch.bfloat16)}
    text = b"a torch.int64 ()\n" + np.int64(1).tobytes() + b"b torch.float32 (2, 3)\n" + np.ones(6, "f4").tobytes()
    assert state_digest(state) == hashlib.sha256(text + b"c torch.bfloat16 (2,)\n" + bytes(4)).hexdigest()
    assert state_digest(state, but=("c",)) == hashlib.sha256(text).hexdigest()


def saved(transformers, folder, family, **options):
    """A video model of random weights, written to a folder with its processor."""
    torch.manual_seed(7)
    model = getattr(transformers, f"{family}Model")(getattr(transformers, f"{family}Config")(**options)).eval()
    processor = getattr(transformers, f"{family}VideoProcessor")(**SIZES)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


@pytest.mark.parametrize(("family", "options", "frames"), [
    ("VideoMAE", {**SMALL, "intermediate_size": 64}, 16),
    ("Timesformer", {**SMALL, "intermediate_size": 64, "num_frames": 4}, 4),
    ("VJEPA2", {"crop_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2,
                "frames_per_clip": 8, "pred_hidden_size": 16, "pred_num_hidden_layers": 1,
                "pred_num_attention_heads": 2}, 8),
])  # fmt: skip
def test_hf_presets_are_transformers(transformers, tmp_path, monkeypatch, family, options, frames):
    """Frame by frame as the processor's whole clip; without the predictor."""
    model, processor = saved(transformers, tmp_path, family, **options)
    clip = processor(list(video(frames)), return_tensors="pt")
    with torch.no_grad():
        expected = model(**clip).last_hidden_state.mean(dim=1)
    extractor = build(f"hf:{tmp_path}")
    assert (extractor.window, extractor.stride, extractor.channels) == (frames, 4, 32)
    (pixels,) = clip.values()
    torch.testing.assert_close(torch.stack([extractor.transform(image) for image in video(frames)]), pixels[0])
    if family == "VJEPA2":
        monkeypatch.delattr(extractor.network.network, "predictor")
    torch.testing.assert_close(features(extractor, video(frames)), expected)
    assert extractor.weights == build(f"hf:{tmp_path}").weights != "random 0"


def test_a_processor_of_images(transformers, tmp_path, monkeypatch):
    """As older folders, and older versions of transformers, have."""
    _, processor = saved(transformers, tmp_path, "VideoMAE", **SMALL)
    (tmp_path / "video_preprocessor_config.json").unlink()
    transformers.VideoMAEImageProcessor(**SIZES).save_pretrained(tmp_path)
    pixels = processor(list(video(1)), return_tensors="pt")["pixel_values"][0, 0]
    torch.testing.assert_close(build(f"hf:{tmp_path}").transform(video(1)[0]), pixels)

    def unknown(*_, **__):
        raise ValueError("Unrecognized video processor")

    monkeypatch.setattr(transformers.AutoVideoProcessor, "from_pretrained", unknown)
    torch.testing.assert_close(build(f"hf:{tmp_path}").transform(video(1)[0]), pixels)


def test_weights_of_a_task(transformers, tmp_path):
    """Those of the encoder within a classifier, computed in 32 bits though stored in 16."""
    saved(transformers, tmp_path, "VideoMAE", **SMALL)
    config = transformers.VideoMAEConfig(**SMALL)
    classifier = transformers.VideoMAEForVideoClassification(config).to(torch.bfloat16)
    classifier.save_pretrained(tmp_path)
    network = build(f"hf:{tmp_path}").network.network
    assert network.dtype == torch.float32
    for name, value in classifier.videomae.state_dict().items():
        assert torch.equal(network.state_dict()[name], value.float())
    part = {name: value for name, value in classifier.state_dict().items() if "layernorm_before" not in name}
    classifier.save_pretrained(tmp_path, state_dict=part)
    with pytest.raises(ValueError, match=r"weights are missing: encoder\.layer\.0\.layernorm_before"):
        build(f"hf:{tmp_path}")


def test_what_hf_cannot_load(transformers, tmp_path, offline):
    saved(transformers, tmp_path / "clips", "VideoMAE", **SMALL)
    transformers.ViTModel(transformers.ViTConfig(**SMALL)).save_pretrained(tmp_path / "images")
    transformers.ViTImageProcessor().save_pretrained(tmp_path / "images")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "config.json").write_text('{"model_type": "my", "auto_map": {"AutoConfig": "my.Config"}}')
    with pytest.raises(ValueError, match="takes no other file"):
        build(f"hf:{tmp_path / 'clips'}", "weights.pt")
    (tmp_path / "clips" / "model.safetensors").unlink()
    for name, words in (
        ("nobody/nothing", "its files could not be downloaded: .*; ID is"), (tmp_path / "clips", "lacks a file: "),
        (tmp_path / "images", "ViTModel is no encoder of videos"), (tmp_path / "code", "custom code"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words) as error:
            build(f"hf:{name}")
        assert str(error.value).startswith(f"preset hf:{name}: ") and "\n" not in str(error.value)
    assert build(f"hf:{tmp_path / 'clips'}", seed=1).weights == "random 1"  # no weights, but a configuration


@pytest.mark.parametrize("package", ["timm", "transformers"])
def test_a_package_that_is_missing(torchvision, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"package {package}: pip install 'actionformer-nt\[hub\]'"):
        build("timm:resnet10t" if package == "timm" else "hf:MCG-NJU/videomae-base", seed=0)


def test_presets_by_prefix(timm, transformers, tmp_path):
    """Through make_extractor: options, and random weights that a seed reproduces."""
    saved(transformers, tmp_path, "VideoMAE", **SMALL)
    for name, channels in (("timm:test_vit", 64), (f"hf:{tmp_path}", 32)):
        extractor, same, other = (make_extractor(name, seed=seed, stride=2) for seed in (4, 4, 5))
        assert (extractor.name, extractor.stride, extractor.channels) == (name, 2, channels)
        assert (extractor.weights, extractor.spatial) == ("random 4", "preset")
        images = video(extractor.window)
        assert torch.equal(features(extractor, images), features(same, images))
        assert not torch.allclose(features(extractor, images), features(other, images))
        with pytest.raises(ValueError, match=r"spatial crop: preset .* has no choice of it"):
            make_extractor(name, seed=0, spatial="crop")
    assert make_extractor("timm:test_vit", seed=0, window=3).window == 3
    with pytest.raises(ValueError, match="cannot take clips of 4 frames"):
        make_extractor(f"hf:{tmp_path}", seed=0, window=4)
