"""Optical flow: methods on pictures that move, and each pair of images once."""

import itertools
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from libs.core.extras import MissingExtraError
from libs.extraction.flow import AT_ONCE, Flow, make_flow, resized

SIZE = (256, 340)


def cloud(seed=0, size=SIZE):
    """A smooth random picture, (H, W, 3) uint8, that may be shifted around its borders."""
    noise = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, 3, *size)))
    smooth = F.avg_pool2d(F.pad(noise, (8, 8, 8, 8), mode="circular"), 9, stride=1)[:, :, 4:-4, 4:-4][0]
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return (255 * smooth).round().byte().permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", ["tvl1", "dis"])
def test_a_picture_that_moves(name):
    """Three pixels to the right and two up."""
    picture = cloud()
    moved = np.roll(picture, (-2, 3), axis=(0, 1))
    flow = make_flow(name, size=SIZE)
    (_, found), (_, last) = flow([picture, moved])
    assert found.shape == (2, *SIZE) and found.dtype == torch.float32 and torch.equal(found, last)
    inside = found[:, 20:-20, 20:-20]
    assert inside.mean(dim=(1, 2)).numpy() == pytest.approx([3, -2], abs=0.2)
    assert (inside - torch.tensor([3.0, -2.0])[:, None, None]).abs().median() < 0.2


def test_raft_is_torchvisions_whatever_the_size(torchvision):
    """Pictures whose sides are no multiples of 8 have their borders repeated."""
    flow = make_flow("raft", size=(130, 140), seed=4)
    assert str(flow) == "raft random 4"
    pictures = [cloud(seed, (130, 140)) for seed in range(3)]
    found = torch.stack([f for _, f in flow(pictures)])
    batch = torch.from_numpy(np.stack([np.pad(p, ((0, 6), (0, 4), (0, 0)), mode="edge") for p in pictures]))
    batch = batch.permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = flow.network(batch[:-1], batch[1:])[-1][:, :, :130, :140]
    torch.testing.assert_close(found[:2], expected)
    again = make_flow("raft", size=(130, 140), seed=4)
    assert all(torch.equal(a, b) for a, b in zip(again.network.parameters(), flow.network.parameters(), strict=True))


@pytest.mark.parametrize("count", [0, 1, 2, AT_ONCE, AT_ONCE + 1, 2 * AT_ONCE + 1, 30])
def test_each_pair_is_seen_once(count):
    """A method that tells the brightness of both images."""
    pairs = []

    def between(images, _):
        values = images[:, 0, 0, 0].astype(float)
        pairs.extend(itertools.pairwise(values))
        both = torch.from_numpy(np.stack([values[:-1], values[1:]], axis=1)).float()
        return both[:, :, None, None].expand(-1, 2, 4, 6)

    images = [np.full((4, 6, 3), k, np.uint8) for k in range(count)]
    found = list(Flow(name="told", weights=None, size=(4, 6), between=between)(iter(images)))
    assert pairs == [(k, k + 1) for k in range(count - 1)]
    assert [int(image[0, 0, 0]) for image, _ in found] == list(range(count))
    for k, (_, flow) in enumerate(found):
        first = min(k, count - 2) if count > 1 else 0
        assert flow[:, 0, 0].tolist() == ([first, first + 1] if count > 1 else [0, 0])


def test_no_more_than_a_group_is_kept():
    taken = []

    def images():
        for k in range(100):
            taken.append(k)
            yield np.zeros((4, 6, 3), np.uint8)

    flow = Flow(name="none", weights=None, size=(4, 6), between=lambda x, _: torch.zeros(len(x) - 1, 2, 4, 6))
    for k, _ in enumerate(flow(images())):
        assert len(taken) <= k + AT_ONCE + 1


def test_resized_is_the_picture_where_nothing_is_to_be_done():
    picture = cloud()
    assert resized(picture, SIZE) is picture
    small = resized(picture, (64, 85))
    assert small.shape == (64, 85, 3) and small.dtype == np.uint8
    assert abs(float(small.mean()) - float(picture.mean())) < 1


def test_packages_that_are_missing(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cv2", None)
        with pytest.raises(MissingExtraError, match=r"flow tvl1 needs the package cv2: pip install 'actionformer-nt"):
            make_flow("tvl1", size=SIZE)
    import cv2

    monkeypatch.delattr(cv2, "optflow")
    with pytest.raises(ValueError, match="needs OpenCV with its contributed modules"):
        make_flow("tvl1", size=SIZE)
    with pytest.raises(ValueError, match="flow 'farneback' is not one of"):
        make_flow("farneback", size=SIZE)
