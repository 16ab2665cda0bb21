"""Presets: weights, transforms, and torchvision's networks against torchvision itself."""

import hashlib
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from libs.core import extras
from libs.extraction import torchvision_networks
from libs.extraction.i3d import I3D
from libs.extraction.i3d_streams import flow_frame, i3d_frame
from libs.extraction.presets import make_extractor
from libs.extraction.weights import load_weights


def image(height=60, width=90, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def i3d_file(tmp_path_factory):
    """A weight file as the public ones are: without the counters of the batch normalisations."""
    torch.manual_seed(5)
    state = {name: value for name, value in I3D().state_dict().items() if "num_batches" not in name}
    path = tmp_path_factory.mktemp("weights") / "rgb.pt"
    torch.save(state, path)
    return path


def test_weights_are_those_of_the_file(i3d_file, tmp_path):
    extractor = make_extractor("i3d-rgb", weights=i3d_file)
    state = torch.load(i3d_file, weights_only=True)
    for name, value in extractor.network.state_dict().items():
        assert "num_batches" in name or name.startswith("logits") or torch.equal(value, state[name])
    assert extractor.weights == hashlib.sha256(i3d_file.read_bytes()).hexdigest()
    assert (extractor.window, extractor.stride, extractor.channels) == (16, 4, 1024)
    other = {name: value for name, value in state.items() if not name.startswith("logits")}
    torch.save(other | {"logits.conv3d.weight": torch.zeros(157, 1024, 1, 1, 1)}, tmp_path / "charades.pt")
    assert make_extractor("i3d-rgb", weights=tmp_path / "charades.pt").channels == 1024  # of 157 classes
    wrapped = tmp_path / "wrapped.pt"
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, wrapped)
    network = I3D()
    load_weights(network, wrapped)
    assert torch.equal(network.state_dict()["Mixed_5c.b0.conv3d.weight"], state["Mixed_5c.b0.conv3d.weight"])


def test_weights_that_do_not_fit(i3d_file, tmp_path):
    state = torch.load(i3d_file, weights_only=True)
    del state["Mixed_5c.b0.conv3d.weight"]
    state |= {"fc.weight": torch.zeros(1), "Conv3d_1a_7x7.conv3d.weight": torch.zeros(64, 2, 7, 7, 7)}
    files = {"other.pt": state, "list.pt": [1, 2], "numbers.pt": {"a": 1}}
    for name, content in files.items():
        torch.save(content, tmp_path / name)
    (tmp_path / "text.pt").write_text("weights")
    for name, words in (
        ("other.pt", ["missing: Mixed_5c.b0", "not of the network: fc.weight", "of another shape: Conv3d_1a_7x7"]),
        ("list.pt", ["no state dict"]), ("numbers.pt", ["no state dict"]), ("text.pt", ["text.pt: no weights"]),
    ):  # fmt: skip
        with pytest.raises(ValueError) as error:
            make_extractor("i3d-rgb", weights=tmp_path / name)
        assert all(word in str(error.value) for word in words)
    with pytest.raises(FileNotFoundError, match="weights not found"):
        make_extractor("i3d-rgb", weights=tmp_path / "none.pt")


