"""Small models, videos and outputs for the tests of the SPOT variant."""

import pytest
import torch

from actionformer_nt.spot.meta_arch import Spot
from actionformer_nt.spot.network import SpotOutput
from actionformer_nt.spot.targets import assign_targets
from libs.core.schema import TestSection, TrainSection

SURE = 30.0  # a logit that is as good as certain


def make_spot(*, input_dim=6, num_classes=3, num_steps=32, test=None, **options) -> Spot:
    torch.manual_seed(0)
    test_cfg = TestSection(**{"multiclass_nms": True, "nms_sigma": 0.4, **(test or {})}).model_dump()
    return Spot(
        input_dim=input_dim,
        num_classes=num_classes,
        max_seq_len=num_steps,
        train_cfg=TrainSection().model_dump(),
        test_cfg=test_cfg,
        **{"n_head": 2, "mask_dims": [16], **options},
    )


def make_video(segments=(), labels=(), *, steps=32, channels=6, name="v", seed=0) -> dict:
    """A video of one snippet a second, so that grid step x is at x + 1/2 seconds."""
    return {
        "video_id": name,
        "feats": torch.randn(channels, steps, generator=torch.Generator().manual_seed(seed)),
        "segments": torch.tensor(segments, dtype=torch.float32).view(-1, 2),
        "labels": torch.tensor(labels, dtype=torch.long),
        "fps": 1.0,
        "duration": float(steps),
        "feat_stride": 1.0,
        "feat_num_frames": 1.0,
    }


def oracle_output(segments, labels, lengths, *, num_steps, num_classes) -> SpotOutput:
    """What a network that knows the events would say."""
    t = assign_targets(segments, labels, lengths, num_steps=num_steps, num_classes=num_classes)
    logits = SURE * torch.nn.functional.one_hot(t.classes, num_classes + 1).float()
    mask = torch.arange(num_steps)[None] < torch.tensor(lengths)[:, None]
    return SpotOutput(logits, SURE * (2 * t.masks.float() - 1), torch.zeros(len(lengths), num_steps, 4), mask)


def random_output(batch=2, steps=12, classes=3, width=5, *, seed=0, grad=True) -> SpotOutput:
    g = torch.Generator().manual_seed(seed)
    tensors = [
        torch.randn(*shape, generator=g).requires_grad_(grad)
        for shape in ((batch, steps, classes + 1), (batch, steps, steps), (batch, steps, width))
    ]
    return SpotOutput(*tensors, torch.ones(batch, steps, dtype=torch.bool))


class Helpers:
    make_spot, make_video = staticmethod(make_spot), staticmethod(make_video)
    oracle_output, random_output = staticmethod(oracle_output), staticmethod(random_output)


@pytest.fixture(scope="session")
def spot() -> type[Helpers]:
    return Helpers
