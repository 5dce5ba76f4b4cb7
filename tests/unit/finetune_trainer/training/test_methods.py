"""What the variants of LoRA and the 4-bit base compute, and that nothing of them is lost on the way to the artifact."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from finetune_api.exit_codes import ExitCode
from finetune_api.job import LoRA
from finetune_trainer import train
from finetune_trainer.computing import four_bit
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import base_model, memory
from finetune_trainer.models.adapters import with_adapters
from finetune_trainer.serving.artifact import open_artifact
from finetune_trainer.serving.load import LoadOptions, load
from finetune_trainer.training.unchanged import nothing_learnt
from tests.assets.tiny_model import NAME, make_tiny_model
from tests.assets.tiny_seq2seq import T5, make_tiny_t5
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.serving.served_models import make_adapter
from tests.unit.finetune_trainer.training.own_jobs import REFERENCE
from tests.unit.finetune_trainer.training_runs import broken_off_after, do, same_result

SHORT = {"epochs": 0.6}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A cache with models whose layers are as wide as a block of 4-bit numbers."""
    cache = tmp_path_factory.mktemp("wide")
    make_tiny_model(cache, width=64)
    make_tiny_t5(cache, width=64)
    return cache


def adapter_of(job):
    folder = Path(job.output) / "model"
    config = json.loads((folder / "adapter_config.json").read_text())
    return config, load_file(folder / "adapter_model.safetensors")


def layer(model):
    return model.base_model.model.model.layers[0].self_attn.q_proj


def test_rank_stabilised_adapters_count_alpha_over_the_root_of_the_rank(tiny_model, tmp_path):
    model = base_model.load_model(tiny_model / NAME, dtype=torch.float32)
    tuned = with_adapters(model, LoRA(r=16, alpha=8, use_rslora=True), NAME)
    assert layer(tuned).scaling["default"] == 8 / math.sqrt(16)
    job = make_job(tmp_path, tiny_model, splits=("train",), hyperparameters=SHORT, lora={"useRSLoRA": True})
    assert do(job)[0] == ExitCode.OK
    assert adapter_of(job)[0]["use_rslora"] is True


TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 8,
}
VISION = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("kind", "fields", "count", "inside"),
    [
        (
            "mamba",
            {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
            6,
            ("in_proj", "x_proj", "dt_proj"),
        ),
        ("gemma3", {"text_config": TEXT, "vision_config": VISION | {"image_size": 28}}, 14, "language_model"),
    ],
)
def test_all_linear_means_layers_that_text_goes_through_and_that_take_adapters(kind, fields, count, inside):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields))
    with_adapters(model, LoRA(r=4), NAME)
    adapted = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    assert len(adapted) == count
    assert all(name.endswith(inside) if isinstance(inside, tuple) else inside in name for name in adapted)


EXPERTS = TEXT | {"num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("qwen3_moe", EXPERTS),
        *((kind, EXPERTS | {"num_local_experts": 4}) for kind in ("mixtral", "gpt_oss", "granitemoe")),
        ("glm4_moe", EXPERTS | {"n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1}),
    ],
)
def test_experts_stay_as_they_are_which_is_said_and_the_adapter_loads_with_plain_peft(kind, fields, tmp_path, caplog):
    from peft import PeftModel, get_peft_model_state_dict

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields))
    with caplog.at_level("INFO", logger="finetune_trainer.models.adapters"):
        tuned = with_adapters(model, LoRA(r=4), NAME)
    assert "adapters are on k_proj, o_proj, q_proj, v_proj; the experts stay as they are, " in caplog.text
    adapted = {name for name, module in tuned.named_modules() if hasattr(module, "lora_A")}
    assert len(adapted) == 8
    assert all("self_attn" in name for name in adapted)
    tuned.save_pretrained(tmp_path)
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields))
    loaded = get_peft_model_state_dict(PeftModel.from_pretrained(base, tmp_path))
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert all(torch.equal(loaded[name], value) for name, value in saved.items())


@pytest.mark.parametrize("targets", ["q_proj,down_proj", "gate"])
def test_names_that_peft_takes_for_those_of_experts_are_refused(targets):
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("glm4_moe", **EXPERTS, n_routed_experts=4, n_shared_experts=1, first_k_dense_replace=1)
    )
    with pytest.raises(TrainerError, match="would mean the experts, which are one tensor") as refusal:
        with_adapters(model, LoRA(r=4, target_modules=targets), NAME)
    assert "some of q_proj, k_proj, v_proj, o_proj, and" in refusal.value.next_step


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ("self_attn", "self_attn is a LlamaAttention and no linear layer"),
        ("q_proj,norm", "norm is a LlamaRMSNorm and no linear layer"),
        ("q_prj", "the model has no module q_prj"),
    ],
)
def test_names_of_other_modules_than_linear_layers_are_refused_by_what_they_are(targets, said):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **TEXT))
    with pytest.raises(TrainerError) as refusal:
        with_adapters(model, LoRA(r=4, target_modules=targets), NAME)
    assert said in refusal.value.message
    assert "some of q_proj, k_proj" in refusal.value.next_step


