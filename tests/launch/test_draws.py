"""Tokens drawn in groups are those of the whole batch, and nothing of the draws stays."""

import pytest
import torch
from torch import Tensor

from pipelab.errors import InputError
from pipelab.launch.draws import Draws


def test_groups_draw_what_the_whole_batch_draws_however_far_ahead_one_is() -> None:
    shares = torch.rand(3, 6, 40, generator=torch.Generator().manual_seed(1))  # steps, rows (two for each), tokens
    torch.manual_seed(5)
    expected = [torch.multinomial(of_step, num_samples=1) for of_step in shares]
    state = torch.get_rng_state()
    torch.manual_seed(5)
    draws = Draws((2, 1))

    def loop(start: int, stop: int, num_steps: int) -> list[Tensor]:
        return [torch.multinomial(of_step[start:stop], num_samples=1) for of_step in shares[:num_steps]]

    ahead = draws.for_group(0, lambda: loop(0, 4, 3))
    behind = draws.for_group(1, lambda: loop(4, 6, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for step, tokens in enumerate(ahead):
        assert torch.equal(tokens, expected[step][:4])
    for step, tokens in enumerate(behind):
        assert torch.equal(tokens, expected[step][4:])
    assert not draws._drawn


def test_what_is_no_probability_is_refused_as_torch_refuses_it() -> None:
    with pytest.raises(InputError, match="not finite"):
        Draws((1,)).for_group(0, lambda: torch.multinomial(torch.tensor([[torch.nan, 1.0]]), num_samples=1))
