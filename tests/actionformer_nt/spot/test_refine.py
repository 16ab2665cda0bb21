import pytest
import torch

from actionformer_nt.spot.network import SpotOutput
from actionformer_nt.spot.refine import gather_time, refinement_loss, rings, select_pools

OPTIONS = {"num_easy": 3, "num_hard": 4, "radii": (1, 3)}


def block_output(steps=24, width=24, begin=8, end=18):
    """One sure action in [begin, end); the embedding of snippet t is the t-th unit vector."""
    logits = torch.zeros(1, steps, 3)
    logits[0, :, 2] = 5.0
    logits[0, begin:end] = torch.tensor([5.0, 0.0, 0.0])
    masks = torch.full((1, steps, steps), -5.0)
    masks[0, begin:end, begin:end] = 5.0
    embedding = torch.eye(steps, width)[None].clone().requires_grad_()
    return SpotOutput(logits, masks, embedding, torch.ones(1, steps, dtype=torch.bool))


def test_rings_lie_on_either_side_of_the_boundaries():
    foreground = torch.zeros(1, 24, dtype=torch.bool)
    foreground[0, 8:18] = True
    inner, outer = rings(foreground, torch.ones_like(foreground), (1, 3))
    assert inner[0].nonzero()[:, 0].tolist() == [9, 10, 15, 16]
    assert outer[0].nonzero()[:, 0].tolist() == [5, 6, 19, 20]
    valid = torch.arange(24)[None] < 20  # the end of the video is no boundary, and padding is in no ring
    foreground[0, 18:] = True
    inner, outer = rings(foreground & valid, valid, (1, 3))
    assert inner[0].nonzero()[:, 0].tolist() == [9, 10] and outer[0].nonzero()[:, 0].tolist() == [5, 6]


def test_7_gathering_is_along_time():
    x = torch.eye(9, 5)[None].expand(2, -1, -1)
    index = torch.tensor([[3, 0], [4, 8]])
    assert torch.equal(gather_time(x, index)[0], torch.eye(5)[[3, 0]])
    assert torch.equal(gather_time(x, index)[1, 1], torch.zeros(5))  # snippet 8, which a channel could not be


def test_7_only_snippets_of_the_pools_have_a_gradient():
    output = block_output()
    pools = select_pools(output, **OPTIONS)
    chosen = set()
    for pool in pools:
        assert pool.used.any()
        chosen |= set(pool.snippets[pool.used].tolist())
    assert set(pools.hard_action.snippets[pools.hard_action.used].tolist()) == {9, 10, 15, 16}
    refinement_loss(output, temperature=0.07, **OPTIONS).backward()
    touched = set(output.embedding.grad[0].abs().sum(1).nonzero()[:, 0].tolist())
    assert touched == chosen


def test_the_loss_falls_when_hard_snippets_resemble_their_side():
    output = block_output()
    apart = output._replace(embedding=torch.eye(24)[None])
    together = torch.zeros(1, 24, 24)
    together[0, :, 0] = 1.0
    together[0, 8:18] = torch.eye(24)[1]
    good = refinement_loss(apart._replace(embedding=together), temperature=0.07, **OPTIONS)
    assert good < 1e-3 < refinement_loss(apart, temperature=0.07, **OPTIONS)


@pytest.mark.parametrize("case", ["no action", "no background", "nothing valid", "too short for a ring"])
def test_empty_pools_are_left_out(case):
    output = block_output(begin=8, end=10) if case == "too short for a ring" else block_output()
    if case == "no action":
        output.logits[:] = torch.tensor([0.0, 0.0, 5.0])
    elif case == "no background":
        output.logits[:] = torch.tensor([5.0, 0.0, 0.0])
    elif case == "nothing valid":
        output = output._replace(mask=torch.zeros_like(output.mask))
    loss = refinement_loss(output, temperature=0.07, **OPTIONS)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(output.embedding.grad).all()
    if case != "too short for a ring":
        assert float(loss.detach()) == 0


def test_a_video_without_pools_does_not_dilute_the_others():
    one = block_output()
    both = SpotOutput(*(torch.cat([column, column]).detach() for column in one[:4]))
    both.logits[1] = torch.tensor([0.0, 0.0, 5.0])
    torch.testing.assert_close(
        refinement_loss(both, temperature=0.07, **OPTIONS), refinement_loss(one, temperature=0.07, **OPTIONS).detach()
    )