def test_a_convolution_takes_no_adapter_whatever_its_rank():
    config = AutoConfig.for_model("lfm2", **TEXT, num_key_value_heads=2, layer_types=["conv", "full_attention"])
    with pytest.raises(TrainerError, match=r"conv\.conv is a Conv1d and no linear layer"):
        with_adapters(AutoModelForCausalLM.from_config(config), LoRA(r=32, target_modules="conv.conv"), NAME)


def test_what_is_advised_instead_of_a_module_that_takes_none_are_the_models_own_names():
    config = AutoConfig.for_model("mamba", vocab_size=64, hidden_size=32, num_hidden_layers=1, state_size=4)
    with pytest.raises(TrainerError, match="out_proj") as refusal:
        with_adapters(AutoModelForCausalLM.from_config(config), LoRA(r=4, target_modules="in_proj,out_proj"), NAME)
    assert "some of in_proj, x_proj, dt_proj, and" in refusal.value.next_step
    config = AutoConfig.for_model("gpt2", vocab_size=64, n_embd=32, n_layer=1, n_head=4)
    with pytest.raises(TrainerError, match="wte is a table of embeddings") as refusal:
        with_adapters(AutoModelForCausalLM.from_config(config), LoRA(r=4, target_modules="wte"), NAME)
    assert "some of c_attn, c_proj, c_fc, and" in refusal.value.next_step


def test_trap_17_magnitudes_of_dora_are_float32_and_learn_on_a_bfloat16_base(tiny_model, tmp_path):
    hyper = {"epochs": 2, "precision": "BFloat16", "learningRate": 1e-4}
    job = make_job(tmp_path, tiny_model, splits=("train",), hyperparameters=hyper, lora={"useDoRA": True})
    assert do(job)[0] == ExitCode.OK
    config, weights = adapter_of(job)
    assert config["use_dora"] is True
    assert {value.dtype for value in weights.values()} == {torch.float32}
    start = with_adapters(
        base_model.load_model(tiny_model / NAME, dtype=torch.bfloat16), LoRA(use_dora=True), NAME
    ).state_dict()
    magnitudes = {name: value for name, value in weights.items() if "magnitude" in name}
    assert len(magnitudes) == 14
    for name, value in magnitudes.items():
        before = start[f"{name}.default.weight"]
        assert not torch.equal(value, before), name
        # Steps this small would all be rounded away in bfloat16.
        assert (value - before).abs().max() < before.abs().max() * torch.finfo(torch.bfloat16).eps


def test_dora_on_rows_of_zeros_is_refused_before_it_divides_by_their_length(tiny_model, tmp_path):
    folder = tmp_path / "cache" / NAME
    shutil.copytree(tiny_model / NAME, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3:5] = 0
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    job = make_job(tmp_path, tmp_path / "cache", splits=("train",), hyperparameters=SHORT, lora={"useDoRA": True})
    code, report, _ = do(job)
    assert (code, report.failure.reason) == (ExitCode.SPEC_INVALID, "SpecInvalid")
    assert "lora.useDoRA: 2 of the 64 rows of model.layers.1.mlp.up_proj are zeros" in report.failure.message
    assert "Leave useDoRA out" in report.failure.next_step


@pytest.mark.parametrize("lora", [{}, {"useDoRA": True}])
def test_trap_16_adapters_learn_under_activation_checkpointing(tiny_model, tmp_path, monkeypatch, lora):
    exact = {**SHORT, "precision": "Float32"}  # a GPU's bfloat16 differs by more than rounding of one sum
    plain = make_job(tmp_path / "plain", tiny_model, splits=("train",), hyperparameters=exact, lora=lora)
    tight = make_job(tmp_path / "tight", tiny_model, splits=("train",), hyperparameters=exact, lora=lora)
    assert do(plain)[0] == ExitCode.OK
    seen = []

    def checkpointed(_job, model, *_args):
        seen.append(model)
        return memory.Fit(memory.PARALLEL_CPU_TOKENS, activation_checkpointing=True)

    monkeypatch.setattr(train, "fit_of", checkpointed)
    assert do(tight)[0] == ExitCode.OK
    assert any(getattr(module, "gradient_checkpointing", False) for module in seen[0].modules())
    weights, expected = adapter_of(tight)[1], adapter_of(plain)[1]
    assert all(value.abs().max() > 0 for name, value in weights.items() if "lora_B" in name)
    for name, value in weights.items():
        if torch.cuda.is_available():  # other passes are other kernels there, and Adam blows up what is near nothing
            assert (value - expected[name]).norm() < 1e-3 * expected[name].norm()
        else:
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)


