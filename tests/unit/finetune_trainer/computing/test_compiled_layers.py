"""Layers as torch's compiler sees them, whatever machine its code would be for."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from finetune_trainer.computing.adapted_linear import fuse
from finetune_trainer.computing.compiled_layers import in_training
from finetune_trainer.training.passes import Cut, loss_sum, passes_of
from finetune_trainer.training.token_store import TokenStore
from tests.unit.finetune_trainer.computing.small_models import adapted, make_model, make_rows


@pytest.fixture(scope="module")
def store():
    return TokenStore(make_rows())


def compiled_by(backend, monkeypatch):
    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda layer, **how: compile_(layer, backend=backend, **how))


def test_all_layers_of_a_model_are_compiled_as_one(store, monkeypatch):
    """The first one's input would need no gradient: it would be compiled for itself, for half of the time."""
    counted = CompileCounter()
    compiled_by(counted, monkeypatch)
    model = adapted(make_model("llama", num_hidden_layers=3))
    fuse(model)
    trained = [value for value in model.parameters() if value.requires_grad]
    with in_training(model, trained, packed=False, compile_layers=True):
        assert torch._dynamo.config.recompile_limit > 8  # torch's own, after which layers are as they were
        (batch,) = passes_of(store, [0, 1, 2], Cut(None, 3))
        loss_sum(model, batch).backward()
    assert counted.frame_count == 1
    torch._dynamo.reset()


@pytest.mark.alike
@pytest.mark.parametrize("way", [{}, {"use_dora": True}, {"dropout": 0.1}], ids=["LoRA", "DoRA", "dropout"])
def test_a_compiled_layer_has_nothing_to_compute_beside_the_gpu(store, monkeypatch, way):
    """A scale as a number of the CPU makes torch build C++ for it: the image has a C compiler, and none for C++."""
    of_the_cpu = []

    def backend(graph, given):
        of_the_cpu.extend(value for value in given if isinstance(value, torch.Tensor) and value.dim() == 0)
        return graph

    compiled_by(backend, monkeypatch)
    model = adapted(make_model("llama"), **way)
    fuse(model)
    trained = [value for value in model.parameters() if value.requires_grad]
    with in_training(model, trained, packed=False, compile_layers=True):
        (batch,) = passes_of(store, [0, 1, 2], Cut(None, 3))
        loss_sum(model, batch).backward()
    torch._dynamo.reset()
    assert not of_the_cpu


@pytest.mark.alike
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_layers_learn_what_layers_as_they_are_do(store, monkeypatch, dtype):
    """Torch 2.11 gave fused layers whose sum is made in place gradients of zero, and said nothing."""
    compiled_by("aot_eager", monkeypatch)

    def learnt(*, compile_layers):
        model = adapted(make_model("llama", num_key_value_heads=2).to(dtype))
        fuse(model)
        trained = [value for value in model.parameters() if value.requires_grad]
        (batch,) = passes_of(store, [0, 1, 2], Cut(None, 3))
        with (
            in_training(model, trained, packed=False, compile_layers=compile_layers),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16),
        ):
            loss_sum(model, batch).backward()
        torch._dynamo.reset()
        return [value.grad for value in trained]

    for got, expected in zip(learnt(compile_layers=True), learnt(compile_layers=False), strict=True):
        assert expected.norm() > 0
        assert (got - expected).norm() < 1e-5 * expected.norm()
