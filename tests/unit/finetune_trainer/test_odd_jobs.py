"""Jobs and base models at the edge of what is usual: they are tuned as well, or refused in words."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_api.exit_codes import ExitCode
from finetune_api.job import LoRA
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import base_model, base_refusals
from finetune_trainer.models.adapters import with_adapters
from finetune_trainer.training import loop, objective
from finetune_trainer.training.gradients import Gradients
from finetune_trainer.training.objective import by_loss
from finetune_trainer.training.passes import loss_sum
from tests.assets.tiny_model import NAME
from tests.unit.finetune_trainer.data.chat_templates import THINKING
from tests.unit.finetune_trainer.jobs import make_job, make_preference_job, write_rows
from tests.unit.finetune_trainer.serving.served_models import make_adapter
from tests.unit.finetune_trainer.training_runs import do


@pytest.fixture
def own_model(tiny_model, tmp_path):
    """A copy of the tiny model that a test may change: its cache and its folder."""
    shutil.copytree(tiny_model / NAME, tmp_path / "cache" / NAME)
    return tmp_path / "cache", tmp_path / "cache" / NAME


def edit(path: Path, **fields: object) -> None:
    """Put fields into a JSON file; None takes one out."""
    value = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: field for name, field in value.items() if field is not None}))


def job_with_rows(folder: Path, cache: Path, count: int, **spec):
    job = make_job(folder, cache, splits=("train",), **spec)
    write_rows(folder / "train.jsonl", count, seed=0)
    return job


def record(job) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(job.output) / "metrics.jsonl").read_text().splitlines()]


def second_halves(job) -> list[torch.Tensor]:
    weights = load_file(Path(job.output) / "model" / "adapter_model.safetensors")
    return [value for name, value in weights.items() if "lora_B" in name]


def test_a_single_row_and_a_part_of_an_epoch_are_one_step_that_learns(tiny_model, tmp_path):
    job = job_with_rows(tmp_path, tiny_model, 1, hyperparameters={"epochs": 0.1, "batchSize": 16})
    code, report, _ = do(job)
    assert (code, report.result.steps) == (ExitCode.OK, 1)
    assert [line["learningRate"] for line in record(job)] == [0.01]
    assert all(value.abs().max() > 0 for value in second_halves(job))


def test_the_record_has_the_norm_of_the_gradients_before_they_were_clipped(tiny_model, tmp_path):
    job = job_with_rows(tmp_path, tiny_model, 4, hyperparameters={"epochs": 2, "maxGradNorm": 1e-6})
    assert do(job)[0] == ExitCode.OK
    assert all(line["gradNorm"] > 1e-3 for line in record(job))


@pytest.mark.parametrize("spec", [{}, {"method": "Full"}, {"preference": {}}], ids=["LoRA", "Full", "preference"])
def test_a_base_models_own_dropout_counts_from_the_first_step_on_in_every_attempt(
    tiny_model, tmp_path, monkeypatch, spec
):
    seen = []
    of_step = Gradients.of_step

    def look(self, model, *args):
        seen.append(all(module.training for module in model.modules()))
        return of_step(self, model, *args)

    monkeypatch.setattr(Gradients, "of_step", look)
    make = make_preference_job if "preference" in spec else make_job
    hyper = {"epochs": 0.4, "packing": False}
    job = make(tmp_path, tiny_model, splits=("train",), hyperparameters=hyper, **spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "finetune_trainer.output.artifact.save_weights", lambda *_: (_ for _ in ()).throw(OSError(28, "full"))
        )
        assert do(job)[0] == ExitCode.ARTIFACT_FAILED
    shutil.rmtree(Path(job.output) / "checkpoints" / "step-00000002")
    assert do(job)[0] == ExitCode.OK
    assert seen == [True] * 3


def test_gradients_that_overflow_end_the_run_although_the_loss_is_a_number(tiny_model, tmp_path, monkeypatch):
    class Overflow(torch.autograd.Function):
        @staticmethod
        def forward(_context, loss):
            return loss.clone()

        @staticmethod
        def backward(_context, gradient):
            return gradient * float("inf")

    monkeypatch.setattr(objective, "LIKELIHOOD", by_loss(lambda *args: Overflow.apply(loss_sum(*args))))
    job = job_with_rows(tmp_path, tiny_model, 4)
    code, report, _ = do(job)
    assert (code, report.failure.reason) == (ExitCode.TRAINING_DIVERGED, "TrainingDiverged")
    assert report.failure.message == "the gradients of step 1 are not finite numbers"
    assert not (Path(job.output) / "checkpoints").exists()


def test_a_model_that_its_last_step_has_spoilt_is_refused(tiny_model, tmp_path):
    job = job_with_rows(tmp_path, tiny_model, 8, method="Full", hyperparameters={"epochs": 1, "learningRate": 1})
    code, report, _ = do(job)
    assert (code, report.failure.reason) == (ExitCode.TRAINING_DIVERGED, "TrainingDiverged")
    assert report.failure.message.startswith("the last step took the training loss from ")


def test_trap_13_no_vocabulary_grows_a_tokenizer_with_more_tokens_than_the_model_is_refused(own_model, tmp_path):
    cache, folder = own_model
    weights = load_file(folder / "model.safetensors")
    table = "model.embed_tokens.weight"
    save_file(weights | {table: weights[table][:100].clone()}, folder / "model.safetensors", {"format": "pt"})
    edit(folder / "config.json", vocab_size=100)
    code, report, _ = do(job_with_rows(tmp_path, cache, 4))
    assert (code, report.failure.reason) == (ExitCode.MODEL_UNUSABLE, "ModelUnusable")
    assert "it knows only 100 tokens" in report.failure.message


@pytest.mark.parametrize("method", ["LoRA", "Full"])
def test_a_base_model_without_all_of_its_weights_is_refused_and_nothing_is_made_up(own_model, tmp_path, method):
    cache, folder = own_model
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    code, report, _ = do(job_with_rows(tmp_path, cache, 4, method=method))
    assert (code, report.failure.reason) == (ExitCode.MODEL_UNUSABLE, "ModelUnusable")
    assert "model.layers.1.mlp.up_proj.weight cannot be found" in report.failure.message


def test_weights_in_bfloat16_are_tuned_in_full_on_a_cpu(own_model, tmp_path):
    cache, folder = own_model
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: value.bfloat16() for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    edit(folder / "config.json", dtype="bfloat16")
    job = job_with_rows(tmp_path, cache, 8, method="Full", hyperparameters={"epochs": 2})
    assert do(job)[0] == ExitCode.OK
    tuned = load_file(Path(job.output) / "model" / "model.safetensors")
    assert {value.dtype for value in tuned.values()} == {torch.float32}
    first, *_, last = record(job)
    assert last["loss"] < first["loss"]


def test_precision_bfloat16_keeps_adapters_in_float32_and_saves_full_weights_in_bfloat16(tiny_model, tmp_path):
    hyper = {"epochs": 0.4, "precision": "BFloat16"}
    adapted = job_with_rows(tmp_path / "lora", tiny_model, 8, hyperparameters=hyper)
    full = job_with_rows(tmp_path / "full", tiny_model, 8, hyperparameters=hyper, method="Full")
    assert (do(adapted)[0], do(full)[0]) == (ExitCode.OK, ExitCode.OK)
    assert {value.dtype for value in second_halves(adapted)} == {torch.float32}
    tuned = load_file(Path(full.output) / "model" / "model.safetensors")
    assert {value.dtype for value in tuned.values()} == {torch.bfloat16}


def test_a_base_model_without_template_pad_or_end_of_sequence_is_tuned(own_model, tmp_path):
    cache, folder = own_model
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    edit(folder / "tokenizer_config.json", eos_token=None, pad_token=None, chat_template=None)
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    edit(folder / "config.json", eos_token_id=None, pad_token_id=None, bos_token_id=None)
    (folder / "generation_config.json").unlink(missing_ok=True)
    job = make_job(
        tmp_path, cache, splits=("train", "test"), hyperparameters={"epochs": 0.4}, evaluation={"maxNewTokens": 2}
    )
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    assert any("the tuned model stops only at its token limit" in warning for warning in report.dataset.warnings)


def test_what_a_model_that_reasons_thinks_is_not_measured(own_model, tmp_path):
    """It learns the empty thought that its template writes before each answer, as Qwen3 does."""
    cache, folder = own_model
    (folder / "chat_template.jinja").write_text(THINKING)
    spec = {"epochs": 12, "learningRate": 0.01}
    job = make_job(tmp_path, cache, splits=("train", "test"), method="Full", hyperparameters=spec)
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    first = json.loads((Path(job.output) / "model" / "evaluation.jsonl").read_text().splitlines()[0])
    assert "think" not in first["answers"]["tuned"]["answer"]
    assert report.evaluation.tuned.exact_match > 0.8


SAMPLING = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20}
TASTE = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "max_new_tokens": 7, "min_length": 3, "num_beams": 4}


@pytest.mark.parametrize(
    "spec", [{"method": "Full"}, {}, {"artifact": {"merge": True}}], ids=["Full", "LoRA", "merged"]
)
def test_an_artifact_samples_as_its_base_recommends_and_hands_no_other_taste_on(own_model, tmp_path, spec):
    """vLLM heeds some of it, transformers all and our server none; it was measured without."""
    cache, folder = own_model
    (folder / "generation_config.json").write_text(json.dumps(SAMPLING | TASTE | {"eos_token_id": [0, 2]}))
    job = job_with_rows(tmp_path, cache, 4, hyperparameters={"epochs": 0.4}, **spec)
    assert do(job)[0] == ExitCode.OK
    found = json.loads((Path(job.output) / "model" / "generation_config.json").read_text())
    found.pop("transformers_version")
    assert found == SAMPLING | {"eos_token_id": [2, 0], "pad_token_id": 2}


@pytest.mark.parametrize("method", ["LoRA", "Full"])
def test_a_base_whose_settings_contradict_each_other_is_tuned_and_generates_plainly(own_model, tmp_path, method):
    cache, folder = own_model
    contradiction = {"do_sample": False, "temperature": 0.6, "top_p": 0.9}
    (folder / "generation_config.json").write_text(json.dumps(contradiction))
    job = job_with_rows(tmp_path, cache, 4, hyperparameters={"epochs": 0.4}, method=method)
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    found = json.loads((Path(job.output) / "model" / "generation_config.json").read_text())
    assert found.keys() == {"eos_token_id", "pad_token_id", "transformers_version"}


SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 48}


@pytest.mark.parametrize(
    ("kind", "fields", "known"),
    [
        ("gpt2", {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 48}, 48),
        ("opt", SMALL | {"ffn_dim": 32, "word_embed_proj_dim": 32}, 48),
        ("gptj", {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 48, "rotary_dim": 4}, 48),
        ("llama", SMALL | {"intermediate_size": 32}, None),
        ("bloom", {"hidden_size": 32, "n_layer": 1, "n_head": 4}, None),
    ],
)
def test_rows_longer_than_a_table_of_positions_are_refused_where_the_model_has_one(kind, fields, known, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=64, **fields))
    ids = torch.arange(49)[None]
    with torch.no_grad(), pytest.raises((IndexError, RuntimeError)) if known else contextlib.nullcontext():
        model(input_ids=ids)
    base_refusals.require_positions(tmp_path, model, 48)
    with pytest.raises(TrainerError, match="49 is more than the 48 tokens") if known else contextlib.nullcontext():
        base_refusals.require_positions(tmp_path, model, 49)


def test_a_linear_layer_that_chooses_experts_gets_no_adapter():
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = SMALL | {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 32, "intermediate_size_mlp": 32}
    fields |= {"num_local_experts": 2, "interleave_moe_layer_step": 1, "attn_temperature_tuning": False}
    config = AutoConfig.for_model("llama4_text", vocab_size=64, pad_token_id=0, **fields)
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(TrainerError, match="router chooses experts, and takes no adapter"):
        with_adapters(model, LoRA(target_modules="q_proj,router"), "x")
    tuned = with_adapters(model, LoRA(), "x")
    assert "q_proj" in tuned.peft_config["default"].target_modules
    assert tuned(input_ids=torch.arange(6)[None]).logits.shape == (1, 6, 64)


def test_a_model_whose_state_cannot_be_given_back_is_refused_before_it_is_loaded(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "rwkv", "architectures": ["RwkvForCausalLM"]}))
    with pytest.raises(TrainerError, match="could be neither measured nor served"):
        base_model.load_model(tmp_path, dtype=torch.float32)


def test_a_model_that_looks_at_what_follows_is_refused_before_it_learns_to_read_answers_off(own_model, tmp_path):
    from transformers import XLMConfig, XLMWithLMHeadModel

    cache, folder = own_model
    shape = {"emb_dim": 32, "n_layers": 1, "n_heads": 4, "embed_init_std": 1.0, "init_std": 0.3}
    XLMWithLMHeadModel(XLMConfig(vocab_size=400, **shape)).save_pretrained(folder)
    code, report, _ = do(job_with_rows(tmp_path, cache, 4))
    assert (code, report.failure.reason) == (ExitCode.MODEL_UNUSABLE, "ModelUnusable")
    assert "depends on those after it: it is not a causal model" in report.failure.message
    assert report.failure.next_step


def of_kind(folder: Path, kind: str, **fields) -> None:
    """Put a tiny model of another kind into a folder, in the place of the one that is there."""
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 400}
    config = AutoConfig.for_model(kind, **small, **fields)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


ENDS_IN_TRAINING = {"kind": "xmod", "num_attention_heads": 4, "is_decoder": True}
"""It wants to be told the language of a text, which nobody does."""
ENDS_IN_ANSWERS = {"kind": "xlstm", "num_heads": 4, "num_blocks": 2, "chunk_size": 16}
"""It begins with a state of another shape than the one it goes on with."""


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (ENDS_IN_TRAINING, "a pass on trial fails in its own code (ValueError at modeling_xmod.py:"),
        (ENDS_IN_ANSWERS, "an answer on trial fails in its own code (ValueError at modeling_xlstm.py:"),
    ],
    ids=["training", "answers"],
)
def test_a_model_whose_own_code_fails_is_refused_before_it_is_trained(own_model, tmp_path, fields, said):
    cache, folder = own_model
    of_kind(folder, **fields)
    code, report, _ = do(make_job(tmp_path, cache, splits=("train", "test"), hyperparameters={"epochs": 0.2}))
    assert (code, report.failure.reason) == (ExitCode.MODEL_UNUSABLE, "ModelUnusable")
    assert said in report.failure.message
    assert "another base model" in report.failure.next_step
    assert report.progress is None


@pytest.mark.parametrize(
    ("files", "said", "step"),
    [
        (("adapter_config.json",), "it is an adapter, and no model", f"Name what it is on ({NAME}), or a model that"),
        (
            ("adapter_config.json", "adapter_model.safetensors", "config.json", "model.safetensors"),
            "there is an adapter next to its weights",
            f"Take the adapter out of the folder, or name what it is on ({NAME})",
        ),
    ],
)
@pytest.mark.parametrize("method", ["LoRA", "Full"])
def test_an_adapter_is_no_base_model_and_is_put_on_none_unasked(own_model, tmp_path, files, said, step, method):
    cache, folder = own_model
    make_adapter(cache, tmp_path / "adapter")
    shutil.copytree(tmp_path / "adapter", folder, dirs_exist_ok=True)
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        if name not in files:
            (folder / name).unlink()
    code, report, _ = do(job_with_rows(tmp_path, cache, 4, method=method))
    assert code == ExitCode.MODEL_UNUSABLE
    assert said in report.failure.message
    assert report.failure.next_step.startswith(step)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("said", [None, {"quant_method": "of-tomorrow"}])
def test_weights_in_bytes_are_not_taken_for_the_numbers_themselves(own_model, tmp_path, dtype, said):
    cache, folder = own_model
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(weights | {name: weights[name].to(dtype)}, folder / "model.safetensors", {"format": "pt"})
    edit(folder / "config.json", quantization_config=said)
    code, report, _ = do(job_with_rows(tmp_path, cache, 4))
    assert code == ExitCode.MODEL_UNUSABLE
    assert f"{name} is stored in 8 bits or fewer" in report.failure.message
    assert "weights of 16 or 32 bits" in report.failure.next_step


def test_numbers_that_become_none_are_the_models_fault_and_not_that_of_the_learning_rate(own_model, tmp_path):
    cache, folder = own_model
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"].fill_(3e38)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    code, report, _ = do(job_with_rows(tmp_path, cache, 4))
    assert code == ExitCode.MODEL_UNUSABLE
    assert "before any training its loss is not a finite number" in report.failure.message
    assert "learningRate" not in report.failure.next_step


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "model.fp16.safetensors"])
def test_weights_without_all_of_their_files_are_to_be_put_there_again(own_model, tmp_path, name):
    cache, folder = own_model
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / name)
    if "-of-" in name:
        second = dict.fromkeys(list(weights)[5:], name.replace("00001-", "00002-"))
        index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name) | second}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    code, report, _ = do(job_with_rows(tmp_path, cache, 4))
    assert code == ExitCode.MODEL_UNUSABLE
    assert report.failure.next_step.startswith("A file of weights is missing, damaged or not whole")


def test_a_model_that_can_be_trained_and_not_asked_is_trained_where_nothing_is_asked(own_model, tmp_path):
    cache, folder = own_model
    of_kind(folder, **ENDS_IN_ANSWERS)
    assert do(make_job(tmp_path, cache, splits=("train",), hyperparameters={"epochs": 0.2}))[0] == ExitCode.OK


def test_trap_13_tied_embeddings_stay_tied_in_full_tuning(tiny_model, tmp_path):
    from transformers import AutoModelForCausalLM

    job = job_with_rows(tmp_path, tiny_model, 8, method="Full", hyperparameters={"epochs": 2, "checkpointSteps": 1})
    assert do(job)[0] == ExitCode.OK
    folder = Path(job.output) / "model"
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("spec", [{"method": "Full"}, {"artifact": {"merge": True}}], ids=["Full", "merged"])
def test_trap_13_a_head_that_the_file_has_beside_tied_embeddings_is_saved_as_one_of_its_own(own_model, tmp_path, spec):
    """Transformers uses it whatever config.json says, vLLM only where that does not call it tied."""
    cache, folder = own_model
    weights = load_file(folder / "model.safetensors")
    head = torch.randn(weights["model.embed_tokens.weight"].shape, generator=torch.Generator().manual_seed(3))
    save_file(weights | {"lm_head.weight": head}, folder / "model.safetensors", {"format": "pt"})
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is True
    job = job_with_rows(tmp_path, cache, 4, hyperparameters={"epochs": 0.4}, **spec)
    assert do(job)[0] == ExitCode.OK
    tuned = Path(job.output) / "model"
    assert json.loads((tuned / "config.json").read_text())["tie_word_embeddings"] is False
    torch.testing.assert_close(load_file(tuned / "model.safetensors")["lm_head.weight"], head, atol=0.1, rtol=0)


def test_an_adapter_loads_with_plain_peft_and_changes_what_the_base_says(tiny_model, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    job = job_with_rows(tmp_path, tiny_model, 16)
    assert do(job)[0] == ExitCode.OK
    folder = Path(job.output) / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model / NAME), folder).eval()
    inputs = tokenizer("What colour", return_tensors="pt")
    with torch.no_grad():
        tuned = model(**inputs).logits
        with model.disable_adapter():
            base = model(**inputs).logits
    assert not torch.allclose(tuned, base)


def test_two_gpus_of_a_machine_do_not_tear_a_step_apart(tmp_path, monkeypatch):
    from transformers import TrainingArguments

    from finetune_api.job import Hyperparameters

    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: self._n_gpu or 2))
    made = loop.arguments(
        Hyperparameters(), learning_rate=1e-4, total_steps=3, output=tmp_path, activation_checkpointing=False
    )
    assert made.n_gpu == 1


def test_a_job_run_again_on_rows_that_were_edited_is_not_called_done(tiny_model, tmp_path):
    job = job_with_rows(tmp_path, tiny_model, 4, hyperparameters={"epochs": 0.4})
    assert do(job)[0] == ExitCode.OK
    assert do(job)[2] == ["Validating", "Succeeded"]
    write_rows(tmp_path / "train.jsonl", 5, seed=1)
    code, report, _ = do(job)
    assert code == ExitCode.SPEC_INVALID
    assert "train.jsonl has changed since" in report.failure.message


def scaled_weights(folder):
    """Another model of the same shapes."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file({name: value * 1.05 for name, value in load_file(path).items()}, path, metadata={"format": "pt"})


def wider_model(folder):
    from tests.assets.tiny_model import make_tiny_model

    shutil.rmtree(folder)
    make_tiny_model(folder.parents[1], width=64)


@pytest.mark.parametrize("replace_base", [wider_model, scaled_weights])
def test_a_checkpoint_of_another_base_model_of_the_same_name_is_refused(own_model, tmp_path, replace_base):
    cache, folder = own_model
    job = job_with_rows(tmp_path, cache, 8, hyperparameters={"epochs": 0.4})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "finetune_trainer.output.artifact.save_weights", lambda *_: (_ for _ in ()).throw(OSError(28, "full"))
        )
        assert do(job)[0] == ExitCode.ARTIFACT_FAILED
    replace_base(folder)
    code, report, _ = do(job)
    assert code == ExitCode.SPEC_INVALID
    assert "another base model of the same name" in report.failure.message


def test_scratch_space_that_is_full_is_not_taken_for_the_output(monkeypatch, tmp_path):
    from finetune_trainer.training.token_store import TokenStore

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(TrainerError, match="No space left on device") as caught:
        TokenStore([([1], [1])], scratch=tmp_path)
    assert "ephemeralStorage" in caught.value.next_step