def test_lora_plus_teaches_the_second_halves_faster(tiny_model, tmp_path, monkeypatch):
    from finetune_trainer.training import step_trainer

    rates = {}
    original = step_trainer.StepTrainer.create_optimizer

    def look(self, model=None):
        optimizer = original(self, model)
        names = {id(value): name for name, value in self._net.named_parameters()}
        rates.update({names[id(one)]: group["lr"] for group in optimizer.param_groups for one in group["params"]})
        return optimizer

    monkeypatch.setattr(step_trainer.StepTrainer, "create_optimizer", look)
    job = make_job(
        tmp_path, tiny_model, splits=("train",), lora={"loraPlusRatio": 16}, hyperparameters={"learningRate": 1e-3}
    )
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    assert len(rates) == 28
    assert all(rate == pytest.approx(16e-3 if "lora_B" in name else 1e-3) for name, rate in rates.items())
    assert report.loss.train[-1].value < report.loss.train[0].value
    record = [json.loads(line) for line in (Path(job.output) / "metrics.jsonl").open()]
    assert max(line["learningRate"] for line in record) == pytest.approx(1e-3)


def test_lora_plus_goes_on_after_an_interruption_as_if_nothing_had_been(tiny_model, tmp_path):
    interrupted_and_straight(tiny_model, tmp_path, lora={"loraPlusRatio": 8, "dropout": 0.1, "useDoRA": True})


def interrupted_and_straight(cache, folder, **spec):
    """One job to its end, the same job ended after step 3 and started again: both results are the same."""
    hyper = {"epochs": 1, "checkpointSteps": 2}
    straight, broken = (make_job(folder / kind, cache, hyperparameters=hyper, **spec) for kind in ("a", "b"))
    assert do(straight)[0] == ExitCode.OK
    with broken_off_after(3):
        assert do(broken)[0] != ExitCode.OK
    assert do(broken)[0] == ExitCode.OK
    same_result(straight, broken)
    return straight


def quantised(folder, dtype=torch.float32):
    base_model.quiet_libraries()
    return base_model.load_model(folder, dtype=dtype, four_bits=True)


def test_the_4_bit_base_computes_what_its_numbers_say_before_and_after_an_evaluation(wide):
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn.modules import Linear4bit

    model = quantised(wide / NAME)
    plain = base_model.load_model(wide / NAME, dtype=torch.float32).eval().to(model.device)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}
    assert len(layers) == 14
    for name, module in layers.items():
        target = plain.get_submodule(name)
        numbers = dequantize_4bit(module.weight.data, module.weight.quant_state).float()
        assert (numbers - target.weight).abs().mean() < 0.11 * target.weight.abs().mean()  # NF4's own error is 0.09
        target.weight.data = numbers
    ids = torch.arange(3, 60, device=model.device)[None]
    for training in (False, True, False):
        model.train(training)
        with torch.no_grad():
            torch.testing.assert_close(model(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-4)
    assert sum(module.weight.nbytes for module in layers.values()) * 8 == sum(
        plain.get_submodule(name).weight.nbytes for name in layers
    )


def test_gradients_reach_adapters_on_a_4_bit_base_after_a_validation(wide):
    model = with_adapters(quantised(wide / NAME), LoRA(r=4), NAME)
    ids = torch.arange(3, 60, device=model.device)[None]
    model.eval()
    with torch.no_grad():
        model(ids)
    model.train()
    model(ids, labels=ids).loss.backward()
    first = [value.grad for name, value in model.named_parameters() if "lora_B" in name]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in first)


@pytest.mark.alike
@pytest.mark.parametrize("lora", [{"dropout": 0.1}, {"useDoRA": True}])
def test_a_qlora_job_leaves_an_ordinary_adapter_and_can_be_resumed(wide, tmp_path, lora):
    job = interrupted_and_straight(
        wide,
        tmp_path,
        method="QLoRA",
        lora=lora,
        splits=("train", "validation", "test"),
        evaluation={"maxNewTokens": 4},
    )
    config, weights = adapter_of(job)
    assert config["base_model_name_or_path"] == NAME
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert all("lora_" in name for name in weights)
    assert not any("bnb" in text or "quant_" in text for text in map(str, config))
    manifest = json.loads((Path(job.output) / "model" / "manifest.json").read_text())
    assert manifest["method"] == "QLoRA"