def test_what_a_preset_cannot_do(torchvision):
    for arguments, word in (
        ({"preset": "i3d"}, "not one of"), ({"preset": "i3d-rgb"}, "needs a weight file"),
        ({"preset": "i3d-rgb", "seed": 0, "spatial": "crop"}, "spatial 'crop'"),
        ({"preset": "i3d-rgb", "seed": 0, "weights": "a.pt"}, "exclude each other"),
        ({"preset": "i3d-rgb", "seed": 0, "window": 8}, "at least 9 x 193 x 193"),
        ({"preset": "s3d", "seed": 0, "window": 2}, "preset s3d cannot take clips of 2 frames"),
        ({"preset": "s3d", "seed": 0, "spatial": "center"}, "spatial center: preset s3d has no choice of it"),
        ({"preset": "i3d-rgb", "seed": 0, "flow": "dis"}, "flow dis: preset i3d-rgb has no choice of it"),
        ({"preset": "i3d-rgb-flow", "seed": 0, "flow": "lk"}, "flow 'lk' is not one of"),
        ({"preset": "i3d-rgb-flow", "seed": 0, "flow_weights": "a.pt"}, "exclude each other"),
        ({"preset": "tsp"}, "preset tsp needs a weight file"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=word):
            make_extractor(**arguments)


def test_frames_of_i3d():
    picture = image()
    x = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    whole = F.interpolate(x, (224, 224), mode="bilinear", antialias=True)[0] / 127.5 - 1
    torch.testing.assert_close(i3d_frame(picture, "resize"), whole)
    wide = F.interpolate(x, (256, 340), mode="bilinear", antialias=True)[0] / 127.5 - 1
    torch.testing.assert_close(i3d_frame(picture, "center"), wide[:, 16:240, 58:282])
    crops = i3d_frame(picture, "tencrop")
    assert crops.shape == (10, 3, 224, 224) and torch.equal(crops[5:], crops[:5].flip(-1))
    torch.testing.assert_close(crops[4], wide[:, 32:, 116:])
    torch.testing.assert_close(crops[0], i3d_frame(picture, "center"))


def test_frames_of_flow():
    """8 bits from -20 to 20 pixels; the mirror image of a motion to the right is one to the left."""
    rng = np.random.default_rng(0)
    flow = torch.from_numpy(rng.normal(0, 12, (2, 256, 340)).astype(np.float32))
    grey = np.rint((np.clip(flow.double().numpy(), -20, 20) + 20) / 40 * 255)  # as in a picture file
    middle = flow_frame(flow, "center")
    expected = torch.from_numpy(grey)[:, 16:240, 58:282] / 127.5 - 1
    assert ((middle - expected).abs() > 1e-6).double().mean() < 1e-3, "but for values between two levels"
    torch.testing.assert_close(middle, expected.float(), rtol=0, atol=1 / 127.5 + 1e-6)
    assert flow_frame(flow, "resize").shape == (2, 224, 224)
    crops = flow_frame(flow, "tencrop")
    assert crops.shape == (10, 2, 224, 224) and torch.equal(crops[0], middle)
    assert torch.equal(crops[5:, 0], -crops[:5, 0].flip(-1)) and torch.equal(crops[5:, 1], crops[:5, 1].flip(-1))


def test_two_streams_are_rgb_then_flow(i3d_file, tmp_path, torchvision, monkeypatch):
    """Each stream by its own weight file, on its own channels."""
    torch.manual_seed(6)
    flow_network = I3D(2).eval()
    torch.save(flow_network.state_dict(), tmp_path / "flow.pt")
    with pytest.raises(ValueError, match=r"such as flow_imagenet\.pt of .* give --flow-weights FILE"):
        make_extractor("i3d-rgb-flow", weights=i3d_file, flow="dis")
    extractor = make_extractor("i3d-rgb-flow", weights=i3d_file, flow_weights=tmp_path / "flow.pt", flow="dis")
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (i3d_file, tmp_path / "flow.pt")]
    assert extractor.weights == " ".join(digests) and extractor.channels == 2048 and str(extractor.flow) == "dis"
    video = [image(seed=k) for k in range(9)]
    frames = torch.stack(list(extractor.frames(video)))
    assert frames.shape == (9, 5, 224, 224)
    torch.testing.assert_close(frames[:, :3], torch.stack([i3d_frame(picture, "resize") for picture in video]))
    found = extractor(frames[None])
    rgb = make_extractor("i3d-rgb", weights=i3d_file)
    torch.testing.assert_close(found[:, :1024], rgb(frames[None, :, :3]))
    with torch.no_grad():
        torch.testing.assert_close(found[:, 1024:], flow_network(frames[:, 3:].movedim(0, 1)[None]))


