"""The model that own code left: taken where every server can answer with it, and else refused in words."""

import json
import os
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_api.job_status import TOKENIZER_LEFT_OUT
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import base_model
from finetune_trainer.training import left_tokenizer, own_model
from tests.assets.tiny_model import NAME, make_tiny_model
from tests.assets.tiny_seq2seq import T5, make_tiny_t5
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.training.own_jobs import left

__all__ = ["left"]


def spoil_weights(change):
    def spoil(folder):
        weights = load_file(folder / "adapter_model.safetensors")
        change(weights)
        save_file(weights, folder / "adapter_model.safetensors")

    return spoil


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def edit_config(**fields):
    return lambda folder: edit(folder / "adapter_config.json", **fields)


def into_a_folder(folder):
    (folder / "checkpoint-8").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).rename(folder / "checkpoint-8" / name)


def add_table(rows, start=0.0):
    """As peft saves it where there are more words, or an adapter on them."""
    return lambda weights: weights.update({TABLE: torch.full((rows, 32), start)})


TABLE = "base_model.model.model.embed_tokens.weight"


def first(weights):
    return next(iter(weights))


SPOILT = {
    "pickled weights": (
        lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"),
        "pickled weights are not loaded",
    ),
    "a number that is none": (
        spoil_weights(lambda weights: weights[first(weights)].fill_(float("nan"))),
        "holds numbers that are not finite",
    ),
    "a weight that is missing": (spoil_weights(lambda weights: weights.pop(first(weights))), "lacks weights"),
    "a weight of another shape": (
        spoil_weights(lambda weights: weights.update({first(weights): torch.zeros(2, 2)})),
        "it cannot be loaded",
    ),
    "another base": (
        edit_config(base_model_name_or_path="test/other"),
        "an adapter for other, not for test/tiny-llama",
    ),
    "no kind of adapter": (
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        "an adapter of type None; only LoRA is served",
    ),
    "another kind of adapter": (edit_config(peft_type="IA3"), "an adapter of type IA3; only LoRA is served"),
    "a file that is not whole": (
        lambda folder: os.truncate(folder / "adapter_model.safetensors", 2000),
        "adapter_model.safetensors has 2000 bytes, its header speaks of",
    ),
    "in a folder below": (
        into_a_folder,
        "neither adapter_config.json nor config.json; the folder checkpoint-8 in it has",
    ),
    "layers beside it": (edit_config(modules_to_save=["lm_head"]), "its modules_to_save are whole layers"),
    "more words": (spoil_weights(add_table(999)), "its model.embed_tokens.weight is a whole layer"),
    "other words": (spoil_weights(add_table(377)), "its model.embed_tokens.weight is a whole layer"),
    "its beginning taken out of the base": (
        edit_config(init_lora_weights="pissa_niter_4"),
        "its init_lora_weights, pissa_niter_4, has changed the base model",
    ),
    "a whole model beside it": (
        lambda folder: (folder / "model.safetensors.index.json").write_text("{}"),
        "it is both an adapter and a whole model",
    ),
    "whole numbers": (
        spoil_weights(lambda weights: weights.update({first(weights): weights[first(weights)].to(torch.int8)})),
        "is stored as numbers that are not weights, or in 8 bits",
    ),
    "broken JSON": (
        lambda folder: (folder / "adapter_config.json").write_text("{"),
        "adapter_config.json cannot be read",
    ),
}


def test_a_good_adapter_is_taken_and_names_its_base(left):
    job, base, folder = left
    model = own_model.load(job, base, folder, torch.float32)
    assert model.peft_config["default"].base_model_name_or_path == NAME


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_no_adapter_on_the_base_is_refused(left, what):
    spoil, words = SPOILT[what]
    job, base, folder = left
    spoil(folder)
    with pytest.raises(TrainerError) as caught:
        own_model.load(job, base, folder, torch.float32)
    assert caught.value.reason == "CodeFailed"
    assert "left no model that can be served" in caught.value.message
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("spoil", "step"),
    [
        (edit_config(peft_type="IA3"), "merge the adapter (merge_and_unload), save the whole model"),
        (edit_config(peft_type="PROMPT_TUNING"), "train a LoRA adapter (peft's LoraConfig)"),
        (edit_config(base_model_name_or_path="test/other"), "begin with the model in the context's base_model folder"),
    ],
    ids=["merged", "learnt prompts", "another base"],
)
def test_the_next_step_is_that_of_what_is_wrong(left, spoil, step):
    job, base, folder = left
    spoil(folder)
    with pytest.raises(TrainerError) as caught:
        own_model.load(job, base, folder, torch.float32)
    assert step in caught.value.next_step


