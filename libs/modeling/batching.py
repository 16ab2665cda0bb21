"""List of videos -> padded tensors, with as little padding as gives ActionFormer's results.

ActionFormer pads to `max_seq_len`, longer test videos to a multiple of `max_div_factor`. Padding changes the output at
valid steps only through convolutions, which see the first `halo` padded steps of a pyramid level. (Padded steps are not
zero inside the network: a norm turns zeros into its bias.) A shorter padding gives the same output if every level keeps
its number of padded steps up to `halo`, that is `min(padded steps, halo)`.
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

    index: list[int]  # type: ignore[assignment]  # positions of these videos in the list of `make_batches`
    feats: Tensor  # (B, C, T)
    mask: Tensor  # (B, 1, T) bool
    lengths: Tensor  # (B,) length to which ActionFormer would pad each video; on the CPU


@dataclass(frozen=True)
class PaddingRule:
    """
    Args:
        max_seq_len: length to which ActionFormer pads, in grid steps.
        strides: strides of the backbone's levels, finest first.
        divisors: lengths above `max_seq_len` are rounded up to a multiple of the largest divisor, if the coarsest
            stride divides it, else to a multiple of the least common multiple of divisors and strides.
        halo: largest number of padded steps that a convolution sees.
        spare: in training on a CPU, steps of padding that cost less than a batch more.
    """

    max_seq_len: int
    strides: tuple[int, ...]
    divisors: tuple[int, ...]
    halo: int = 1
    spare: int = 0

    def reference_length(self, length: int) -> int:
        """Length to which ActionFormer would pad a video of this length alone."""
        if length <= self.max_seq_len:
            return self.max_seq_len
        largest = max(self.divisors)
        if largest % max(self.strides):
            largest = math.lcm(*self.divisors, *self.strides)
        return -(-length // largest) * largest

    def needed_length(self, length: int) -> tuple[int, bool]:
        """Shortest padded length with ActionFormer's result, and whether no other length has that result."""
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
        """Groups videos into batches: (padded length, positions in `lengths`) of each batch."""
        needed = [self.needed_length(length) for length in lengths]
        groups: dict[int, list[int]] = {}
        for i, (padded_length, is_only_length) in enumerate(needed):
            if is_only_length:
                groups.setdefault(padded_length, []).append(i)
        flexible = [i for i, (_, is_only_length) in enumerate(needed) if not is_only_length]
        if flexible:
            longest = max(needed[i][0] for i in flexible)
            # join the shortest group that is long enough, unless that more than doubles the padded length
            fits = [n for n in groups if longest <= n <= 2 * longest or (n >= longest and len(flexible) == 1)]
            groups.setdefault(min(fits, default=longest), []).extend(flexible)
        return [(padded_length, sorted(positions)) for padded_length, positions in sorted(groups.items())]

    def plan_training(self, lengths: list[int], *, most: float) -> list[tuple[int, list[int]]]:
        """As `plan`, for videos of at most `max_seq_len` steps.

        Args:
            most: a video may be padded to at most `most` times the length that it needs, and in any case by `spare`
                steps.
        """
        needed = [self.needed_length(length)[0] for length in lengths]
        groups: list[tuple[int, list[int]]] = []
        for i in sorted(range(len(needed)), key=lambda i: -needed[i]):  # longest first
            if groups and groups[-1][0] <= max(most * needed[i], needed[i] + self.spare):
                groups[-1][1].append(i)
            else:
                groups.append((needed[i], [i]))
        return [(padded_length, sorted(positions)) for padded_length, positions in groups]

    def _padded_steps(self, length: int, padded_length: int) -> list[int]:
        return [padded_length // stride - -(-length // stride) for stride in self.strides]


def make_batches(
    videos: list[VideoItem], rule: PaddingRule, *, input_dim: int, device: torch.device, training: bool = False
) -> list[Batch]:
    """Pads the `feats` (C, T) of videos and moves them to `device`.

    In training on a GPU all videos form one batch. On a CPU padding costs more than a batch more, unless the videos are
    short, so videos of different lengths are put into different batches (`PaddingRule.plan_training`).

    Raises:
        ValueError: a video has no step, a wrong number of channels, or in training more than `max_seq_len` steps.
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
        # (B, T, C) in memory, see `cpu/convolution.py`; pinned memory makes the copy to a GPU asynchronous
        pinned = device.type == "cuda"
        feats = torch.zeros(len(index), padded_length, input_dim, pin_memory=pinned).transpose(1, 2)
        for row, i in enumerate(index):
            feats[row, :, : lengths[i]] = videos[i]["feats"]
        valid_lengths = torch.tensor([lengths[i] for i in index])
        mask = torch.arange(padded_length)[None, None, :] < valid_lengths[:, None, None]
        reference_lengths = torch.tensor([rule.reference_length(int(n)) for n in valid_lengths])
        feats, mask = feats.to(device, non_blocking=True), mask.to(device, non_blocking=True)
        batches.append(Batch(index, feats, mask, reference_lengths))
    return batches
