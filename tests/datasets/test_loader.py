import pytest
import torch

from libs.core import load_config
from libs.datasets import make_data_loader, make_dataset
from libs.datasets.loader import EpochBatchSampler


def epochs(sampler, count):
    return [[[int(key) for key in batch] for batch in sampler] for _ in range(count)]


@pytest.mark.parametrize("bucketing", [False, True])
def test_order_is_a_function_of_seed_and_epoch(bucketing):
    lengths = [(7 * i) % 40 for i in range(41)]
    make = lambda seed: EpochBatchSampler(lengths, 41, 4, seed, bucketing=bucketing)  # noqa: E731
    first = epochs(make(3), 3)
    assert epochs(make(3), 3) == first and epochs(make(4), 1) != first[:1] and first[0] != first[1]
    late = make(3)
    late.set_epoch(2)
    assert epochs(late, 1) == first[2:]
    for epoch in first:
        used = [i for batch in epoch for i in batch]
        assert len(epoch) == 10 and all(len(batch) == 4 for batch in epoch) and len(set(used)) == 40


def test_bucketing_brings_similar_lengths_together():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(10, 2000, (256,), generator=generator).tolist()

    def padding(bucketing):
        sampler = EpochBatchSampler(lengths, 256, 4, 0, bucketing=bucketing)
        return sum(4 * max(lengths[k] for k in b) - sum(lengths[k] for k in b) for b in sampler)

    assert padding(True) < 0.2 * padding(False)


def test_batch_larger_than_the_data_set():
    with pytest.raises(ValueError, match=r"batch_size: 8 is larger than the 5"):
        EpochBatchSampler(None, 5, 8, 0)


def test_workers_change_nothing(make_data):
    config = load_config(make_data(steps=200))
    seen = []
    for workers in (0, 2):
        data = make_dataset("generic", True, ["training"], **config["dataset"])
        loader = make_data_loader(data, True, torch.Generator().manual_seed(5), 2, workers)
        before = torch.random.get_rng_state()
        seen.append([[(v["video_id"], v["feats"], v["segments"]) for v in b] for _ in range(2) for b in loader])
        assert torch.equal(before, torch.random.get_rng_state())  # the model's randomness is left alone
    for a, b in zip(*seen, strict=True):
        for (id_a, feats_a, segments_a), (id_b, feats_b, segments_b) in zip(a, b, strict=True):
            assert id_a == id_b and torch.equal(feats_a, feats_b) and torch.equal(segments_a, segments_b)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_plain_data_set_is_indexed_with_numbers(workers):
    class Plain(torch.utils.data.Dataset):
        items = ("a", "b", "c", "d")

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return self.items[index]

    loader = make_data_loader(Plain(), True, torch.Generator().manual_seed(0), 2, workers)
    assert sorted(item for batch in loader for item in batch) == ["a", "b", "c", "d"]


def test_evaluation_is_in_order_and_batched(make_data):
    config = load_config(make_data())
    data = make_dataset("generic", False, ["test", "training"], **config["dataset"])
    loader = make_data_loader(data, False, None, 2, 0, eval_batch_size=4)
    assert [[v["video_id"] for v in b] for b in loader] == [["v0", "v1", "v2", "v3"], ["v4", "v5"]]
