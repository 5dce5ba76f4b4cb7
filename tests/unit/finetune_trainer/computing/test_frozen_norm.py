"""Frozen norms in one step compute what transformers' do, to the bit; others are left alone."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from finetune_trainer.computing import frozen_norm

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 64, "num_attention_heads": 4}
IDS = torch.arange(24)[None]


def made(kind, dtype, **changes):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SMALL, **changes}), dtype=dtype)
    for name, value in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(value, 0.5, 2)
        value.requires_grad_("embed" in name)
    return model


def learnt(model):
    model.zero_grad()
    logits = model(input_ids=IDS, use_cache=False).logits
    logits.float().square().sum().backward()
    return logits.detach(), model.get_input_embeddings().weight.grad.float()


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_logits_are_the_same_and_gradients_as_near_as_numbers_are(kind, dtype, near):
    model = made(kind, dtype, head_dim=8, num_key_value_heads=2)
    before, gradient = learnt(model)
    assert frozen_norm.fuse(model) == sum("norm" in name for name, _ in model.named_parameters())
    after, ours = learnt(model)
    assert torch.equal(after, before)
    assert float((ours - gradient).norm() / gradient.norm()) < near


def test_the_gradient_is_the_formulas():
    weight = torch.nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64), requires_grad=False)
    norm = frozen_norm._Normed.apply
    x = torch.tensor([[0.3, -2.0, 1.0], [4.0, 0.1, 0.2]], dtype=torch.float64, requires_grad=True)
    plain = weight * x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    ours, theirs = (torch.autograd.grad(out.sin().sum(), x)[0] for out in (norm(x, weight, 1e-3), plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_norms_that_compute_something_else_or_learn_are_left_alone():
    gemma = made("gemma", torch.float32, head_dim=8, num_key_value_heads=2)
    assert frozen_norm.fuse(gemma) == 0
    learning = made("llama", torch.float32).requires_grad_(True)
    assert frozen_norm.fuse(learning) == 0


def test_a_norm_that_learns_later_computes_as_before():
    model = made("llama", torch.float32)
    frozen_norm.fuse(model)
    model.requires_grad_(True)
    learnt(model)
    assert all(value.grad is not None for value in model.parameters())
