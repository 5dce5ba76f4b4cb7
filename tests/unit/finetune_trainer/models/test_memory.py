"""The estimate of memory against what torch really keeps, and what is said where it does not fit."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    T5Config,
)

from finetune_api.exit_codes import ExitCode
from finetune_api.job import FineTuneJobSpec, LoRA, Resources
from finetune_api.verdict import DatasetVerdict
from finetune_trainer import __main__ as command_line
from finetune_trainer.computing import adapted_linear, frozen_norm
from finetune_trainer.computing.attention import boundaries, kept_apart, why_not_packed
from finetune_trainer.models import base_model, memory, memory_fit, model_shape
from finetune_trainer.models.adapters import with_adapters
from finetune_trainer.models.memory import Need, Pass, Rows, Setup
from finetune_trainer.models.memory_fit import Room, advice, bytes_of, doubt, judge, refusal, rooms_meant
from tests.assets.tiny_model import NAME, make_tiny_model
from tests.assets.tiny_seq2seq import BART, T5, make_tiny_bart, make_tiny_t5
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.models.estimates import GIB, LLAMA_8B, saved_bytes, spec_of
from tests.unit.finetune_trainer.training_runs import do

TOKENS = 256
WIDE = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4, "num_attention_heads": 4}
WIDE |= {"num_key_value_heads": 2, "head_dim": 16, "vocab_size": 100}
FAMILIES = {
    "llama": LlamaConfig(**WIDE),
    "norms on heads": Qwen3Config(**WIDE),
    "capped scores": Gemma2Config(**WIDE),
    "GELU by hand": GPT2Config(
        vocab_size=100, n_embd=64, n_layer=4, n_head=4, bos_token_id=0, eos_token_id=0, resid_pdrop=0, attn_pdrop=0
    ),
    "dropped scores": GPT2Config(vocab_size=100, n_embd=64, n_layer=4, n_head=4, bos_token_id=0, eos_token_id=0),
    "scores by hand": BloomConfig(vocab_size=100, hidden_size=64, n_layer=4, n_head=4),
    "masks": FalconConfig(vocab_size=100, hidden_size=64, num_hidden_layers=4, num_attention_heads=4),
    "masks by head": FalconConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=4, num_attention_heads=4, alibi=True, parallel_attn=False
    ),
    "ReLU": OPTConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=4, num_attention_heads=4, ffn_dim=256, word_embed_proj_dim=64
    ),
    "T5": T5Config(
        vocab_size=100, d_model=64, d_kv=16, d_ff=160, num_layers=4, num_heads=4, feed_forward_proj="gated-gelu"
    ),
    "BART": BartConfig(
        vocab_size=100,
        d_model=64,
        encoder_layers=4,
        decoder_layers=4,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
    ),
}


def built(config, adapters, dtype):
    """As a job has it."""
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_config(config, dtype=dtype)
    if adapters is None:
        return model.train()
    tuned = with_adapters(model, adapters, NAME)
    adapted_linear.fuse(tuned)
    frozen_norm.fuse(tuned)
    return tuned.train()


def forward(config, *, packed):
    if not config.is_encoder_decoder:
        how = {"use_cache": False, "logits_to_keep": torch.tensor([TOKENS - 1])}
        how |= boundaries([TOKENS], "cpu") if packed else {}
        return lambda model: model(input_ids=torch.zeros(1, TOKENS, dtype=int), **how)
    prompt, answer = torch.zeros(1, 3 * TOKENS // 4, dtype=int), torch.zeros(1, TOKENS // 4, dtype=int)
    mask = torch.ones_like(prompt)
    return lambda model: model(input_ids=prompt, attention_mask=mask, decoder_input_ids=answer, use_cache=False)


@pytest.mark.parametrize("autocast", [True, False], ids=["bfloat16", "float32"])
@pytest.mark.parametrize(
    ("family", "adapters"),
    [
        ("llama", LoRA(r=4)),
        ("llama", LoRA(r=4, dropout=0.1)),
        ("llama", LoRA(r=4, use_dora=True)),
        ("llama", None),
        ("norms on heads", LoRA(r=4)),
        ("norms on heads", None),
        ("capped scores", LoRA(r=4)),
        ("GELU by hand", LoRA(r=4)),
        ("GELU by hand", None),
        ("dropped scores", LoRA(r=4)),
        ("scores by hand", LoRA(r=4)),
        ("masks", LoRA(r=4)),
        ("masks", None),
        ("masks by head", None),
        ("ReLU", LoRA(r=4)),
        ("ReLU", None),
        ("T5", LoRA(r=4)),
        ("T5", None),
        ("BART", LoRA(r=4)),
    ],
)
def test_activations_are_what_torch_keeps(family, adapters, autocast):
    """Within a tenth, and never far below: what BART keeps beyond the estimate's words is a fused norm's."""
    config = FAMILIES[family]
    model = built(config, adapters, torch.bfloat16 if autocast and adapters else torch.float32)
    packs = why_not_packed(model, torch.bfloat16 if autocast else torch.float32) is None
    with kept_apart(model) if packs else nullcontext():
        kept = saved_bytes(model, forward(config, packed=packs), autocast=autocast)
    labelled = 0.25 if config.is_encoder_decoder else 1e-9
    setup = Setup("LoRA" if adapters else "Full", adapters, 2 if autocast else 4, "CPU")
    need = Need(model_shape.of_model(model), setup, Rows(TOKENS, TOKENS, labelled, 1))
    parts = need.parts(Pass(TOKENS, checkpointing=False))
    logits = 12 * 100 * max(1, labelled * TOKENS)
    assert parts.activations - logits == pytest.approx(kept, rel=0.35 if family == "BART" else 0.12)


@pytest.mark.parametrize(
    ("make", "name"), [(make_tiny_model, NAME), (make_tiny_t5, T5), (make_tiny_bart, BART)], ids=["llama", "T5", "BART"]
)
def test_headers_tell_the_shape_of_the_loaded_model_with_adapters_or_without(make, name, tmp_path):
    folder = make(tmp_path)
    told = model_shape.of_folder(folder)
    model = base_model.load_model(folder, dtype=torch.float32)
    loaded = sum(value.numel() for value in model.parameters())
    assert loaded <= told.parameters <= loaded + 400  # BART's file has a bias that is no parameter
    for seen in (model_shape.of_model(model), model_shape.of_model(with_adapters(model, LoRA(), name))):
        assert set(seen.matrices) == set(told.matrices)
        assert sorted(seen.norms, key=str) == sorted(told.norms, key=str)
        same = ("blocks", "hidden", "vocabulary", "heads", "activation", "is_encoder_decoder", "biased", "certain")
        assert [getattr(seen, field) for field in same] == [getattr(told, field) for field in same]
    need = Need(told, Setup("LoRA", LoRA(), 4, "CPU"), Rows(8, 8, 0.5, 1))
    adapters = sum(value.nbytes for value in model.parameters() if value.requires_grad)
    assert need.parts(need.smallest).adapters == adapters


def test_a_4_bit_model_has_the_shape_that_it_had(tmp_path):
    folder = make_tiny_model(tmp_path, width=64)
    model = base_model.load_model(folder, dtype=torch.float32, four_bits=True)
    assert set(model_shape.of_model(model).matrices) == set(model_shape.of_folder(folder).matrices)


def test_a_4_bit_model_lets_go_of_its_file(tmp_path):
    folder = make_tiny_model(tmp_path, width=64)
    model = base_model.load_model(folder, dtype=torch.float32, four_bits=True)
    assert model.device.type != "cpu" or str(folder) not in Path("/proc/self/maps").read_text()


def test_experts_that_are_stored_one_by_one_are_loaded_as_one_tensor_without_adapters_and_in_16_bits(tmp_path):
    config = Qwen3MoeConfig(**WIDE, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=32)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    stored, loaded = model_shape.of_folder(tmp_path), model_shape.of_model(model)
    assert len(stored.matrices) > len(loaded.matrices)
    assert stored.linear_parameters == loaded.linear_parameters
    assert not any("experts" in one.path for one in stored.linear)


def test_experts_count_as_often_as_tokens_meet_them_and_make_the_estimate_uncertain():
    config = Qwen3MoeConfig(**WIDE, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=32)
    shape = model_shape.of_model(AutoModelForCausalLM.from_config(config))
    experts = [one for one in shape.matrices if "experts" in one.path]
    assert experts
    assert not shape.certain
    assert {one.share for one in experts} == {2.0}, "two of eight, all eight in one tensor"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("[]"),
        lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 64),
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        lambda folder: (folder / "model.safetensors").unlink(),
    ],
)
def test_a_folder_that_tells_no_shape_is_left_to_those_who_load_it(tmp_path, spoil):
    folder = make_tiny_model(tmp_path)
    spoil(folder)
    assert model_shape.of_folder(folder) is None


def need_of(spec, longest=2048):
    rows = Rows(longest, longest / 2, 0.3, spec.hyperparameters.batch_size, spec.hyperparameters.micro_batch_size)
    return Need(LLAMA_8B, Setup(spec.method, spec.adapters, 2, "GPU"), rows)


def gpu(gibibytes):
    return Room("GPU", int(gibibytes * GIB), int(gibibytes * GIB))


@pytest.mark.parametrize(
    ("available", "longest", "checkpointing", "least"),
    [(None, 4096, False, 16384), (120, 2048, False, 8192), (26, 8192, True, 7000), (16, 32768, True, 1)],
)
def test_passes_fit_the_memory_and_activation_checkpointing_is_the_last_resort(
    available, longest, checkpointing, least
):
    fit = need_of(spec_of(), longest).fit(None if available is None else available * GIB)
    assert fit.activation_checkpointing is checkpointing
    assert least <= fit.token_budget <= memory.GPU_TOKENS


def test_more_memory_never_makes_smaller_passes():
    fits = [need_of(spec_of(), 512).fit(size * GIB) for size in range(18, 200, 4)]
    for checkpointing in (True, False):
        budgets = [fit.token_budget for fit in fits if fit.activation_checkpointing is checkpointing]
        assert budgets == sorted(budgets)
        assert len(set(budgets)) > 1
    assert fits[-1] == memory.Fit(memory.GPU_TOKENS, activation_checkpointing=False)


def on_cpu(spec, threads, available=None, **rows):
    need = need_of(spec, 128)
    need = replace(need, setup=replace(need.setup, device="CPU"), rows=replace(need.rows, **({"per_step": 16} | rows)))
    return need.fit(available, threads)


def test_on_a_cpu_passes_side_by_side_are_as_many_as_cores_rows_and_memory_allow():
    at_once = {cores: on_cpu(spec_of(), cores).at_once for cores in (1, 2, 3, 4, 64)}
    assert at_once == {1: 1, 2: 2, 3: 2, 4: 2, 64: 2}, "16 rows of 64 tokens are two passes of 512"
    assert on_cpu(spec_of(), 64, mean=128).at_once == 4, "16 rows of 128 tokens are four passes of 512"
    assert on_cpu(spec_of(), 4, per_step=1).at_once == 1
    two = max(size for size in range(10, 60) if on_cpu(spec_of(), 4, size * GIB, mean=128).at_once == 2)
    assert on_cpu(spec_of(), 4, 10 * GIB, mean=128).at_once == 1
    assert on_cpu(spec_of(), 4, (two + 1) * GIB, mean=128).at_once > 2


def test_the_size_of_a_cpus_passes_depends_on_no_core_and_no_memory():
    budgets = {on_cpu(spec_of(), cores, size).token_budget for cores in (1, 2, 9) for size in (None, GIB, 60 * GIB)}
    assert budgets == {memory.PARALLEL_CPU_TOKENS}


@pytest.mark.parametrize(
    ("method", "about"),
    [("QLoRA", {}), ("Full", {}), ("LoRA", {"dropout": 0.1}), ("LoRA", {"microBatchSize": 2})],
)
def test_what_passes_side_by_side_would_spoil_computes_one_after_the_other(method, about):
    hyper = {name: value for name, value in about.items() if name != "dropout"}
    spec = spec_of(method, **hyper)
    if "dropout" in about:
        spec = spec.model_copy(update={"lora": LoRA(dropout=0.1)})
    assert on_cpu(spec, 8) == memory.Fit(memory.CPU_TOKENS, activation_checkpointing=False)


def test_the_estimate_counts_the_activations_and_gradients_of_all_passes_side_by_side():
    need = need_of(spec_of(), 128)
    need = replace(need, setup=replace(need.setup, device="CPU"))
    one, two, three = (
        need.parts(Pass(memory.PARALLEL_CPU_TOKENS, checkpointing=False, at_once=count)) for count in (1, 2, 3)
    )
    assert (two.activations, three.activations) == pytest.approx((2 * one.activations, 3 * one.activations), abs=3)
    long, beside = (need.parts(Pass(2048, checkpointing=False, at_once=count)) for count in (1, 2))
    assert beside.activations - long.activations == pytest.approx(one.activations, abs=3), "not all rows are so long"
    assert (two.gradients, three.gradients) == (3 * one.gradients, 4 * one.gradients)
    assert one.weights == two.weights == three.weights


@pytest.mark.parametrize(
    ("method", "hyper", "gibibytes", "words"),
    [
        ("LoRA", {}, 16, ["method: QLoRA;", "a GPU with 19 GiB"]),
        ("LoRA", {"microBatchSize": 8}, 24, ["method: QLoRA;", "hyperparameters.microBatchSize: 4;"]),
        ("Full", {}, 40, ["method: LoRA;", "resources.gpusPerNode: 8;", "a GPU with"]),
        ("Full", {"batchSize": 2}, 80, ["method: LoRA;", "a GPU with"]),
        ("QLoRA", {"microBatchSize": 8}, 14, ["hyperparameters.microBatchSize: 4;", "maxSequenceLength: 1024;"]),
        ("LoRA", {"microBatchSize": 16}, 10, ["method: QLoRA with hyperparameters.microBatchSize: 2;"]),
        ("LoRA", {}, 4, ["It takes a GPU with 19 GiB."]),
    ],
)
def test_advice_names_the_mildest_changes_that_are_enough(method, hyper, gibibytes, words):
    spec = spec_of(method, **hyper)
    said = advice(need_of(spec), gpu(gibibytes), spec)
    assert [word for word in words if word not in said] == [], said


def test_at_sagemaker_another_instance_is_advised_and_no_number_of_gpus_which_its_jobs_lack():
    spec = spec_of("Full")
    spec = spec.model_copy(update={"resources": Resources(instance_type="ml.g5.xlarge")})
    said = advice(need_of(spec), gpu(40), spec)
    assert ("gpusPerNode" in said, "a resources.instanceType with " in said) == (False, True), said


def test_what_is_advised_fits_when_it_is_done():
    spec = spec_of("LoRA", microBatchSize=8)
    assert judge(need_of(spec), gpu(24), spec).fits is False
    for changed, longest in (
        (spec_of("QLoRA", microBatchSize=8), 2048),
        (spec_of("LoRA", microBatchSize=4), 2048),
        (spec_of("LoRA", microBatchSize=8), 1024),
    ):
        assert judge(need_of(changed, longest), gpu(24), changed).fits is True


def test_only_a_clear_no_is_a_refusal_and_doubt_is_a_warning():
    spec = spec_of()
    need = need_of(spec)
    least = need.parts(need.smallest).total / GIB
    for part, refused, fits in ((0.8, True, False), (0.95, False, False), (1.02, False, True)):
        found, use = refusal(need, gpu(part * least), spec), judge(need, gpu(part * least), spec)
        assert (found is not None, use.fits) == (refused, fits)
        assert (doubt(use) is not None) is not fits
    error = refusal(need, gpu(4), spec)
    assert (error.reason, error.exit_code) == ("InsufficientMemory", ExitCode.INSUFFICIENT_MEMORY)
    assert "training takes about 17." in error.message
    assert "there are 4.0 GiB" in error.message
    assert refusal(need, Room("GPU", None, None), spec) is None


def test_activations_of_an_uncertain_architecture_refuse_nobody():
    spec = spec_of(microBatchSize=16)
    need = need_of(spec)
    assert refusal(need, gpu(17), spec)
    assert refusal(replace(need, shape=replace(LLAMA_8B, certain=False)), gpu(17), spec) is None


def judged_8b(monkeypatch, room_, ranks, method, splits=("train",)):
    monkeypatch.setattr(model_shape, "of_folder", lambda _: LLAMA_8B)
    data = {split: {"uri": f"pvc://data/{split}.jsonl"} for split in splits}
    spec = FineTuneJobSpec.model_validate({**spec_of(method).wire(), "dataset": data})
    verdict = DatasetVerdict(valid=True, reason="Valid", message="")
    return memory_fit.judged(spec, None, verdict, room_, compute_bytes=2, ranks=ranks)


@pytest.mark.parametrize(
    ("method", "gibibytes", "ranks", "shards", "refused"),
    [
        ("LoRA", 80, 8, None, False),
        ("LoRA", 12, 8, 8, False),
        ("LoRA", 12, 1, None, True),
        ("Full", 200, 8, None, False),
        ("Full", 80, 8, 8, False),
        ("Full", 80, 1, None, True),
        ("Full", 40, 2, 2, True),
        ("QLoRA", 4, 8, None, True),
    ],
)
def test_a_model_is_shared_out_where_it_does_not_fit_on_each_rank(
    method, gibibytes, ranks, shards, refused, monkeypatch
):
    use, error = judged_8b(monkeypatch, gpu(gibibytes), ranks, method)
    assert (use.shards, error is not None) == (shards, refused)
    assert use.fits is not refused
    assert ("share the model out" in memory_fit.in_words(use)) is (shards is not None)
    if refused and shards:
        assert "on each of 2 that share the model out" in error.message


def test_a_rank_of_eight_holds_an_eighth_and_what_is_whole_for_the_moment():
    spec = spec_of("Full")
    whole, part = need_of(spec), memory_fit.sharded(need_of(spec), 8)
    one, eighth = (need.parts(need.smallest) for need in (whole, part))
    head = 2 * 128256 * 4096
    moment = head + 2 * (LLAMA_8B.parameters - head) / 32
    assert eighth.weights == pytest.approx(one.weights / 8 + 2 * moment, rel=1e-3)
    assert eighth.optimizer == pytest.approx(one.optimizer / 8, rel=1e-3)
    assert eighth.gradients == pytest.approx(one.gradients / 8 + 6 * moment, rel=1e-3)


def test_a_shared_out_model_that_one_gpu_cannot_measure_is_refused_before_it_is_trained(monkeypatch):
    assert judged_8b(monkeypatch, gpu(12), 8, "LoRA")[1] is None
    _, error = judged_8b(monkeypatch, gpu(12), 8, "LoRA", ("train", "test"))
    assert error.reason == "InsufficientMemory"
    assert "dataset.test: the tuned model is measured on one GPU, where it takes 15.0 GiB" in error.message
    assert "Remove dataset.test" in error.next_step
    assert judged_8b(monkeypatch, gpu(80), 8, "Full", ("train", "test"))[1] is None


def refuse_loading(*_args, **_kwargs):
    raise AssertionError("a model was loaded")


def test_a_job_that_cannot_fit_ends_before_its_model_is_loaded(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_fit, "room_here", lambda: Room("CPU", 100_000, 100_000))
    monkeypatch.setattr(base_model, "load_model", refuse_loading)
    code, report, _ = do(make_job(tmp_path, tiny_model, splits=("train",)))
    assert (code, report.failure.reason) == (ExitCode.INSUFFICIENT_MEMORY, "InsufficientMemory")
    assert "there are 0 MiB" in report.failure.message
    assert "resources.memory: 1Gi" in report.failure.next_step
    assert report.memory.fits is False


def test_a_job_in_doubt_is_warned_and_runs_and_reports_its_peak(tiny_model, tmp_path, monkeypatch, caplog):
    here = memory_fit.room_here()
    monkeypatch.setattr(memory_fit, "room_here", lambda: replace(here, available=64 * 2**20))
    code, report, _ = do(make_job(tmp_path, tiny_model, splits=("train",), hyperparameters={"epochs": 0.2}))
    assert code == ExitCode.OK, report.failure
    assert "memory may not be enough: training takes about " in caplog.text
    use = report.memory
    assert use.device == ("GPU" if torch.cuda.is_available() else "CPU")
    assert (use.fits, use.available_bytes) == (False, 64 * 2**20)
    assert use.estimated_bytes == sum(use.parts.model_dump().values())
    assert use.peak_bytes > 50 * 2**20
    assert use.error_percent == round(100 * (use.estimated_bytes / use.peak_bytes - 1))


def manifest(folder, cache, **spec):
    job = make_job(folder, cache, splits=("train",), **spec)
    path = folder / "job.json"
    head = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "colours"}}
    path.write_text(json.dumps(head | {"spec": job.spec.model_dump(by_alias=True, exclude_unset=True)}))
    return str(path)


@pytest.mark.parametrize(
    ("resources", "flags", "devices", "code"),
    [
        ({}, [], ["GPU", "CPU"], ExitCode.OK),
        ({"gpusPerNode": 0, "memory": "4Gi"}, [], ["CPU"], ExitCode.OK),
        ({"gpusPerNode": 0, "memory": "100k"}, [], ["CPU"], ExitCode.INSUFFICIENT_MEMORY),
        ({"gpusPerNode": 1, "memory": "64Mi"}, [], ["GPU"], ExitCode.OK),
        ({}, ["--gpu-memory", "24Gi"], ["GPU"], ExitCode.OK),
        ({}, ["--gpu-memory", "100k"], ["GPU"], ExitCode.INSUFFICIENT_MEMORY),
    ],
)
def test_check_says_what_training_would_take(tiny_model, tmp_path, capsys, resources, flags, devices, code):
    path = manifest(tmp_path, tiny_model, resources=resources)
    assert command_line.main(["check", "-f", path, "--model-cache", str(tiny_model), *flags]) == code
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert [use["device"] for use in printed["memory"]] == devices
    assert printed["valid"] is (code == ExitCode.OK)
    assert err.count("memory on a ") == len(devices)


def test_check_says_nothing_of_memory_without_the_model(tiny_model, tmp_path, capsys):
    assert command_line.main(["check", "-f", manifest(tmp_path, tiny_model)]) == ExitCode.OK
    assert "memory" not in json.loads(capsys.readouterr().out)


def test_check_says_why_it_did_not_answer_what_it_was_asked(tiny_model, tmp_path, capsys):
    path = manifest(tmp_path, tiny_model)
    assert command_line.main(["check", "-f", path, "--gpu-memory", "24Gi"]) == ExitCode.OK
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert any("whether it fits on the GPU was not estimated" in warning for warning in warnings)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"config.json": '{"hidden_size": [8, 16], "vocab_size": 9}'},
        {"model.safetensors.index.json": '{"weight_map": []}'},
    ],
)
def test_a_folder_that_is_no_model_has_no_shape(spoilt, tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model / NAME, folder)
    if "config.json" not in spoilt:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    for name, text in spoilt.items():
        (folder / name).write_text(text)
    assert model_shape.of_folder(folder) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("16Gi", 16 * GIB), ("512M", 512_000_000), (1024, 1024), ("1.5Ki", 1536), ("2e9", 2 * 10**9), ("much", None)),
        *(("1e999", None), ("9" * 400, None)),  # more than a float can be
    ],
)
def test_quantities_of_memory(text, expected):
    assert bytes_of(text) == expected


def test_a_job_that_says_nothing_may_be_meant_for_both_devices():
    assert [one.device for one in rooms_meant(spec_of(), None)] == ["GPU", "CPU"]
