"""Batches by iteration: the videos of iteration t depend on the seed and t only."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Sampler

from libs.core import distributed
from libs.core.interrupts import ignore_interrupts
from libs.core.seeding import derive_seed
from libs.datasets.dataset import TALDataset
from libs.datasets.loader import check_batch_size, identity
from libs.datasets.video import SampleKey


class IterationBatches(Sampler[list[SampleKey]]):
    """Batches of the iterations start .. end - 1.

    In every epoch the videos are shuffled as by `EpochBatchSampler`, and the last, incomplete batch is dropped. A data
    set smaller than a batch is repeated to fill it; each repeat of a video has its own crop and its own views.

    Args:
        size: number of videos.
        name: name of the stream, part of the seed. The stream of labeled videos has an empty name.

    Raises:
        ValueError: no video, or a batch size that the processes cannot share.
    """

    def __init__(self, size: int, batch_size: int, seed: int, *, start: int, end: int, name: str = "") -> None:
        if size < 1:
            raise ValueError("there is no video to train on")
        check_batch_size(
            batch_size, key="semi_cfg.unlabeled_batch_size" if name == "unlabeled" else "loader.batch_size"
        )
        self.size, self.batch_size, self.seed, self.name = size, batch_size, seed, name
        self.start, self.end = start, end
        self.per_epoch = max(size // batch_size, 1)

    def __len__(self) -> int:
        return max(self.end - self.start, 0)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch, order = -1, []
        for iteration in range(self.start, self.end):
            new_epoch, position = divmod(iteration, self.per_epoch)
            if new_epoch != epoch:
                epoch, order = new_epoch, self._order(new_epoch)
            batch = order[position * self.batch_size : (position + 1) * self.batch_size]
            repeats = [batch[:k].count(i) for k, i in enumerate(batch)]
            yield [*distributed.share([SampleKey(i, epoch, repeat) for i, repeat in zip(batch, repeats, strict=True)])]

    def _order(self, epoch: int) -> list[int]:
        parts = (self.seed, epoch, "order", self.name) if self.name else (self.seed, epoch, "order")
        generator = torch.Generator().manual_seed(derive_seed(*parts))
        order = torch.randperm(self.size, generator=generator).tolist()
        return order * -(-self.batch_size // self.size) if self.size < self.batch_size else order


def iteration_loader(dataset: TALDataset, batches: IterationBatches, num_workers: int) -> DataLoader:
    """Loader of lists of videos, one list per iteration."""
    # without a generator of its own, the loader would draw from torch's global one and change dropout
    generator = torch.Generator().manual_seed(batches.seed)
    return DataLoader(
        dataset, batch_sampler=batches, num_workers=num_workers, collate_fn=identity, generator=generator,
        worker_init_fn=ignore_interrupts,
    )  # fmt: skip