def test_crops_are_averaged():
    extractor = make_extractor("i3d-rgb", seed=0, spatial="tencrop", window=9)
    clip = torch.stack([extractor.transform(image(seed=k)) for k in range(9)])  # (9, 10, 3, 224, 224)
    with torch.no_grad():
        each = extractor.network(clip.permute(1, 2, 0, 3, 4))
    found = extractor(clip[None])
    torch.testing.assert_close(found, each.mean(dim=0, keepdim=True), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "weights", "channels"), [
    ("r2plus1d_18", "R2Plus1D_18_Weights", 512), ("s3d", "S3D_Weights", 1024), ("mvit_v2_s", "MViT_V2_S_Weights", 768),
])  # fmt: skip
@torch.no_grad()
def test_torchvision_presets_are_torchvisions(torchvision, tmp_path, name, weights, channels):
    module = torchvision.models.video
    torch.manual_seed(0)
    model = getattr(module, name)().eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    extractor = make_extractor(name, weights=tmp_path / "weights.pt")
    video = [image(seed=k) for k in range(16)]
    found = extractor(torch.stack([extractor.transform(frame) for frame in video])[None])
    inputs = []
    last = {"r2plus1d_18": "fc", "s3d": "classifier", "mvit_v2_s": "head"}[name]
    getattr(model, last).register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    transform = getattr(module, weights).DEFAULT.transforms()
    model(transform(torch.from_numpy(np.stack(video)).permute(0, 3, 1, 2))[None])
    assert found.shape == (1, channels) == (1, extractor.channels)
    torch.testing.assert_close(found, inputs[0].flatten(2).mean(dim=2) if inputs[0].ndim > 2 else inputs[0])


def test_a_torchvision_of_another_torch_is_explained(monkeypatch):
    def broken(name, **_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(extras, "need", broken)
    with pytest.raises(ValueError, match="torchvision does not fit the installed torch") as error:
        make_extractor("s3d", seed=0)
    assert "\n" not in str(error.value)


@torch.no_grad()
def test_tsp_has_the_shapes_of_its_weights(torchvision, tmp_path):
    """R(2+1)D-34 as the published files have it: channels between the halves, and names within `features`."""
    network = torchvision_networks.r2plus1d_34(torchvision.models.video.resnet)
    state = network.state_dict()
    for name, shape in {
        "stem.0.weight": (45, 3, 1, 7, 7),
        "layer1.2.conv2.0.3.weight": (64, 144, 3, 1, 1),
        "layer2.0.conv1.0.0.weight": (230, 64, 1, 3, 3),
        "layer2.0.conv2.0.0.weight": (288, 128, 1, 3, 3),
        "layer3.0.conv2.0.0.weight": (576, 256, 1, 3, 3),
        "layer3.5.conv2.0.0.weight": (576, 256, 1, 3, 3),
        "layer4.0.conv1.0.0.weight": (921, 256, 1, 3, 3),
        "layer4.0.conv2.0.3.weight": (512, 1152, 3, 1, 1),
    }.items():
        assert state[name].shape == shape, name
    assert {m.eps for m in network.modules() if isinstance(m, torch.nn.BatchNorm3d)} == {1e-3}
    heads = {"fc1.weight": torch.zeros(200, 512), "fc2.bias": torch.zeros(2)}
    own = {f"features.{name}": value for name, value in state.items() if not name.startswith("fc")}
    torch.save({"model": own | heads, "epoch": 5}, tmp_path / "tsp.pth")
    extractor = make_extractor("tsp", weights=tmp_path / "tsp.pth")
    assert (extractor.fps, extractor.stride, extractor.channels) == (15, 16, 512)
    clip = torch.stack([extractor.transform(image(seed=k)) for k in range(16)])
    assert clip.shape == (16, 3, 112, 112)
    network.fc = torch.nn.Identity()
    torch.testing.assert_close(extractor(clip[None]), network.eval()(clip.movedim(1, 0)[None]))


def test_frames_of_tsp():
    picture = image(128, 171)
    mean, std = np.array([0.43216, 0.394666, 0.37645]), np.array([0.22803, 0.22145, 0.216989])
    expected = ((picture / 255 - mean) / std)[8:120, 30:142].transpose(2, 0, 1)
    np.testing.assert_allclose(torchvision_networks.tsp_frame(picture).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_weights_that_cannot_be_downloaded(torchvision, monkeypatch, tmp_path):
    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(ValueError, match=r"preset s3d: its weights could not be downloaded \(no route to host\)"):
        make_extractor("s3d")
