"""States of torch's generators."""

import pytest
import torch

from libs.core.seeding import generator_state, set_generator_state


def test_state_of_the_cpu():
    state = generator_state()
    expected = torch.rand(3)
    torch.rand(5)
    set_generator_state(state)
    assert torch.equal(torch.rand(3), expected)


def test_states_of_gpus_follow_that_of_the_cpu(monkeypatch):
    states = [torch.full((16,), k, dtype=torch.uint8) for k in range(2)]
    restored = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", restored.extend)
    saved = generator_state()
    set_generator_state(saved)
    assert all(torch.equal(a, b) for a, b in zip(restored, states, strict=True))
    restored.clear()
    set_generator_state(saved[: len(saved) - 16])  # of a machine with one GPU
    set_generator_state(torch.get_rng_state())  # of a run on a CPU
    assert not restored


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_draws_on_a_gpu_go_on():
    torch.rand(1, device="cuda")
    state = generator_state()
    expected = torch.rand(3, device="cuda")
    set_generator_state(state)
    assert torch.equal(torch.rand(3, device="cuda"), expected)