def test_a_qlora_adapter_is_served_on_the_16_bit_base(wide, tmp_path):
    job = make_job(tmp_path, wide, splits=("train",), method="QLoRA", hyperparameters=SHORT)
    code, report, _ = do(job)
    assert (code, report.result.artifact.kind) == (ExitCode.OK, "Adapter")
    served = load(open_artifact(Path(job.output) / "model", wide), LoadOptions(name="x", dtype="bfloat16"))
    try:
        model = served.engine._batch._model
        assert not getattr(model, "is_quantized", False)
        assert {value.dtype for value in model.parameters()} == {torch.bfloat16}
    finally:
        served.engine.close(timeout=10)


@pytest.mark.parametrize(
    ("spec", "code", "said"),
    [
        ({"method": "LoRA"}, ExitCode.MODEL_UNUSABLE, "its weights are stored quantised"),
        ({"method": "Full"}, ExitCode.MODEL_UNUSABLE, "its weights are stored quantised"),
        ({"method": "QLoRA", "artifact": {"merge": True}}, ExitCode.SPEC_INVALID, "nothing is merged into such"),
        ({"code": REFERENCE, "artifact": {"merge": True}}, ExitCode.SPEC_INVALID, "nothing is merged into such"),
        ({"code": REFERENCE}, ExitCode.SPEC_INVALID, "spec.code: there is no code"),
        ({"method": "QLoRA"}, ExitCode.OK, ""),
    ],
)
def test_a_base_that_is_stored_in_4_bits_is_for_adapters_on_4_bits_alone(stored, tmp_path, spec, code, said):
    ended, report, _ = do(make_job(tmp_path, stored, hyperparameters=SHORT, **spec))
    assert (ended, said in str(report.failure)) == (code, True), report.failure


