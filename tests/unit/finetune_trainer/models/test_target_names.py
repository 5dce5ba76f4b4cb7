"""lora.targetModules is judged by the headers of the base model's files, before any weights are read."""

import json
import struct
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.pytorch_utils import Conv1D

from finetune_api.exit_codes import ExitCode
from finetune_api.job import LoRA
from finetune_trainer.errors import TrainerError
from finetune_trainer.models.kinds import KNOWN
from finetune_trainer.models.validation.target_names import require
from tests.unit.finetune_trainer.checked import GOOD

ROWS = ("train.jsonl", GOOD)
MORE = {"gpt_neo": {"attention_types": [[["global"], 2]]}}


def spec_of(targets):
    return SimpleNamespace(code=None, adapters=LoRA(target_modules=targets), base_model="test/model")


def with_headers(folder, config, tensors):
    """A folder of a model whose file has a header and no weights."""
    entries = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in tensors.items()}
    text = json.dumps(entries).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ("q_prj,v_proj", "has no linear layer q_prj; did you mean q_proj?"),
        ("q_proj, v_proj, gate", "has no linear layer gate"),
        ("self_attn", "has no linear layer self_attn"),
        ("input_layernorm", "has no linear layer input_layernorm"),
        ("model.layers.0.self_attn.q_prooj", "did you mean q_proj?"),
        ("model.layers.7.self_attn.q_proj", "has no linear layer model.layers.7.self_attn.q_proj"),
        ("mlp.q_proj", "has no linear layer mlp.q_proj"),
        ("embed_out", "has no linear layer embed_out; did you mean lm_head?"),
    ],
)
def test_check_says_which_target_is_no_layer_of_the_model(check, tiny_model, targets, said):
    found = check("--model-cache", tiny_model, spec={"lora": {"targetModules": targets}}, train=ROWS)
    assert (found.code, found.verdict.reason) == (ExitCode.SPEC_INVALID, "SpecInvalid")
    assert "spec.lora.targetModules: test/tiny-llama has no linear layer" in found.verdict.message
    assert said in found.verdict.message
    assert "some of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj" in found.verdict.next_step


def test_check_says_that_a_table_of_embeddings_takes_no_adapter(check, tiny_model):
    targets = {"targetModules": "q_proj,model.embed_tokens"}
    found = check("--model-cache", tiny_model, spec={"lora": targets}, train=ROWS)
    assert (found.code, found.verdict.reason) == (ExitCode.SPEC_INVALID, "SpecInvalid")
    said = "spec.lora.targetModules: model.embed_tokens is a table of embeddings, which takes no adapter"
    assert found.verdict.message == said
    assert "some of q_proj, k_proj" in found.verdict.next_step


@pytest.mark.parametrize(
    "targets",
    ["q_proj", "q_proj,lm_head", "self_attn.q_proj", "model.layers.1.mlp.up_proj", "all-linear", " all-linear, "],
)
def test_check_passes_targets_that_there_are(check, tiny_model, targets):
    assert check("--model-cache", tiny_model, spec={"lora": {"targetModules": targets}}, train=ROWS).verdict.valid


def test_without_the_model_nothing_is_said_of_targets(check, tmp_path):
    found = check("--model-cache", tmp_path, spec={"lora": {"targetModules": "nose"}}, train=ROWS)
    assert found.verdict.valid


@pytest.mark.parametrize(
    "config", [{"model_type": "mixtral"}, {"model_type": "llama", "auto_map": {}}, {}, {"model_type": None}, []]
)
def test_a_kind_whose_layers_may_have_other_names_in_memory_is_left_to_its_loading(tmp_path, config):
    require(spec_of("nose"), with_headers(tmp_path, config, {"layers.0.a.weight": [2, 2]}))


@pytest.mark.parametrize("header", [b"", b"no header", struct.pack("<Q", 2**60)])
def test_files_that_cannot_be_read_are_left_to_the_loading(tmp_path, header):
    folder = with_headers(tmp_path, {"model_type": "llama"}, {})
    (folder / "model.safetensors").write_bytes(header)
    require(spec_of("nose"), folder)


@pytest.mark.parametrize("kind", sorted(KNOWN))
def test_every_linear_layer_of_a_judged_kind_may_be_named_and_no_table(kind, tmp_path):
    """As transformers makes and saves it: nothing is renamed on the way."""
    config = AutoConfig.for_model(kind, num_hidden_layers=2, **MORE.get(kind, {}))
    assert not get_checkpoint_conversion_mapping(kind)
    with torch.device("meta"):
        model = (AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM).from_config(config)
    tied = set(model.all_tied_weights_keys)
    stored = {name: list(value.shape) for name, value in model.state_dict().items() if name not in tied}
    folder = with_headers(tmp_path, {"model_type": kind}, stored)
    linear = [path for path, one in model.named_modules() if isinstance(one, torch.nn.Linear | Conv1D)]
    for name in {path.rpartition(".")[2] for path in linear} | set(linear):
        require(spec_of(name), folder)
    tables = [path for path, one in model.named_modules() if isinstance(one, torch.nn.Embedding)]
    for name in {path.rpartition(".")[2] for path in tables} | set(tables):
        with pytest.raises(TrainerError, match=f"{name} is a table of embeddings"):
            require(spec_of(name), folder)
    bare = {name.removeprefix(f"{model.base_model_prefix}."): shape for name, shape in stored.items()}
    for name in linear:
        require(spec_of(name), with_headers(tmp_path, {"model_type": kind}, bare))
    with pytest.raises(TrainerError, match="has no linear layer nose"):
        require(spec_of("nose"), folder)
