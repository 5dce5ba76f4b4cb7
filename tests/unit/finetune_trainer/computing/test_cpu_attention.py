"""Attention within documents on a CPU beside torch's own: the same numbers, and less that is kept."""

import pytest
import torch
from torch.nn import functional

from finetune_trainer.computing.cpu_attention import attended
from tests.unit.finetune_trainer.models.estimates import saved_bytes

HEADS, KEYS, WIDTH = 6, 2, 8


def made(tokens, dtype):
    """Queries, keys and values as models give them: views of [1, tokens, heads, width]."""
    chance = torch.Generator().manual_seed(tokens)
    for heads in (HEADS, KEYS, KEYS):
        yield torch.randn(1, tokens, heads, WIDTH, generator=chance).to(dtype).transpose(1, 2).requires_grad_()


def by_torch(query, key, value, *, lengths, scale, window):
    outs = []
    for q, k, v in zip(*(one.double().split(lengths, dim=2) for one in (query, key, value)), strict=True):
        places = torch.arange(q.shape[2])
        back = places[:, None] - places[None, :]
        mask = (back >= 0) & (back < (window or 1000))
        outs.append(functional.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=True))
    return torch.cat(outs, dim=2).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("lengths", [[3, 9, 1], [5, 5, 5], [7]], ids=["other", "same", "one"])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_answers_and_gradients_are_those_of_exact_attention(lengths, window, dtype, near):
    given = list(made(sum(lengths), dtype))
    how = {"lengths": lengths, "scale": 0.3, "window": window}
    out, exact = attended(*given, **how), by_torch(*given, **how)
    assert (out.dtype, out.shape) == (dtype, (1, sum(lengths), HEADS, WIDTH))
    torch.testing.assert_close(out.double(), exact, rtol=near, atol=near)
    toward = torch.linspace(-1, 1, out.numel()).view(out.shape)
    ours = torch.autograd.grad((out.float() * toward).sum(), given)
    for got, expected in zip(ours, torch.autograd.grad((exact * toward).sum(), given), strict=True):
        assert got.dtype is dtype
        torch.testing.assert_close(got.float(), expected.float(), rtol=2 * near, atol=2 * near)


def test_what_came_is_kept_as_it_came():
    given = list(made(64, torch.bfloat16))
    net = torch.nn.ParameterList([torch.nn.Parameter(one.detach()) for one in given])
    kept = saved_bytes(net, lambda net: attended(*net, lengths=[40, 24], scale=1.0, window=None), autocast=False)
    logarithms = 4 * 64 * HEADS
    assert kept == 2 * 64 * HEADS * WIDTH + logarithms, "beside queries, keys and values: the answer"
