"""SPOT's quality head."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actionformer_nt.spot.network import SpotOutput
from actionformer_nt.spot.pseudo_masks import teacher_labels
from actionformer_nt.spot.quality import own_ranges, snippet_quality_loss
from actionformer_nt.spot.schema import PseudoSection
from actionformer_nt.spot.targets import assign_targets


@given(st.integers(1, 9), st.integers(0, 2**31))
def test_own_ranges_against_a_loop(steps, seed):
    masks = torch.rand(2, steps, steps, generator=torch.Generator().manual_seed(seed)) < 0.7
    found = own_ranges(masks)
    for b in range(2):
        for i in range(steps):
            begin = end = i
            if masks[b, i, i]:
                while begin > 0 and masks[b, i, begin - 1]:
                    begin -= 1
                while end < steps and masks[b, i, end]:
                    end += 1
            assert found[b, i].tolist() == [begin, end]


def events():
    return assign_targets([torch.tensor([[1.5, 5.5]])], [torch.tensor([0])], [8], num_steps=8, num_classes=2)


def test_the_loss_compares_the_masks_of_event_snippets_with_their_event():
    targets = events()  # snippets 2 to 5
    masks = torch.full((1, 8, 8), -5.0)
    masks[0, 2, 2:4] = 5.0  # half of the event, centre one snippet off: tIoU 1/2, distance 1/4
    masks[0, 3, 2:6] = 5.0  # all of it
    masks[0, 4, 0:2] = 5.0  # not its own snippet: tIoU 0
    masks[0, 5, 4:8] = 5.0  # tIoU 1/3, distance 2/6
    quality = torch.tensor([[0.5, 0.25], [1.0, 0.0], [0.0, 0.0], [1 / 3, 1 / 3]], dtype=torch.float64)
    quality[2, 1] = 0.5 * abs((3.5 + 3.5) - (1.5 + 5.5)) / 4  # an empty range at snippet 4, from 3.5 to 3.5
    logits = torch.randn(1, 8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    s = logits[0, 2:6].detach().sigmoid()
    expected = float((-quality * s.log() - (1 - quality) * (1 - s).log()).sum(dim=1).mean())
    masks.requires_grad_()
    loss = snippet_quality_loss(logits, masks, targets, torch.ones(1, 8, dtype=torch.bool))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert masks.grad is None
    assert (logits.grad[0].abs().sum(dim=1) > 0).tolist() == [False, False, True, True, True, True, False, False]


def test_without_an_event_it_is_zero():
    targets = assign_targets([torch.zeros(0, 2)], [torch.zeros(0, dtype=torch.long)], [8], num_steps=8, num_classes=2)
    logits = torch.randn(1, 8, 2, requires_grad=True)
    loss = snippet_quality_loss(logits, torch.zeros(1, 8, 8), targets, torch.ones(1, 8, dtype=torch.bool))
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_the_rest_of_the_network_is_as_without_the_head(spot):
    plain, model = spot.make_spot(), spot.make_spot(quality=True)
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    video = spot.make_video([(3.0, 9.0)], [1])
    torch.nn.init.normal_(model.net.quality_head.weight)
    losses = model.train()([video])
    assert losses["quality_loss"] > 0 and "quality_loss" not in plain.train()([video])
    (expected,), (weighted,) = plain.eval()([video]), model.eval()([video])
    assert not torch.equal(expected["scores"], weighted["scores"])
    model.test_cfg["quality_score"] = False
    (unused,) = model([video])
    assert torch.equal(expected["scores"], unused["scores"]) and torch.equal(expected["segments"], unused["segments"])


def test_pseudo_labels_have_the_factor():
    output = SpotOutput(
        torch.zeros(1, 4, 3), torch.zeros(1, 4, 4), torch.zeros(1, 4, 2), torch.ones(1, 4, dtype=torch.bool),
        torch.tensor([[[9.0, -9.0], [-9.0, 9.0], [0.0, 0.0], [9.0, 0.0]]]),
    )  # fmt: skip
    assert teacher_labels(output, PseudoSection()).quality[0].tolist() == pytest.approx([1, 0, 0, 0.5], abs=1e-3)
    without = teacher_labels(output._replace(quality=None), PseudoSection())
    assert without.quality.tolist() == [[1.0] * 4]


def test_soft_labels_are_refused(spot):
    model = spot.make_spot()
    with pytest.raises(ValueError, match="soft_labels"):
        type(model)(
            input_dim=6, num_classes=3, max_seq_len=32, train_cfg={**model.train_cfg, "soft_labels": True},
            test_cfg=model.test_cfg, n_head=2, mask_dims=[4],
        )  # fmt: skip
