"""Batches by iteration: which videos iteration t sees is a function of the seed and t alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Sampler

from libs.core import distributed
from libs.core.interrupts import ignore_interrupts
from libs.core.seeding import derive_seed
from libs.datasets.dataset import SampleKey, TALDataset
from libs.datasets.loader import check_batch_size, identity


class IterationBatches(Sampler[list[SampleKey]]):
    """Batches of iterations start .. end - 1. Epoch after epoch the videos are shuffled as `EpochBatchSampler` does
    and the last, smaller batch is dropped; a data set smaller than a batch is repeated within it.

    Args:
        name: of the stream; two streams of one seed are shuffled differently unless it is empty.
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
            now, place = divmod(iteration, self.per_epoch)
            if now != epoch:
                epoch, order = now, self._order(now)
            batch = order[place * self.batch_size : (place + 1) * self.batch_size]
            yield [SampleKey(i, epoch) for i in distributed.share(batch)]

    def _order(self, epoch: int) -> list[int]:
        parts = (self.seed, epoch, "order", self.name) if self.name else (self.seed, epoch, "order")
        generator = torch.Generator().manual_seed(derive_seed(*parts))
        order = torch.randperm(self.size, generator=generator).tolist()
        return order * -(-self.batch_size // self.size) if self.size < self.batch_size else order


def iteration_loader(dataset: TALDataset, batches: IterationBatches, num_workers: int) -> DataLoader:
    generator = torch.Generator().manual_seed(batches.seed)  # the loader's own draws leave the model's alone
    return DataLoader(
        dataset, batch_sampler=batches, num_workers=num_workers, collate_fn=identity, generator=generator,
        worker_init_fn=ignore_interrupts,
    )  # fmt: skip
