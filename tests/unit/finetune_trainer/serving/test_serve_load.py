"""What can be served and what is refused: adapters, whole models, damaged folders, limits."""

import hashlib
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from served_models import load_reference, make_adapter

from finetune_api.exit_codes import ExitCode
from finetune_api.names import GPUS_VARIABLE
from finetune_api.reasons import Reason
from finetune_trainer import __main__ as command_line
from finetune_trainer import serve
from finetune_trainer.errors import TrainerError
from finetune_trainer.serving import artifact as artifacts
from finetune_trainer.serving.app import ModelHolder
from finetune_trainer.serving.artifact import open_artifact
from finetune_trainer.serving.load import LoadOptions, bytes_per_token, choose_dtype, load
from tests.assets.tiny_model import NAME
from tests.unit.finetune_trainer.shortages import ERRORS, OF_THE_MACHINE


@pytest.fixture
def copy(adapter, tmp_path):
    return shutil.copytree(adapter, tmp_path / "copy")


@pytest.fixture
def whole(tiny_model, tmp_path):
    return shutil.copytree(tiny_model / NAME, tmp_path / "whole")


def write_manifest(folder):
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in folder.iterdir()
    }
    (folder / "manifest.json").write_text(json.dumps({"files": files}))


def refused(folder, cache, **options):
    with pytest.raises(TrainerError) as caught:
        load(open_artifact(folder, cache), LoadOptions(name="x", **options))
    return caught.value


def test_weights_that_were_cut_short_are_refused_with_what_to_do(whole):
    with (whole / "model.safetensors").open("r+b") as file:
        file.truncate(5000)
    error = refused(whole, None)
    assert error.reason == "ModelUnusable"
    assert str(whole) in error.message
    assert "damaged or not whole" in error.next_step


@pytest.mark.parametrize("words", ERRORS)
def test_a_gpu_that_is_too_small_or_taken_is_not_the_models_fault(whole, monkeypatch, words):
    def no_room(*_args, **_about):
        raise ERRORS[words]

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", no_room)
    error = refused(whole, None)
    assert (error.reason, error.exit_code) == ("OutOfMemory", ExitCode.OUT_OF_MEMORY)
    assert "more accelerator memory" in error.next_step


@pytest.mark.parametrize("words", OF_THE_MACHINE)
def test_a_machine_that_is_too_small_is_not_the_models_fault(whole, monkeypatch, words):
    def no_room(*_args, **_about):
        raise OF_THE_MACHINE[words]

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", no_room)
    error = refused(whole, None)
    assert (error.reason, error.message) == ("OutOfMemory", f"{whole} does not fit into the machine's memory")
    assert error.next_step == "Choose a node with more memory, or serve a smaller model."


def test_a_gpu_that_fails_is_not_the_models_fault(whole, monkeypatch):
    def broken(*_args, **_about):
        raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", broken)
    with pytest.raises(torch.AcceleratorError, match="ECC"):
        load(open_artifact(whole, None), LoadOptions(name="x"))


def test_a_merged_adapter_computes_what_the_adapter_did(served, reference):
    model = served.engine._batch._model
    assert not hasattr(model, "peft_config") or type(model).__name__ == "LlamaForCausalLM"
    assert not any("lora_" in name for name, _ in model.named_parameters())
    ids = torch.arange(3, 40)[None]
    unmerged, _ = reference
    with torch.inference_mode():
        logits = model(ids.to(model.device)).logits.cpu()
        torch.testing.assert_close(logits, unmerged(ids).logits, atol=1e-3, rtol=1e-4)
        assert (unmerged(ids).logits - unmerged.get_base_model()(ids).logits).abs().max() < 1e-6
        with unmerged.disable_adapter():
            assert (logits - unmerged(ids).logits).abs().max() > 0.1


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_one_of_two_layers_that_share_their_weights_leaves_the_other_alone(target, tiny_model, tmp_path):
    folder = make_adapter(tiny_model, tmp_path / "one", targets=[target])
    unmerged, _ = load_reference(tiny_model, folder)
    served = load(open_artifact(folder, tiny_model), LoadOptions(name="one", dtype="float32"))
    ids = torch.arange(3, 40)[None]
    try:
        with torch.inference_mode():
            model = served.engine._batch._model
            logits = model(ids.to(model.device)).logits.cpu()
            torch.testing.assert_close(logits, unmerged(ids).logits, atol=1e-3, rtol=1e-4)
    finally:
        served.engine.close(timeout=10)