@pytest.mark.parametrize("method", ["LoRA", "QLoRA"])
@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("gptq", {"bits": 4, "group_size": 128}, "gptq"),
        ("awq", {"bits": 4, "group_size": 128}, "awq"),
        ("compressed-tensors", {"config_groups": {}}, "compressed-tensors"),
        ("bitsandbytes", {"load_in_8bit": True}, "bitsandbytes in 8 bits"),
    ],
)
def test_a_base_that_is_stored_in_another_way_is_refused_by_its_name_with_what_to_name_instead(
    wide, tmp_path, kind, fields, said, method
):
    folder = tmp_path / "cache" / NAME
    shutil.copytree(wide / NAME, folder)
    config = json.loads((folder / "config.json").read_text())
    how = {"quant_method": kind, **fields}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": how}))
    with pytest.raises(TrainerError, match=rf"stored quantised \({said}\), in a way that cannot be tuned") as refusal:
        base_model.load_model(folder, dtype=torch.float32, four_bits=method == "QLoRA")
    assert "with weights of 16 or 32 bits" in refusal.value.next_step


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_gpu", [True, False])
def test_weights_in_fp8_are_loaded_as_the_numbers_that_they_stand_for_on_every_machine(
    wide, tmp_path, monkeypatch, with_gpu, dtype
):
    """A GPU would compute with them as they are stored, and full tuning in bfloat16 would round its steps away."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: with_gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    folder = tmp_path / NAME
    shutil.copytree(wide / NAME, folder)
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.endswith("up_proj.weight")]:
        weights[f"{name}_scale_inv"] = torch.full([side // 32 for side in weights[name].shape], 0.5)
        weights[name] = (2 * weights[name]).to(torch.float8_e4m3fn)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    how = {"quant_method": "fp8", "weight_block_size": [32, 32]}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": how}))
    model = base_model.load_model(folder, dtype=dtype)
    assert {value.dtype for value in model.parameters()} == {dtype}
    for name, value in model.named_parameters():
        assert torch.equal(value, (weights[name].float() / (1 + name.endswith("up_proj.weight"))).to(dtype)), name
    model.save_pretrained(tmp_path / "left")
    assert nothing_learnt(folder, tmp_path / "left", model), "own code that has left it as it was is told so"
    model.model.layers[1].mlp.up_proj.weight.data[-1, -1] += 1
    model.save_pretrained(tmp_path / "left")
    assert nothing_learnt(folder, tmp_path / "left", model) is None
    if not with_gpu:
        make_adapter(wide, tmp_path / "adapter")
        options = LoadOptions(name="x", dtype=str(dtype).removeprefix("torch."))
        served = load(open_artifact(tmp_path / "adapter", tmp_path), options)  # it has answered once
        served.engine.close(timeout=10)
        assert {value.dtype for value in served.engine._batch._model.parameters()} == {dtype}


def test_weights_in_mxfp4_that_were_tuned_in_full_are_saved_by_names_that_anybody_can_load(wide, tmp_path):
    folder = shutil.copytree(wide / NAME, tmp_path / "cache" / NAME)
    fields = EXPERTS | {"vocab_size": 400, "num_local_experts": 4, "pad_token_id": 2}
    AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt_oss", **fields)).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, inputs, outputs = weights.pop(name).shape
        weights[f"{name}_blocks"] = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
        weights[f"{name}_scales"] = torch.full((experts, outputs, inputs // 32), 122, dtype=torch.uint8)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "mxfp4"}}))
    job = make_job(tmp_path, tmp_path / "cache", splits=("train",), method="Full", hyperparameters={"epochs": 0.2})
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    tuned, found = AutoModelForCausalLM.from_pretrained(Path(job.output) / "model", output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    base_model.load_model(folder, dtype=torch.bfloat16).save_pretrained(tmp_path / "was")
    both = tmp_path / "was", Path(job.output) / "model"
    assert [bool(nothing_learnt(folder, one, tuned)) for one in both] == [True, False]


@pytest.fixture(scope="module")
def stored(wide, tmp_path_factory):
    """A cache with a model whose weights are stored in 4 bits."""
    cache = tmp_path_factory.mktemp("stored")
    shutil.copytree(wide / NAME, cache / NAME)
    (cache / NAME / "model.safetensors").unlink()
    quantised(wide / NAME).save_pretrained(cache / NAME)
    return cache


def test_a_t5_can_be_tuned_on_a_4_bit_base(wide, tmp_path):
    hyper = {"epochs": 2, "maxSequenceLength": 64}
    job = make_job(tmp_path, wide, baseModel=T5, splits=("train",), method="QLoRA", hyperparameters=hyper)
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    assert report.loss.train[-1].value < report.loss.train[0].value
    assert all(value.abs().max() > 0 for name, value in adapter_of(job)[1].items() if "lora_B" in name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_any_width_is_tuned_in_4_bits_on_a_gpu(tiny_model, tmp_path):
    job = make_job(tmp_path, tiny_model, splits=("train", "validation"), method="QLoRA")
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    assert report.loss.train[-1].value < report.loss.train[0].value
    assert all(value.abs().max() > 0 for name, value in adapter_of(job)[1].items() if "lora_B" in name)


def test_a_width_that_the_cpu_kernels_get_wrong_is_refused(tiny_model, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("a GPU's kernels take any width")
    code, report, _ = do(make_job(tmp_path, tiny_model, splits=("train",), method="QLoRA"))
    assert (code, report.failure.reason) == (ExitCode.SPEC_INVALID, "SpecInvalid")
    assert "spec.method: QLoRA cannot run here: on a CPU every layer's width must be a multiple of 64" in (
        report.failure.message
    )
    assert "method: LoRA" in report.failure.next_step


@pytest.mark.skipif(torch.cuda.is_available(), reason="the refusal is for machines without a GPU")
def test_the_cpu_kernels_still_get_such_widths_wrong():
    """When this fails, bitsandbytes was mended and the refusal in four_bit.py can go."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    torch.manual_seed(0)
    narrow = torch.randn(64, 96)
    packed, state = quantize_4bit(narrow, quant_type="nf4", compress_statistics=True)
    assert (dequantize_4bit(packed, state) - narrow).abs().mean() > 0.15 * narrow.abs().mean()


@pytest.mark.parametrize("trouble", ["no bitsandbytes", "wrong numbers"])
def test_qlora_without_kernels_is_refused_with_a_next_step(monkeypatch, trouble):
    def broken(_name):
        if trouble == "no bitsandbytes":
            raise ImportError("libbitsandbytes_cpu.so")
        return type(
            "Functional",
            (),
            {
                "quantize_4bit": staticmethod(lambda x, **_: (x, None)),
                "dequantize_4bit": staticmethod(lambda x, _: x + 1),
            },
        )

    monkeypatch.setattr(four_bit.importlib, "import_module", broken)
    with pytest.raises(TrainerError, match="QLoRA cannot run here: bitsandbytes") as caught:
        four_bit.require_kernels("cpu")
    assert caught.value.exit_code == ExitCode.SPEC_INVALID
    assert "method: LoRA" in caught.value.next_step
