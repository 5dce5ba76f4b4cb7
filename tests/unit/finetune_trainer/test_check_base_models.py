"""`finetune-trainer check` of a base model in the cache: what training would refuse of it is refused here."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.auto import modeling_auto
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

from finetune_api.connection import LLMConnectionSpec
from finetune_api.exit_codes import ExitCode
from finetune_trainer.check import Destination, check_job
from finetune_trainer.errors import TrainerError
from finetune_trainer.job.manifest import read_job
from finetune_trainer.models import base_refusals
from finetune_trainer.models.base_model import load_model, load_tokenizer
from finetune_trainer.models.kinds import OTHER_TASKS
from tests.assets.tiny_model import NAME as TINY
from tests.unit.finetune_trainer.checked import GOOD


def test_a_broken_tokenizer_is_refused_where_the_job_would_need_it(check, tmp_path):
    (tmp_path / TINY).mkdir(parents=True)
    (tmp_path / TINY / "config.json").write_text('{"model_type": "llama"}')
    result = check("--model-cache", tmp_path, train=("train.jsonl", GOOD))
    assert (result.code, result.verdict.message) == (ExitCode.MODEL_UNUSABLE, "the base model has no tokenizer.json")
    rows = "".join(f'{{"prompt": "p{n}", "completion": "c{n}"}}\n' for n in range(20))
    elsewhere = check("--model-cache", tmp_path, "--provider", "openAICompatible", train=("train.jsonl", rows))
    assert elsewhere.code == ExitCode.OK, "a provider's own model has another one"


@pytest.mark.parametrize(("text", "fits"), [("blue", True), ("<|later|>", False)])
@pytest.mark.parametrize("preference", [None, {"beta": 0.1}])
def test_rows_with_tokens_that_the_base_model_does_not_know_are_refused_as_training_does(
    check, tiny_model, tmp_path, text, fits, preference
):
    shutil.copytree(tiny_model, tmp_path / "cache")
    path = tmp_path / "cache" / TINY / "tokenizer.json"
    said = json.loads(path.read_text())
    known = len(said["model"]["vocab"])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    said["added_tokens"].append({"id": known, "content": "<|later|>", "special": True, **flags})
    path.write_text(json.dumps(said))
    answers = {"completion": text} if preference is None else {"chosen": "blue", "rejected": f"{text}!"}
    rows = "".join(json.dumps({"prompt": f"What is {n}?", **answers}) + "\n" for n in range(3))
    result = check(
        "--model-cache",
        tmp_path / "cache",
        train=("t.jsonl", rows),
        spec={"preference": preference} if preference else {},
    )
    assert (result.code, result.verdict.valid) == ((ExitCode.OK, True) if fits else (ExitCode.MODEL_UNUSABLE, False))
    if not fits:
        assert f"its tokenizer gives token {known}, but it knows only {known} tokens" in result.verdict.message


def test_a_broken_chat_template_is_refused_as_the_job_would_with_file_and_line(check, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "cache")
    (tmp_path / "cache" / TINY / "chat_template.jinja").write_text("{% for one in messages %}\n{{ one. }}\n")
    result = check("--model-cache", tmp_path / "cache", train=("train.jsonl", GOOD))
    assert result.code == ExitCode.MODEL_UNUSABLE
    assert result.verdict.message.startswith("the chat template of the model is broken (chat_template.jinja, line 2): ")
    assert result.verdict.next_step.startswith("Correct the template there, or have the model put into the cache again")


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model / TINY, tmp_path / "cache" / TINY)


def edit(path: Path, **fields: object) -> None:
    said = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(said | fields))


def config(**fields: object):
    return lambda base: edit(base / "config.json", **fields)


def quantised(how: str):
    return config(quantization_config={"quant_method": how, "bits": 4})


IN_4_BITS = config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
IN_8_BITS = config(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})


def stored_as(dtype: torch.dtype):
    def change(base: Path) -> None:
        weights = load_file(base / "model.safetensors")
        made = {name: value.to(dtype) if value.dim() == 2 else value for name, value in weights.items()}
        save_file(made, base / "model.safetensors", {"format": "pt"})

    return change


def in_bytes_of_tomorrow(base: Path) -> None:
    stored_as(torch.float8_e4m3fn)(base)
    quantised("of-tomorrow")(base)


def adapter_alone(base: Path) -> None:
    edit(base / "adapter_config.json", base_model_name_or_path="org/base")
    (base / "config.json").unlink()
    (base / "model.safetensors").rename(base / "adapter_model.safetensors")


def adapter_beside(base: Path) -> None:
    edit(base / "adapter_config.json", base_model_name_or_path="org/base")


def pickled(base: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")


def gguf(base: Path) -> None:
    (base / "model.safetensors").rename(base / "model.Q4_1.gguf")


def under_another_name(base: Path) -> None:
    (base / "model.safetensors").rename(base / "consolidated.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            config(architectures=["LlamaForSequenceClassification"]),
            "LlamaForSequenceClassification is not a language model",
        ),
        (config(architectures=["LlamaModel"]), "LlamaModel is not a language model that answers"),
        (config(model_type="rwkv", architectures=["RwkvForCausalLM"]), "keeps its state of a text in a way of its own"),
        (config(model_type="whisper", is_encoder_decoder=True, decoder_start_token_id=0), "is an encoder-decoder; of"),
        (config(model_type="marian", is_encoder_decoder=True, decoder_start_token_id=0), "two languages"),
        (quantised("gptq"), "its weights are stored quantised (gptq)"),
        (quantised("awq"), "its weights are stored quantised (awq)"),
        (quantised("auto-round"), "its weights are stored quantised (auto-round)"),
        (quantised("compressed-tensors"), "its weights are stored quantised (compressed-tensors)"),
        (IN_4_BITS, "its weights are stored quantised (bitsandbytes in 4 bits)"),
        (IN_8_BITS, "its weights are stored quantised (bitsandbytes in 8 bits)"),
        (stored_as(torch.float8_e4m3fn), "is stored in 8 bits or fewer, and config.json has no quantization_config"),
        (in_bytes_of_tomorrow, "is stored in 8 bits or fewer, and config.json has no quantization_config"),
        (stored_as(torch.int32), "is stored as numbers that are not weights"),
        (adapter_alone, "it is an adapter, and no model (adapter_config.json)"),
        (adapter_beside, "there is an adapter next to its weights (adapter_config.json)"),
        (pickled, "it has no weights in safetensors; pickled ones (.bin, .pt) are not loaded"),
        (gguf, "it has no weights in safetensors, but model.Q4_1.gguf"),
        (under_another_name, "neither model.safetensors nor an index of its parts is there"),
    ],
)
def test_what_loading_is_sure_to_refuse_is_refused_before_a_pod_is_paid_for(check, base, tmp_path, change, said):
    change(base)
    result = check("--model-cache", tmp_path / "cache", train=("train.jsonl", GOOD))
    assert (result.code, result.verdict.reason) == (ExitCode.MODEL_UNUSABLE, "ModelUnusable")
    assert said in result.verdict.message
    with pytest.raises(TrainerError) as caught:
        load_model(base, dtype=torch.float32)
    assert caught.value.reason == "ModelUnusable"


@pytest.mark.parametrize(
    "change",
    [
        config(architectures=[]),
        config(architectures=["LlamaForCausalLM", "LlamaModel"]),
        config(architectures=["LlamaModel"], auto_map={"AutoModelForCausalLM": "own.Model"}),
        quantised("fp8"),
        stored_as(torch.float64),
    ],
)
def test_what_loading_may_take_is_left_to_it(check, base, tmp_path, change):
    change(base)
    assert check("--model-cache", tmp_path / "cache", train=("train.jsonl", GOOD)).code == ExitCode.OK


def test_a_model_that_needs_code_of_its_own_is_told_as_far_as_the_connection_is_known(check, base, tmp_path):
    config(model_type="foollama", auto_map={"AutoModelForCausalLM": "own.Model"})(base)
    here = check("--model-cache", tmp_path / "cache", train=("train.jsonl", GOOD))
    assert (here.code, "of the kind foollama" in here.verdict.warnings[-1]) == (ExitCode.OK, True)
    for allowed in (False, True):
        local = {"trainerImage": "i:1", "artifacts": {"uri": "pvc://a"}, "trustRemoteCode": allowed}
        there = Destination(connection=LLMConnectionSpec.model_validate({"huggingFace": local}))
        verdict = check_job(read_job(tmp_path / "job.json"), tmp_path / "cache", there)
        assert verdict.valid is allowed
        assert ("of the kind foollama" in " ".join((verdict.message, *verdict.warnings))) is not allowed


@pytest.mark.parametrize(("change", "is_taken"), [(IN_4_BITS, True), (IN_8_BITS, False)])
def test_what_is_stored_in_4_bits_is_taken_where_the_job_trains_in_them(check, base, tmp_path, change, is_taken):
    change(base)
    result = check("--model-cache", tmp_path / "cache", train=("train.jsonl", GOOD), spec={"method": "QLoRA"})
    assert result.code == (ExitCode.OK if is_taken else ExitCode.MODEL_UNUSABLE)


def test_of_each_way_to_quantise_it_is_known_what_becomes_of_it():
    known = base_refusals.AS_NUMBERS | base_refusals.NEVER_TUNED | {"bitsandbytes_4bit", "bitsandbytes_8bit"}
    assert known == set(AUTO_QUANTIZER_MAPPING)


@pytest.mark.parametrize("method", ["LoRA", "QLoRA"])
@pytest.mark.parametrize("how", sorted(base_refusals.AS_NUMBERS))
def test_what_is_loaded_as_numbers_is_not_for_training_in_4_bits(check, base, tmp_path, how, method):
    quantised(how)(base)
    result = check("--model-cache", tmp_path / "cache", train=("train.jsonl", GOOD), spec={"method": method})
    assert result.code == (ExitCode.MODEL_UNUSABLE if method == "QLoRA" else ExitCode.OK)
    assert (f"stored quantised ({how})" in result.verdict.message) is (method == "QLoRA")
    if method == "QLoRA":
        assert result.verdict.next_step.startswith("Set method: LoRA, which tunes it as numbers of 16 bits. Or: ")


@pytest.mark.parametrize(
    ("change", "merge", "said"),
    [
        (quantised("gptq"), False, "stored quantised (gptq)"),
        (IN_4_BITS, True, "nothing is merged into such"),
        (IN_4_BITS, False, None),
        (config(model_type="bert", architectures=["BertForMaskedLM"]), False, "not a language model that answers"),
        (config(architectures=[None], vocab_size="as it likes"), False, None),
    ],
    ids=["GPTQ", "4 bits, merged", "4 bits", "kind", "else"],
)
def test_of_a_base_of_own_code_kind_and_numbers_count(check, base, tmp_path, change, merge, said):
    change(base)
    spec = {"code": {"configMapRef": {"name": "c", "key": "train.py"}}, "artifact": {"merge": merge}}
    result = check("--model-cache", tmp_path / "cache", train=("train.jsonl", GOOD), spec=spec)
    assert result.verdict.valid is (said is None)
    assert (said or "") in result.verdict.message


@pytest.mark.parametrize(
    ("change", "is_refused"), [(IN_4_BITS, True), (None, False), (config(quantization_config=None), False)]
)
def test_nothing_is_merged_into_weights_that_are_stored_quantised(check, base, tmp_path, change, is_refused):
    if change:
        change(base)
    spec = {"method": "QLoRA", "artifact": {"merge": True}}
    result = check("--model-cache", tmp_path / "cache", train=("train.jsonl", GOOD), spec=spec)
    assert result.code == (ExitCode.SPEC_INVALID if is_refused else ExitCode.OK)
    assert ("nothing is merged into such" in result.verdict.message) is is_refused


def test_of_classes_only_those_that_do_not_answer_are_told_apart_by_their_names():
    def names(table: str) -> set[str]:
        found = getattr(modeling_auto, f"MODEL_FOR_{table}_MAPPING_NAMES").values()
        return {name for one in found for name in ([one] if isinstance(one, str) else one)}

    answer = names("CAUSAL_LM") | names("SEQ_TO_SEQ_CAUSAL_LM")
    assert {name for name in answer if OTHER_TASKS.fullmatch(name)} == set()
    others = names("SEQUENCE_CLASSIFICATION") | names("TOKEN_CLASSIFICATION") | names("QUESTION_ANSWERING")
    assert {name for name in others - answer if not OTHER_TASKS.fullmatch(name)} <= {
        name for name in others if re.search("Simple|Conditional|Head|Images|CausalLM", name)
    }


WITHOUT_TYPE = {"content": "<|im_end|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


@pytest.mark.parametrize(
    ("token", "taken"),
    [
        (WITHOUT_TYPE, False),
        (2, False),
        (["<|im_end|>"], False),
        (WITHOUT_TYPE | {"__type": "AddedToken"}, True),
        ("<|im_end|>", True),
        (None, True),
    ],
)
@pytest.mark.parametrize("name", ["eos_token", "pad_token"])
def test_a_token_is_named_as_transformers_takes_it(check, base, tmp_path, name, token, taken):
    edit(base / "tokenizer_config.json", **{name: token})
    result = check("--model-cache", tmp_path / "cache", train=("train.jsonl", GOOD))
    assert (result.code == ExitCode.OK) is taken
    if taken:
        load_tokenizer(base)
        return
    assert f"tokenizer_config.json of the base model: {name} is " in result.verdict.message
    with pytest.raises(TrainerError):
        load_tokenizer(base)


def test_an_older_map_may_say_it_as_an_object(check, base, tmp_path):
    edit(base / "special_tokens_map.json", eos_token=WITHOUT_TYPE)
    assert check("--model-cache", tmp_path / "cache", train=("train.jsonl", GOOD)).code == ExitCode.OK
    load_tokenizer(base)