def test_a_whole_model_needs_no_cache(whole):
    served = load(open_artifact(whole, None), LoadOptions(name="base"))
    try:
        assert (served.context, served.name) == (512, "base")
        assert served.engine._ends == {2}
    finally:
        served.engine.close(timeout=10)


def test_an_adapter_whose_base_is_not_there_is_refused_with_the_nearest_name(copy, tiny_model):
    config = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "test/tiny-lama"}))
    error = refused(copy, tiny_model)
    assert (error.reason, error.exit_code) == (Reason.MODEL_NOT_IN_CACHE, ExitCode.MODEL_NOT_FOUND)
    assert error.message == f"test/tiny-lama is not in the model cache; it has {NAME}"


def test_an_adapter_without_any_cache_is_refused_without_asking_a_hub(copy):
    assert refused(copy, None).reason == Reason.MODEL_NOT_IN_CACHE


def test_a_base_that_the_cache_lacks_is_fetched_only_where_the_hub_may_be_asked(copy, tiny_model, monkeypatch):
    asked = []
    monkeypatch.setattr(artifacts, "fetch", lambda name: asked.append(name) or tiny_model / NAME)
    assert artifacts.open_artifact(copy, None, allow_hub=True).base == tiny_model / NAME
    assert asked == [NAME]
    with pytest.raises(TrainerError):
        artifacts.open_artifact(copy, None)
    assert asked == [NAME]


def test_vllm_finds_the_base_by_a_link_and_a_second_try_lays_it_anew(copy, tiny_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")  # which the command sets, and no other test is to find
    words = ["base", "--model", str(copy), "--link", str(tmp_path / "base"), "--model-cache"]
    (tmp_path / "base").symlink_to("/nowhere")
    assert command_line.main([*words, str(tiny_model)]) == 0
    assert (tmp_path / "base").resolve() == (tiny_model / NAME).resolve()
    (tmp_path / "empty").mkdir()
    assert command_line.main([*words, str(tmp_path / "empty")]) == ExitCode.MODEL_NOT_FOUND
    assert f"ModelNotInCache: {NAME} is not in the model cache; the cache is empty. Put" in capsys.readouterr().err


def test_a_base_that_is_gated_is_told_with_what_helps_a_server_and_not_a_job(copy, monkeypatch):
    def fetch(name):
        raise TrainerError(Reason.ACCESS_DENIED, f"{name} is gated", "Name a Secret in spec.hubTokenSecretRef.")

    monkeypatch.setattr(artifacts, "fetch", fetch)
    with pytest.raises(TrainerError, match="is gated") as refusal:
        artifacts.open_artifact(copy, None, allow_hub=True)
    assert "artifact.merge: true" in refusal.value.next_step


def test_a_base_that_leads_out_of_the_cache_is_refused(copy, tiny_model):
    config = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "../secret"}))
    assert refused(copy, tiny_model).reason == Reason.MODEL_UNUSABLE


def spoil(name, text):
    def change(folder):
        (folder / name).write_text(text)

    return change


def remove(name):
    return lambda folder: (folder / name).unlink()


def flip_a_byte(folder):
    path = folder / "adapter_model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def pickle_only(folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    (folder / "manifest.json").unlink()