def test_what_is_left_on_a_base_that_is_stored_in_4_bits_is_taken(tmp_path):
    from peft import LoraConfig, get_peft_model

    base, cache = make_tiny_model(tmp_path / "wide", width=64), tmp_path / "cache"
    folder, job = shutil.copytree(base, cache / NAME), make_job(tmp_path, cache, splits=("train",))
    in_4_bits = base_model.load_model(base, dtype=torch.float32, four_bits=True)
    in_4_bits.save_pretrained(folder)
    assert own_model.load(job, folder, folder, torch.float32).is_loaded_in_4bit, "a whole model of that kind"
    get_peft_model(in_4_bits, LoraConfig(task_type="CAUSAL_LM")).save_pretrained(tmp_path / "left")
    edit_config(base_model_name_or_path=NAME)(tmp_path / "left")
    assert own_model.load(job, folder, tmp_path / "left", torch.float32).is_loaded_in_4bit


def test_an_adapter_on_words_is_taken_with_the_table_that_peft_saves_beside_it(tiny_model, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model / NAME)
    adapted = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "embed_tokens"])
    get_peft_model(base, adapted).save_pretrained(tmp_path / "left")
    assert any("base_layer" in name for name in load_file(tmp_path / "left" / "adapter_model.safetensors"))
    job = make_job(tmp_path, tiny_model, splits=("train",))
    assert own_model.load(job, tiny_model / NAME, tmp_path / "left", torch.bfloat16).peft_config


def rounded_unsaid(dtype):
    def spoil(folder):
        weights = load_file(folder / "model.safetensors")
        weights = {name: value.to(dtype) if "proj" in name else value for name, value in weights.items()}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words", "step"),
    [
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pickled", "Let the code"),
        (
            lambda folder: edit(folder / "config.json", quantization_config={"quant_method": "bitsandbytes"}),
            "its weights are rounded to fewer bits (quantization_config: bitsandbytes)",
            "without quantization_config",
        ),
        (rounded_unsaid(torch.int8), "proj.weight is stored as numbers that are not weights", "as floats of 16 or 32"),
        (rounded_unsaid(torch.float8_e4m3fn), "proj.weight is stored as numbers", "as floats of 16 or 32"),
    ],
    ids=["pickled", "rounded", "whole numbers", "8 bits"],
)
def test_a_whole_model_whose_weights_no_server_loads_is_refused(tiny_model, tmp_path, spoil, words, step):
    shutil.copytree(tiny_model / NAME, tmp_path / "left")
    spoil(tmp_path / "left")
    with pytest.raises(TrainerError) as caught:
        own_model.load(make_job(tmp_path, tiny_model), tiny_model / NAME, tmp_path / "left", torch.float32)
    assert words in caught.value.message
    assert step in caught.value.next_step


