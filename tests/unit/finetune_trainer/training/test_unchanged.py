"""Own code that leaves its base model as it was: told as that in whatever form it is saved, and only then."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_api.job_status import NOTHING_LEARNT
from finetune_trainer.training import own_model
from finetune_trainer.training.unchanged import nothing_learnt
from tests.assets.tiny_model import NAME
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.training.own_jobs import left

__all__ = ["left"]


def told(job, base, folder):
    return nothing_learnt(base, folder, own_model.load(job, base, folder, torch.float32))


def moved(folder, file, part):
    """The same weights, one number of the first tensor with this in its name moved a little."""
    weights = load_file(folder / file)
    weights[next(name for name in sorted(weights) if part in name)].view(-1)[-1] += 2e-2
    save_file(weights, folder / file, {"format": "pt"})


def test_an_adapter_that_was_never_trained_is_told_as_one(left):
    job, base, folder = left
    (said,) = told(job, base, folder)
    assert said.startswith(NOTHING_LEARNT)
    assert "Look at whether it saves what it trains" in said
    moved(folder, "adapter_model.safetensors", "lora_B")
    assert told(job, base, folder) is None


@pytest.fixture(scope="module")
def biased(tmp_path_factory):
    """A base whose attention has biases, under names that transformers gives to none of its own models."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("biased")
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads, attention_bias=True, tie_word_embeddings=True))
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value)
    model.save_pretrained(folder)
    return folder


def adapter(base, folder, dtype, **how):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    how = {"target_modules": ["q_proj", "v_proj"], **how}
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **how)).save_pretrained(folder)


BESIDE = {
    "bias": {"bias": "all"},
    "lora_magnitude_vector": {"use_dora": True},
    "lora_B.bias": {"lora_bias": True},
    "lora_embedding_A": {"use_dora": True, "target_modules": ["q_proj", "embed_tokens"]},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("part", BESIDE)
def test_what_an_adapter_has_beside_its_halves_is_looked_at_too(biased, tmp_path, part, dtype):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter(biased, tmp_path, dtype, **BESIDE[part])

    def said():
        model = AutoModelForCausalLM.from_pretrained(biased, dtype=dtype)
        return nothing_learnt(biased, tmp_path, PeftModel.from_pretrained(model, tmp_path))

    assert said()
    moved(tmp_path, "adapter_model.safetensors", part)
    assert said() is None


@pytest.mark.parametrize("had", [torch.float32, torch.bfloat16], ids=str)
def test_the_code_may_have_had_the_base_in_other_numbers(biased, tmp_path, had):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter(biased, tmp_path, had, use_dora=True)
    judged = torch.bfloat16 if had is torch.float32 else torch.float32
    base = AutoModelForCausalLM.from_pretrained(biased, dtype=judged)
    assert nothing_learnt(biased, tmp_path, PeftModel.from_pretrained(base, tmp_path))
    moved(tmp_path, "adapter_model.safetensors", "lora_magnitude_vector")
    base = AutoModelForCausalLM.from_pretrained(biased, dtype=judged)
    assert nothing_learnt(biased, tmp_path, PeftModel.from_pretrained(base, tmp_path)) is None


def test_an_adapter_with_parts_of_another_kind_is_not_judged(biased, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter(biased, tmp_path, torch.float32, trainable_token_indices=[1, 2])
    assert any("trainable_tokens" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(biased), tmp_path)
    assert nothing_learnt(biased, tmp_path, model) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("what", [None, "model.embed_tokens.weight", "model.norm.weight", "more words"])
def test_a_whole_model_with_the_bases_weights_is_told_as_one(tiny_model, tmp_path, dtype, what):
    from transformers import AutoModelForCausalLM

    job, base = make_job(tmp_path, tiny_model, splits=("train",)), tiny_model / NAME
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    if what == "more words":
        model.resize_token_embeddings(model.config.vocab_size + 8)
    elif what:
        model.get_parameter(what).data.flatten()[-1] += 1
    model.save_pretrained(tmp_path / "left")
    said = told(job, base, tmp_path / "left")
    assert (said and said[0].startswith(NOTHING_LEARNT)) == (None if what else True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_names_that_a_library_has_changed_hide_nothing(tmp_path, dtype):
    """GPT-2's files have its layers without what transformers puts before them when it saves them again."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    base, folder = tmp_path / "base", tmp_path / "left"
    GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2)).save_pretrained(base)
    weights = load_file(base / "model.safetensors")
    bare = {name.removeprefix("transformer."): value for name, value in weights.items()}
    assert bare.keys().isdisjoint(weights)
    save_file(bare, base / "model.safetensors", {"format": "pt"})
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    model.save_pretrained(folder)
    assert nothing_learnt(base, folder, model)
    moved(folder, "model.safetensors", "h.1.mlp.c_proj.weight")
    assert nothing_learnt(base, folder, model) is None
    adapter(base, tmp_path / "added", dtype, target_modules=["c_attn"], use_dora=True, bias="all")
    assert nothing_learnt(base, tmp_path / "added", PeftModel.from_pretrained(model, tmp_path / "added"))


def test_a_base_in_fp8_with_one_scale_a_layer_is_known_in_what_own_code_has_left(tiny_model, tmp_path):
    base, folder = (shutil.copytree(tiny_model / NAME, tmp_path / name) for name in ("base", "left"))
    weights = load_file(base / "model.safetensors")
    name = next(name for name in weights if name.endswith("up_proj.weight"))
    stored = (2 * weights[name]).to(torch.float8_e4m3fn)
    save_file(weights | {name: stored, f"{name}_scale_inv": torch.tensor(0.5)}, base / "model.safetensors")
    save_file(weights | {name: stored.float() / 2}, folder / "model.safetensors")
    assert nothing_learnt(base, folder, torch.nn.Module())
    save_file(weights | {name: stored.float()}, folder / "model.safetensors")
    assert nothing_learnt(base, folder, torch.nn.Module()) is None
