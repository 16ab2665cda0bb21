"""List of videos -> padded tensors, with no more padding than the results depend on.

ActionFormer pads to `max_seq_len` (longer test videos to a multiple of `max_div_factor`). What comes out at the
valid steps depends on that length only in one way: whether padded steps follow the last valid one at each level of
the pyramid, as far as a convolution reaches (`halo` steps). A padded step is not zero: a norm turns zeros into its
bias. So a shorter padding that keeps `min(padded steps, halo)` at every level gives the same result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from libs.datasets.video import VideoItem

MOST_PADDING = 1.2  # see `PaddingRule.plan_training`


class Batch(NamedTuple):
    """Videos padded to one length."""

    index: list[int]  # type: ignore[assignment]  # positions of these videos in the list that was given
    feats: Tensor  # (B, C, T)
    mask: Tensor  # (B, 1, T) bool
    lengths: Tensor  # (B,) to what length each video would be padded by ActionFormer; on the CPU


@dataclass(frozen=True)
class PaddingRule:
    """
    Args:
        max_seq_len: length to which ActionFormer pads, in grid steps.
        strides: of the backbone's levels, finest first.
        divisors: lengths above `max_seq_len` are rounded up to a multiple of the largest of them, or of their least
            common multiple where that is not a multiple of every stride.
        halo: padded steps that a convolution can see.
    """

    max_seq_len: int
    strides: tuple[int, ...]
    divisors: tuple[int, ...]
    halo: int = 1

    def reference_length(self, length: int) -> int:
        """The length to which ActionFormer would pad a video of this length on its own."""
        if length <= self.max_seq_len:
            return self.max_seq_len
        largest = max(self.divisors)
        if largest % max(self.strides):
            largest = math.lcm(*self.divisors, *self.strides)
        return -(-length // largest) * largest

    def needed_length(self, length: int) -> tuple[int, bool]:
        """The shortest length that gives the same result, and whether it is the only one."""
        reference = self.reference_length(length)
        padded = self._padded_steps(length, reference)
        if min(padded) < self.halo:
            return reference, True
        coarsest = max(self.strides)
        short = -(-length // coarsest) * coarsest
        while min(self._padded_steps(length, short)) < self.halo:
            short += coarsest
        return short, False

    def plan(self, lengths: list[int]) -> list[tuple[int, list[int]]]:
        """Groups videos that can share one padded tensor: (padded length, positions)."""
        needed = [self.needed_length(length) for length in lengths]
        groups: dict[int, list[int]] = {}
        for i, (own, only) in enumerate(needed):
            if only:
                groups.setdefault(own, []).append(i)
        free = [i for i, (_, only) in enumerate(needed) if not only]
        if free:
            longest = max(needed[i][0] for i in free)
            # join the shortest group that is long enough, unless the padding would more than double
            fits = [own for own in groups if longest <= own <= 2 * longest or (own >= longest and len(free) == 1)]
            groups.setdefault(min(fits, default=longest), []).extend(free)
        return [(own, sorted(positions)) for own, positions in sorted(groups.items())]

    def plan_training(self, lengths: list[int], *, most: float) -> list[tuple[int, list[int]]]:
        """As `plan`, for videos no longer than `max_seq_len`.

        Args:
            most: times its own length to which a video may be padded because of another one.
        """
        needed = [self.needed_length(length)[0] for length in lengths]
        groups: list[tuple[int, list[int]]] = []
        for i in sorted(range(len(needed)), key=lambda i: -needed[i]):  # the longest first
            if groups and groups[-1][0] <= most * needed[i]:
                groups[-1][1].append(i)
            else:
                groups.append((needed[i], [i]))
        return [(own, sorted(positions)) for own, positions in groups]

    def _padded_steps(self, length: int, padded_length: int) -> list[int]:
        return [padded_length // stride - -(-length // stride) for stride in self.strides]


def make_batches(
    videos: list[VideoItem], rule: PaddingRule, *, input_dim: int, device: torch.device, training: bool = False
) -> list[Batch]:
    """Pads the `feats` (C, T) of videos and moves them to `device`. In training all videos share one batch on a GPU; on
    a CPU, where two small batches take no longer than a large one, videos of different lengths do not.

    Raises:
        ValueError: no step, a wrong number of channels, or in training a video longer than `max_seq_len`.
    """
    lengths = [video["feats"].shape[-1] for video in videos]
    for video, length in zip(videos, lengths, strict=True):
        name, shape = video.get("video_id"), tuple(video["feats"].shape)
        if len(shape) != 2 or shape[0] != input_dim or length == 0:
            raise ValueError(f"video '{name}': features must be (input_dim={input_dim}, T > 0), found {shape}")
        if training and length > rule.max_seq_len:
            raise ValueError(
                f"video '{name}': {length} steps exceed max_seq_len={rule.max_seq_len} in training; the data set "
                f"crops to it"
            )
    if training:
        plan = rule.plan_training(lengths, most=MOST_PADDING if device.type == "cpu" else math.inf)
    else:
        plan = rule.plan(lengths)
    batches = []
    for padded_length, index in plan:
        # in memory by time, as the network works (see `cpu/convolution.py`);
        # pinned, so that the copy to a GPU does not wait
        pinned = device.type == "cuda"
        feats = torch.zeros(len(index), padded_length, input_dim, pin_memory=pinned).transpose(1, 2)
        for row, i in enumerate(index):
            feats[row, :, : lengths[i]] = videos[i]["feats"]
        own = torch.tensor([lengths[i] for i in index])
        mask = torch.arange(padded_length)[None, None, :] < own[:, None, None]
        reference = torch.tensor([rule.reference_length(int(n)) for n in own])
        feats, mask = feats.to(device, non_blocking=True), mask.to(device, non_blocking=True)
        batches.append(Batch(index, feats, mask, reference))
    return batches
