"""Optical flow of a video, computed once for each pair of successive images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from libs.core.extras import need, need_torchvision

from .weights import sha256

AT_ONCE = 8  # pairs that go through RAFT together
MULTIPLE, SMALLEST = 8, 128  # of RAFT's pictures
METHODS = ("raft", "tvl1", "dis")


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A method.

    Attributes:
        name: "raft", "tvl1" or "dis".
        weights: SHA-256 of RAFT's weight file, or "random SEED"; None for the others.
        size: height and width at which flow is computed.
        between: images (N + 1, H, W, 3) uint8 and the network -> flow (N, 2, H, W) float32 from each to the next, in
            pixels, to the right and down.
        network: RAFT.
    """

    name: str
    weights: str | None
    size: tuple[int, int]
    between: Callable[[np.ndarray, nn.Module | None], Tensor]
    network: nn.Module | None = None

    def __str__(self) -> str:
        return self.name if self.weights is None else f"{self.name} {self.weights}"

    def on(self, device: str) -> Flow:
        """The same on a device."""
        return self if self.network is None else replace(self, network=self.network.to(device))

    def __call__(self, images: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Each image of a video, (H, W, 3) uint8, with the flow from it to the next, (2, *size) float32. The last image
        has the flow of the one before it, or zeros if it is the only one."""
        images = iter(images)
        group = list(islice(images, 1))
        flow = torch.zeros(1, 2, *self.size)
        while new := list(islice(images, AT_ONCE)):
            group += new
            with torch.no_grad():
                flow = self.between(np.stack([resized(image, self.size) for image in group]), self.network)
            yield from zip(group[:-1], flow, strict=True)
            group = group[-1:]
        for image in group:
            yield image, flow[-1]


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image (H, W, 3) uint8 at another size, whatever its shape."""
    if image.shape[:2] == size:
        return image
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    x = F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)[0]
    return x.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def make_flow(name: str, *, size: tuple[int, int], seed: int | None = None) -> Flow:
    """A method of METHODS.

    Args:
        seed: random weights of RAFT, for tests; None: torchvision's, which it downloads.

    Raises:
        ValueError: unknown method.
        MissingExtraError: a package is not installed.
    """
    if name not in METHODS:
        raise ValueError(f"flow '{name}' is not one of {list(METHODS)}")
    if name == "raft":
        module = need_torchvision("torchvision.models.optical_flow", what="flow raft")
        own = module.Raft_Large_Weights.DEFAULT
        file = Path(torch.hub.get_dir()) / "checkpoints" / own.url.rpartition("/")[2]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0 if seed is None else seed)
            try:
                network = module.raft_large(weights=own if seed is None else None).eval()
            except URLError as error:
                raise ValueError(
                    f"flow raft: its weights could not be downloaded ({error.reason}): put {own.url} at {file}, "
                    "or take --flow dis or tvl1"
                ) from None
        weights = sha256(file) if seed is None else f"random {seed}"
        return Flow(name=name, weights=weights, size=size, between=raft, network=network)
    cv2 = need("cv2", extra="flow", what=f"flow {name}")
    if name == "dis":
        method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    elif hasattr(cv2, "optflow"):
        method = cv2.optflow.DualTVL1OpticalFlow_create()
    else:
        raise ValueError(
            "flow tvl1 needs OpenCV with its contributed modules: pip uninstall opencv-python opencv-python-headless; "
            "pip install 'actionformer-nt[flow]'"
        )

    def between(images: np.ndarray, _: nn.Module | None) -> Tensor:
        grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
        flows = [method.calc(a, b, None) for a, b in pairwise(grey)]
        return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2)

    return Flow(name=name, weights=None, size=size, between=between)


def raft(images: np.ndarray, network: nn.Module | None) -> Tensor:
    """Flow by RAFT, whose pictures are multiples of 8 pixels: the borders of others are repeated."""
    assert network is not None
    device = next(network.parameters()).device
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(device).float() / 127.5 - 1
    height, width = x.shape[2:]
    down, right = (max(-(-side // MULTIPLE) * MULTIPLE, SMALLEST) - side for side in (height, width))
    x = F.pad(x, (0, right, 0, down), mode="replicate")
    found: Tensor = network(x[:-1], x[1:])[-1]
    return found[:, :, :height, :width].cpu()
