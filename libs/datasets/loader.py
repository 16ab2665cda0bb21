"""Data loaders of whole videos, with a seeded and resumable order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import torch
from torch.utils.data import DataLoader, Sampler

from libs.core import distributed
from libs.core.interrupts import ignore_interrupts
from libs.core.seeding import derive_seed

from .dataset import TALDataset
from .video import SampleKey, VideoItem


class EpochBatchSampler(Sampler[list[SampleKey]]):
    """Shuffled batches whose order depends only on (seed, epoch); the last, incomplete batch is dropped.

    Each iteration over the sampler is one epoch and then advances the epoch; `set_epoch` selects an epoch.

    Args:
        lengths: steps of each video; needed only for bucketing.
        size: number of videos.
        bucketing: batches of videos of similar length. Videos are shuffled, sorted by length within groups of `GROUP`
            batches and cut into batches, and the batches are shuffled.
    """

    GROUP = 16  # batches

    def __init__(
        self, lengths: list[int] | None, size: int, batch_size: int, seed: int, *, bucketing: bool = False
    ) -> None:
        check_batch_size(batch_size)
        if size < batch_size:
            raise ValueError(f"loader.batch_size: {batch_size} is larger than the {size} training videos")
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.lengths = lengths if bucketing else None  # None: no bucketing
        self.epoch, self.start = 0, 0

    def set_epoch(self, epoch: int, *, start: int = 0) -> None:
        """Makes the next iteration this epoch, from batch `start` on."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return self.size // self.batch_size

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        start, self.start = self.start, 0
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, "order"))
        order = torch.randperm(self.size, generator=generator).tolist()[: len(self) * self.batch_size]
        if self.lengths is not None:
            group = self.GROUP * self.batch_size
            parts = [sorted(order[i : i + group], key=self.lengths.__getitem__) for i in range(0, len(order), group)]
            order = [index for part in parts for index in part]
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        if self.lengths is not None:
            batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
        for batch in batches[start:]:
            yield [SampleKey(index, epoch) for index in distributed.share(batch)]


def check_batch_size(batch_size: int, *, key: str = "loader.batch_size") -> None:
    """Raises ValueError if there are more processes than videos in a batch, so that one would have none."""
    if batch_size < distributed.world_size():
        raise ValueError(
            f"{key}: {batch_size} is that of all processes together and must not be smaller than their "
            f"number, {distributed.world_size()}"
        )


def identity(batch: list[VideoItem]) -> list[VideoItem]:
    """Collate function that returns the list of videos unchanged; the model pads."""
    return batch


def make_data_loader(
    dataset: TALDataset,
    is_training: bool,
    generator: torch.Generator | None,
    batch_size: int,
    num_workers: int,
    *,
    bucketing: bool = False,
    eval_batch_size: int = 1,
) -> DataLoader:
    """Loader of lists of videos.

    Args:
        generator: for training: its initial seed determines the order and the crops of every epoch.
        batch_size: videos in a training batch, over all processes.
        bucketing: see `EpochBatchSampler`.
        eval_batch_size: videos in an evaluation batch; evaluation follows the order of the annotation file.
    """
    num_workers = min(num_workers, os.cpu_count() or 1)  # more workers are slower; results do not depend on the number
    load = partial(
        DataLoader, dataset, num_workers=num_workers, collate_fn=identity, persistent_workers=num_workers > 0,
        worker_init_fn=ignore_interrupts,
    )  # fmt: skip
    if not is_training:
        return load(batch_size=eval_batch_size, sampler=distributed.share(range(len(dataset))))
    seed = 0 if generator is None else generator.initial_seed()
    dataset.seed = seed  # seed of the crops
    lengths = [dataset.num_steps(i) for i in range(len(dataset))] if bucketing else None
    sampler = EpochBatchSampler(lengths, len(dataset), batch_size, seed, bucketing=bucketing)
    # The loader draws worker seeds. A generator of its own leaves the model's random numbers unchanged.
    worker_seeds = torch.Generator().manual_seed(seed % 2**63)
    return load(batch_sampler=sampler, generator=worker_seeds)