DAMAGE = [
    pytest.param(remove("adapter_model.safetensors"), "adapter_model.safetensors is missing", id="weights gone"),
    pytest.param(remove("tokenizer.json"), "tokenizer.json is missing", id="tokenizer gone"),
    pytest.param(spoil("tokenizer.json", "{}"), "its manifest says", id="other size"),
    pytest.param(flip_a_byte, "differs from its checksum", id="one bit flipped"),
    pytest.param(spoil("manifest.json", "{"), "manifest.json cannot be read", id="broken manifest"),
    pytest.param(pickle_only, "pickled weights are not loaded", id="pickled weights"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_a_damaged_folder_is_refused_with_the_file(copy, tiny_model, damage, message):
    write_manifest(copy)
    assert open_artifact(copy, tiny_model).is_adapter
    damage(copy)
    error = refused(copy, tiny_model)
    assert (error.reason, error.exit_code) == (Reason.MODEL_UNUSABLE, ExitCode.MODEL_UNUSABLE)
    assert message in error.message


def test_a_folder_that_is_no_model_is_refused(tmp_path, tiny_model):
    assert "neither" in refused(tmp_path, tiny_model).message
    assert "not a folder" in refused(tmp_path / "missing", tiny_model).message


def test_weights_that_do_not_fit_their_config_are_refused(whole):
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps(config | {"hidden_size": 48, "head_dim": 12}))
    assert refused(whole, None).reason == Reason.MODEL_UNUSABLE


def test_layers_that_the_config_leaves_out_are_not_left_out_of_answers(whole):
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    assert "its files have more: model.layers.1 in model.safetensors" in refused(whole, None).message


def test_another_kind_of_adapter_is_refused(copy, tiny_model):
    (copy / "adapter_config.json").write_text(
        json.dumps(
            {
                "peft_type": "IA3",
                "base_model_name_or_path": NAME,
                "target_modules": ["k_proj"],
                "feedforward_modules": [],
            }
        )
    )
    assert "only LoRA is served" in refused(copy, tiny_model).message


def test_a_context_longer_than_the_models_is_refused(adapter, tiny_model):
    error = refused(adapter, tiny_model, max_model_length=513)
    assert (error.reason, error.message) == (
        Reason.SPEC_INVALID,
        "--max-model-length 513: the model can hold 512 tokens",
    )


def test_the_models_own_sampling_is_the_default_of_requests(copy, tiny_model):
    (copy / "generation_config.json").write_text(json.dumps({"temperature": 0.3, "top_p": 0.9, "eos_token_id": [1, 2]}))
    served = load(open_artifact(copy, tiny_model), LoadOptions(name="x"))
    try:
        assert (served.sampling.temperature, served.sampling.top_p, served.sampling.top_k) == (0.3, 0.9, 0)
        assert served.engine._ends == {1, 2}
    finally:
        served.engine.close(timeout=10)


def test_a_tokenizer_without_a_template_asks_as_training_wrote(copy, tiny_model, reference):
    (copy / "chat_template.jinja").unlink()
    served = load(open_artifact(copy, tiny_model), LoadOptions(name="x"))
    _, tokenizer = reference
    try:
        from finetune_trainer.data.rows import Turn

        tokens = served.prompts.chat([Turn("system", "be kind"), Turn("user", "good")])
        assert tokenizer.decode(tokens) == "be kind\ngood\n"
    finally:
        served.engine.close(timeout=10)


@pytest.mark.parametrize(
    ("asked", "saved", "free", "device", "chosen"),
    [
        ("auto", torch.bfloat16, 10_000, "cpu", torch.float32),
        ("auto", torch.bfloat16, 3_900, "cpu", torch.bfloat16),
        ("auto", torch.float16, 3_900, "cpu", torch.bfloat16),
        ("auto", torch.bfloat16, 10_000, "cuda", torch.bfloat16),
        ("auto", {"": "float16", "text_config": "bfloat16"}, 10_000, "cuda", torch.bfloat16),
        ("auto", {"": "float16"}, 10_000, "cuda", torch.float16),
        ("auto", {"vision_config": "float16"}, 10_000, "cuda", torch.float32),
        ("auto", torch.uint8, 10_000, "cuda", torch.bfloat16),
        ("auto", torch.float8_e4m3fn, 10_000, "cuda", torch.bfloat16),
        ("bfloat16", torch.float32, 10_000, "cpu", torch.bfloat16),
    ],
)
def test_weights_are_float32_on_a_cpu_with_room_for_them(tmp_path, monkeypatch, asked, saved, free, device, chosen):
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)  # 500 numbers of 16 bits: 2000 bytes as float32
    monkeypatch.setattr("finetune_trainer.serving.load.free_memory", lambda: free)
    config = type("Config", (), {"dtype": saved})
    assert choose_dtype(asked, config, tmp_path, device) == chosen


def test_bytes_per_token_are_what_the_cache_takes(served):
    model = served.engine._batch._model
    output = model(torch.ones((1, 10), dtype=torch.long, device=model.device), use_cache=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in output.past_key_values.layers)
    assert bytes_per_token(model.config, model.dtype) * 10 == held