@pytest.mark.parametrize("odd", [{"alpha_pattern": {"q_proj": 8}}, {"bias": "lora_only"}], ids=str)
def test_an_adapter_that_peft_alone_reads_is_taken_with_what_it_has(left, odd):
    job, base, folder = left
    edit_config(**odd)(folder)
    taken = own_model.load(job, base, folder, torch.float32).peft_config["default"]
    assert {name: getattr(taken, name) for name in odd} == odd


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"intermediate_size": 128}, "mlp.gate_proj.weight"), ({"num_key_value_heads": 4}, "self_attn.k_proj.weight")],
)
def test_a_whole_model_of_the_base_models_kind_and_of_other_measures_is_refused(tiny_model, tmp_path, changes, name):
    from transformers import AutoConfig, AutoModelForCausalLM

    job = make_job(tmp_path, tiny_model, splits=("train",))
    config = AutoConfig.from_pretrained(tiny_model / NAME, **changes)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "left")
    with pytest.raises(TrainerError, match=rf"{re.escape(name)} has another size than that of test/tiny-llama"):
        own_model.load(job, tiny_model / NAME, tmp_path / "left", torch.float32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: None, None),
        (lambda tokenizer: tokenizer("a", padding="max_length", truncation=True, max_length=8), None),
        (lambda tokenizer: tokenizer.add_tokens(["<a>", "<b>"]), "it has 2 tokens more than the base model's"),
        (lambda tokenizer: setattr(tokenizer, "chat_template", "{{ messages }}"), "it has another chat template than"),
    ],
    ids=["untouched", "used", "more", "template"],
)
def test_a_tokenizer_that_nobody_will_use_is_told(tiny_model, tmp_path, change, said):
    from transformers import AutoTokenizer

    assert left_tokenizer.left_out(tiny_model / NAME, tmp_path) is None, "there is none"
    tokenizer = AutoTokenizer.from_pretrained(tiny_model / NAME)
    change(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    told = left_tokenizer.left_out(tiny_model / NAME, tmp_path)
    assert told == said or (told[0].startswith(TOKENIZER_LEFT_OUT) and said in told[0])


def test_a_whole_model_with_more_words_is_taken(tiny_model, tmp_path):
    from transformers import AutoModelForCausalLM

    job = make_job(tmp_path, tiny_model, splits=("train",))
    model = AutoModelForCausalLM.from_pretrained(tiny_model / NAME)
    model.resize_token_embeddings(model.config.vocab_size + 8)
    model.save_pretrained(tmp_path / "left")
    loaded = own_model.load(job, tiny_model / NAME, tmp_path / "left", torch.float32)
    assert loaded.config.vocab_size == model.config.vocab_size


def test_a_t5_that_was_saved_in_float16_is_measured_in_32_bits(tmp_path):
    from transformers import AutoModelForSeq2SeqLM

    base, job = make_tiny_t5(tmp_path), make_job(tmp_path, tmp_path, baseModel=T5, splits=("train",))
    AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.float16).save_pretrained(tmp_path / "left")
    assert own_model.load(job, base, tmp_path / "left", torch.float32).dtype is torch.float32


def test_a_whole_model_of_another_shape_or_with_missing_weights_is_refused(tiny_model, tmp_path):
    job = make_job(tmp_path, tiny_model, splits=("train",))
    other = make_tiny_model(tmp_path / "other", width=64)
    with pytest.raises(TrainerError, match="its hidden_size is not that of test/tiny-llama"):
        own_model.load(job, tiny_model / NAME, other, torch.float32)
    same = make_tiny_model(tmp_path / "same")
    weights = load_file(same / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, same / "model.safetensors", {"format": "pt"})
    with pytest.raises(TrainerError, match=r"not those of its configuration: model\.norm\.weight"):
        own_model.load(job, tiny_model / NAME, same, torch.float32)
    edit(other / "config.json", hidden_size=32, intermediate_size=64, quantization_config={"quant_method": "mxfp4"})
    with pytest.raises(TrainerError, match="not those of its configuration") as refused:
        own_model.load(job, other, same, torch.float32)
    assert "load_model of finetune_trainer.recipe" in refused.value.next_step, (
        "as transformers saves what it dequantised"
    )


def test_a_whole_model_of_zeros_is_refused(tiny_model, tmp_path):
    from transformers import AutoModelForCausalLM

    job = make_job(tmp_path, tiny_model, splits=("train",))
    model = AutoModelForCausalLM.from_pretrained(tiny_model / NAME)
    model.model.embed_tokens.weight.data.zero_()
    model.save_pretrained(tmp_path / "left")
    with pytest.raises(TrainerError, match=r"embed_tokens\.weight holds nothing but zeros"):
        own_model.load(job, tiny_model / NAME, tmp_path / "left", torch.float32)
