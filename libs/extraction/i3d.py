"""I3D: Inception-v1 with convolutions inflated to three dimensions.

Source: Carreira and Zisserman, "Quo Vadis, Action Recognition?" (CVPR 2017), with the names of layers and weights of
the widely used PyTorch files `rgb_imagenet.pt` and `flow_imagenet.pt`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-3  # of the batch normalisations
WIDTH = 1024  # channels of the features
Size = tuple[int, int, int]  # time, height, width

# In order: a convolution (channels, kernel, stride), a maximum (kernel, stride), or the widths of an Inception block.
LAYERS: dict[str, tuple[int, int, int] | tuple[Size, Size] | list[int]] = {
    "Conv3d_1a_7x7": (64, 7, 2),
    "MaxPool3d_2a_3x3": ((1, 3, 3), (1, 2, 2)),
    "Conv3d_2b_1x1": (64, 1, 1),
    "Conv3d_2c_3x3": (192, 3, 1),
    "MaxPool3d_3a_3x3": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": [64, 96, 128, 16, 32, 32],
    "Mixed_3c": [128, 128, 192, 32, 96, 64],
    "MaxPool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
    "Mixed_4b": [192, 96, 208, 16, 48, 64],
    "Mixed_4c": [160, 112, 224, 24, 64, 64],
    "Mixed_4d": [128, 128, 256, 24, 64, 64],
    "Mixed_4e": [112, 144, 288, 32, 64, 64],
    "Mixed_4f": [256, 160, 320, 32, 128, 128],
    "MaxPool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
    "Mixed_5b": [256, 160, 320, 32, 128, 128],
    "Mixed_5c": [384, 192, 384, 48, 128, 128],
}


def pad_same(x: Tensor, kernel: Size, stride: Size) -> Tensor:
    """Pads (B, C, T, H, W) with zeros so that ceil(size / stride) outputs remain; of an odd number, the end has one
    more."""
    pads: list[int] = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


class Unit(nn.Module):
    """Convolution with "same" padding, batch normalisation, ReLU."""

    def __init__(self, channels: int, width: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(channels, width, self.kernel, self.stride, bias=False)
        self.bn = nn.BatchNorm3d(width, eps=EPS)
        nn.init.kaiming_normal_(self.conv3d.weight, nonlinearity="relu")  # random networks keep the size of values

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, width, T', H', W')."""
        return F.relu(self.bn(self.conv3d(pad_same(x, self.kernel, self.stride))))


class SamePool(nn.Module):
    """Maximum with "same" padding; inputs are not negative, so zeros do not change it."""

    def __init__(self, kernel: Size, stride: Size) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C, T', H', W')."""
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Inception(nn.Module):
    """Four branches side by side: 1; 1 and 3; 1 and 3; a maximum of 3 and 1 (kernels)."""

    def __init__(self, channels: int, widths: list[int]) -> None:
        super().__init__()
        self.b0 = Unit(channels, widths[0])
        self.b1a, self.b1b = Unit(channels, widths[1]), Unit(widths[1], widths[2], 3)
        self.b2a, self.b2b = Unit(channels, widths[3]), Unit(widths[3], widths[4], 3)
        self.b3a, self.b3b = SamePool((3, 3, 3), (1, 1, 1)), Unit(channels, widths[5])
        self.width = widths[0] + widths[2] + widths[4] + widths[5]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, `width`, T, H, W)."""
        branches = self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))
        return torch.cat(branches, dim=1)


class Head(nn.Module):
    """The class scores. Features do without it; it is there so that weight files fit."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(WIDTH, num_classes, 1)


class I3D(nn.Module):
    """Features of clips: the mean of the last Inception block over windows of 2 x 7 x 7.

    Args:
        in_channels: 3 for RGB, 2 for optical flow; values in [-1, 1].
        num_classes: of the weight file.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 400) -> None:
        super().__init__()
        channels = in_channels
        for name, layer in LAYERS.items():
            if isinstance(layer, list):
                block = Inception(channels, layer)
                self.add_module(name, block)
                channels = block.width
            elif isinstance(layer[0], tuple):
                self.add_module(name, SamePool(*layer))
            else:
                self.add_module(name, Unit(channels, *layer))
                channels = layer[0]
        self.logits = Head(num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, in_channels, T, H, W) -> features (B, 1024), the mean over the windows; one window for 16 x 224 x 224.

        Raises:
            ValueError: clips of fewer than 9 frames, or smaller than 193 pixels.
        """
        x = clips
        for name in LAYERS:
            x = getattr(self, name)(x)
        if x.shape[2] < 2 or min(x.shape[3:]) < 7:
            raise ValueError(f"I3D: clips of {tuple(clips.shape[2:])} are too small: at least 9 x 193 x 193 are needed")
        return F.avg_pool3d(x, (2, 7, 7), stride=1).mean(dim=(2, 3, 4))