def test_bytes_per_token_are_counted_layer_by_layer_where_layers_differ():
    """As Gemma 4's do, whose configuration answers no question about all of them."""
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig

    config = Gemma4TextConfig(
        vocab_size=64, vocab_size_per_layer_input=64, hidden_size=32, hidden_size_per_layer_input=8, head_dim=8,
        intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, global_head_dim=16,
        num_kv_shared_layers=0, layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    output = Gemma4ForCausalLM(config)(torch.ones((1, 10), dtype=torch.long), use_cache=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in output.past_key_values.layers)
    assert bytes_per_token(config, torch.float32) * 10 == held == 10 * 2 * 2 * (8 + 16) * 4


def test_the_same_adapter_is_made_each_time(tiny_model, adapter, tmp_path):
    again = make_adapter(tiny_model, tmp_path / "again")
    assert (again / "adapter_model.safetensors").read_bytes() == (adapter / "adapter_model.safetensors").read_bytes()


def edited(name, **fields):
    def change(folder):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


ODD_FILES = [
    pytest.param(spoil("config.json", "[]"), "config.json: is not a JSON object", id="config is a list"),
    pytest.param(edited("config.json", dtype="float99"), 'config.json: dtype is "float99"', id="config, dtype"),
    pytest.param(edited("config.json", num_hidden_layers="two"), 'num_hidden_layers is "two"', id="config, text"),
    pytest.param(edited("config.json", num_attention_heads=0), "num_attention_heads is 0", id="config, no heads"),
    pytest.param(edited("config.json", intermediate_size=8), "by config.json (8, 32)", id="other shape"),
    pytest.param(edited("config.json", vocab_size=100), "vocab_size is 100, and model.embed_tokens", id="vocabulary"),
    pytest.param(spoil("tokenizer_config.json", "[1]"), "the tokenizer in", id="tokenizer config is a list"),
    pytest.param(spoil("generation_config.json", "{"), "generation_config.json: is not JSON", id="no JSON"),
    pytest.param(edited("generation_config.json", eos_token_id="x"), 'eos_token_id is "x", not a', id="end as text"),
    pytest.param(spoil("generation_config.json", '{"temperature": "hot"}'), "temperature is 'hot', not a", id="hot"),
    pytest.param(spoil("generation_config.json", '{"temperature": -1}'), "temperature is '-1', not a", id="below 0"),
    pytest.param(spoil("generation_config.json", '{"temperature": NaN}'), "temperature is 'nan', not a", id="NaN"),
    pytest.param(spoil("generation_config.json", '{"top_p": 5}'), "top_p is '5', not a number above 0", id="top_p"),
    pytest.param(spoil("generation_config.json", '{"top_k": 1.5}'), "top_k is '1.5', not a whole", id="top_k"),
]


def test_so_is_what_a_configuration_says_and_no_file_shows(whole, monkeypatch):
    def fail(*_args):
        raise TypeError("'dict' object cannot be interpreted as an integer")

    monkeypatch.setattr("finetune_trainer.serving.load.bytes_per_token", fail)
    error = refused(whole, None)
    assert error.reason == Reason.MODEL_UNUSABLE
    assert f"{whole} cannot be served as its configuration says: TypeError: 'dict' object" in error.message


@pytest.mark.parametrize(("damage", "message"), ODD_FILES)
def test_whatever_a_library_raises_over_a_models_files_is_told_in_words(whole, damage, message):
    damage(whole)
    error = refused(whole, None)
    assert error.reason == Reason.MODEL_UNUSABLE
    assert message in error.message
    assert str(whole) in error.message
    assert error.next_step


@pytest.mark.parametrize("error", OF_THE_MACHINE.values(), ids=OF_THE_MACHINE)
def test_a_server_with_too_little_memory_even_for_its_libraries_says_so(error, monkeypatch):
    room, server = ModelHolder(), SimpleNamespace(should_exit=False)
    loading = serve._Loading(SimpleNamespace(), room, server)
    monkeypatch.setattr(loading, "_load", lambda: (_ for _ in ()).throw(error))
    loading.run()
    assert room.problem == "OutOfMemory: the memory that the server may take was not enough to load the model"
    assert (server.should_exit, loading.exit_code) == (True, int(loading.error.exit_code))


def test_a_server_that_was_given_a_gpu_and_sees_none_does_not_answer_from_the_cpu(adapter, tiny_model, monkeypatch):
    monkeypatch.setenv(GPUS_VARIABLE, "1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    args = command_line.parser().parse_args(["serve", "--model", str(adapter), "--model-cache", str(tiny_model)])
    loading = serve._Loading(args, ModelHolder(), SimpleNamespace(should_exit=False))
    loading.run()
    assert loading.exit_code == 85
    assert loading.error.reason == Reason.GPU_UNAVAILABLE
    assert loading.error.message.startswith("the pod has asked for 1 GPUs and can use none: ")
