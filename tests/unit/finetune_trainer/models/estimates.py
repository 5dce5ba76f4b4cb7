"""Models and jobs for tests of the memory estimate."""

import torch

from finetune_api.job import FineTuneJobSpec
from finetune_trainer.models import model_shape

GIB = 2**30


def saved_bytes(model, call, *, autocast):
    """Bytes of all tensors that a forward pass saves for the backward pass, except the model's own weights."""
    own = {value.untyped_storage().data_ptr() for value in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # keeps it alive, so that its address is not reused
        return tensor

    keeping = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with keeping, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        call(model)
    return sum(storage.nbytes() for storage in kept.values())


def llama(hidden, intermediate, layers, keys, vocabulary):
    """A Llama config from its sizes."""
    blocks = []
    for number in range(layers):
        attention, feed = f"layers.{number}.self_attn", f"layers.{number}.mlp"
        blocks += [
            model_shape.Matrix(f"{attention}.q_proj", hidden, hidden),
            model_shape.Matrix(f"{attention}.k_proj", keys, hidden),
            model_shape.Matrix(f"{attention}.v_proj", keys, hidden),
            model_shape.Matrix(f"{attention}.o_proj", hidden, hidden),
            model_shape.Matrix(f"{feed}.gate_proj", intermediate, hidden),
            model_shape.Matrix(f"{feed}.up_proj", intermediate, hidden),
            model_shape.Matrix(f"{feed}.down_proj", hidden, intermediate),
        ]
    linear = sum(one.outputs * one.inputs for one in blocks)
    return model_shape.ModelShape(
        parameters=linear + 2 * vocabulary * hidden,
        matrices=tuple(blocks),
        norms=(model_shape.Norm(hidden, False, False),) * 2 * layers,
        blocks=layers,
        hidden=hidden,
        vocabulary=vocabulary,
        heads=32,
        activation="silu",
        is_encoder_decoder=False,
        scores_kept=False,
        scores_by_hand=False,
        biased=False,
        dropout=0.0,
        certain=True,
    )


LLAMA_8B = llama(4096, 14336, 32, 1024, 128256)


def spec_of(method="LoRA", **hyper):
    return FineTuneJobSpec.model_validate(
        {
            "connectionRef": {"name": "local"},
            "baseModel": "meta-llama/Llama-3.1-8B",
            "modelRef": {"name": "model"},
            "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
            "method": method,
            "hyperparameters": hyper,
        }
    )
