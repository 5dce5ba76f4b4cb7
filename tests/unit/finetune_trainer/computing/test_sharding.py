"""A model that is shared out among ranks learns, goes on and ends as one that each of them holds."""

import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import init_empty_weights
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import distributed
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM

from finetune_api.exit_codes import ExitCode
from finetune_api.reasons import Reason
from finetune_trainer.computing.adapted_linear import fuse
from finetune_trainer.computing.ranks import join
from finetune_trainer.computing.sharding import gather, gathered, is_sharded, shard
from finetune_trainer.errors import TrainerError
from tests.unit.finetune_trainer.computing import ranks

SIZES = {"vocab_size": 33, "hidden_size": 16, "intermediate_size": 30, "num_hidden_layers": 2}
CONFIG = LlamaConfig(**SIZES, num_attention_heads=2, tie_word_embeddings=True)
IDS = [torch.arange(length)[None] for length in (5, 9, 3)]
WAYS = {
    "full": {},
    "full-in-16-bits": {"dtype": torch.bfloat16},
    "full-checkpointed": {"checkpointing": True},
    "lora": {"lora": LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)},
    "dora": {"lora": LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, use_dora=True)},
    "lora-in-16-bits": {
        "lora": LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False),
        "dtype": torch.bfloat16,
        "checkpointing": True,
    },
}


def built(*, lora=None, dtype=torch.float32, checkpointing=False, empty=False):
    torch.manual_seed(0)
    if empty:
        with init_empty_weights(include_buffers=False):
            model = LlamaForCausalLM(CONFIG)
        model.tie_weights()
    else:
        model = LlamaForCausalLM(CONFIG)
    if lora:
        model = get_peft_model(model.to(dtype), lora)
        fuse(model)
    if checkpointing:
        model.enable_input_require_grads()
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model.train()


def loss(model, ids, dtype):
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        return model(input_ids=ids, use_cache=False).logits.float().logsumexp(-1).sum()


def leave_gradients(folder: Path) -> None:
    """Two ranks: the first has two passes, the second one and a second that counts for nothing."""
    world = join()
    passes = [(IDS[0], 1), (IDS[1], 1)] if world.is_first else [(IDS[2], 1), (IDS[2], 0)]
    with world.connected():
        for name, way in WAYS.items():
            dtype = way.get("dtype", torch.float32)
            model, whole = built(**way, empty=True), built(**way) if world.is_first else None
            shard(model, whole, "cpu", dtype)
            assert is_sharded(model)
            assert whole is None or not any(value.numel() for value in whole.parameters())
            for ids, weight in passes:
                (weight * loss(model, ids, dtype)).backward()
            with torch.no_grad():
                loss(model, IDS[0], dtype)
            assert all(isinstance(value, DTensor) or "lora_" in key for key, value in model.named_parameters())
            own = [value for value in model.parameters() if value.requires_grad and value.grad is not None]
            if "lora" in way:
                world.sum_gradients(own)
            left = {key: gathered(value.grad) for key, value in model.named_parameters() if value.grad is not None}
            held = sum(value.to_local().numel() if "lora" not in way else 0 for value in model.parameters())
            gather(model, whole, torch.float32)
            if whole is not None:
                weights = {f"weights.{key}": value.detach() for key, value in whole.named_parameters()}
                save_file(left | weights | {"held": torch.tensor(held)}, folder / f"{name}.safetensors")
        distributed.barrier()


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradients")
    assert ranks.ended(ranks.start(2, leave_gradients, folder)) == [0, 0]
    return folder


@pytest.mark.parametrize("name", WAYS)
def test_gradients_and_weights_are_those_of_one_rank(left, name):
    way = WAYS[name]
    dtype = way.get("dtype", torch.float32)
    got, model = load_file(left / f"{name}.safetensors"), built(**way)
    for ids in IDS:
        loss(model, ids, dtype).backward()
    near = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.05}
    for key, value in model.named_parameters():
        torch.testing.assert_close(got[f"weights.{key}"].to(value.dtype), value.detach())
        if value.requires_grad:
            torch.testing.assert_close(got[key], value.grad, **near)
        assert (key in got) is value.requires_grad
    if "lora" not in way:
        assert got["held"] < 0.6 * sum(value.numel() for value in model.parameters())


FULL = {
    "method": "Full",
    "lora": None,
    "hyperparameters": {"epochs": 1, "checkpointSteps": 3, "microBatchSize": 2, "learningRate": 0.003},
}
"""Ten steps; three ranks have two passes or one."""


def files(job):
    return sorted(path.name for path in (Path(job.output) / "model").iterdir())


def numbers(job, name):
    return [line[name] for line in ranks.learnt(job) if name in line]


def test_a_killed_or_stopped_run_goes_on_with_another_number_of_ranks_and_ends_as_with_one(tiny_model, tmp_path):
    one, shared = (ranks.job_of(tmp_path / name, tiny_model, **FULL) for name in ("one", "shared"))
    shared = shared.model_copy(update={"spec": one.spec})
    straight = ranks.started(one, 1)

    killed = ranks.started(shared, 3, ranks.do_sharing)
    ranks.wait_for_step(shared, 5, killed)
    os.kill(killed[1].pid, signal.SIGKILL)
    assert ranks.ended(killed) == [ExitCode.INTERRUPTED, -signal.SIGKILL, ExitCode.INTERRUPTED]
    assert ranks.message(shared, 0) == Reason.INTERRUPTED
    assert not (Path(shared.output) / "model").exists()

    stopped = ranks.started(shared, 2, ranks.do_sharing)
    ranks.wait_for_step(shared, ranks.steps_done(shared) + 1, stopped)
    os.kill(stopped[1].pid, signal.SIGTERM)
    assert ranks.ended(stopped) == [ExitCode.INTERRUPTED, ExitCode.INTERRUPTED]
    done = ranks.steps_done(shared)
    assert max((Path(shared.output) / "checkpoints").iterdir()).name == f"step-{done:08d}"

    alone = shared.model_copy(update={"output": str(tmp_path / "alone" / "output")})
    shutil.copytree(shared.output, alone.output)
    runs = [straight, ranks.started(shared, 2, ranks.do_sharing), ranks.started(alone, 1)]
    assert [ranks.ended(run) for run in runs] == [[0], [0, 0], [0]]
    expected = load_file(Path(one.output) / "model" / "model.safetensors")
    for job in (shared, alone):
        assert files(job) == files(one)
        assert numbers(job, "tokens") == numbers(one, "tokens")
        for name in ("loss", "gradNorm", "validationLoss"):
            assert numbers(job, name) == pytest.approx(numbers(one, name), rel=1e-2)
        got = load_file(Path(job.output) / "model" / "model.safetensors")
        assert {name: value.dtype for name, value in got.items()} == {n: value.dtype for n, value in expected.items()}
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, rtol=0.05, atol=5e-3)


def test_a_model_without_repeated_layers_is_not_shared_out():
    model = torch.nn.Linear(2, 2)
    model._no_split_modules = None
    store = SimpleNamespace()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetune_trainer.computing.sharding.DeviceMesh", SimpleNamespace(from_group=lambda *_: store))
        patch.setattr(
            "finetune_trainer.computing.sharding.distributed", SimpleNamespace(group=SimpleNamespace(WORLD=None))
        )
        with pytest.raises(TrainerError, match="no repeated layers") as refusal:
            shard(model, None, "cpu", torch.float32)
    assert refusal.value.reason == Reason.INSUFFICIENT_MEMORY
