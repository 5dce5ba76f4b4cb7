"""Rows behind one another in one pass: nothing of a row reaches another one, and a step learns what it did before."""

import contextlib
import json
import logging
from pathlib import Path

import pytest
import torch
from accelerate.utils import send_to_device
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

import finetune_trainer.computing.attention
from bench.four_bits import quantise
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.computing.adapted_linear import AdaptedLinear, fuse
from finetune_trainer.computing.attention import NAME, attention, boundaries, kept_apart, looks_ahead, why_not_packed
from finetune_trainer.computing.compiled_layers import in_training
from finetune_trainer.data import IGNORED
from finetune_trainer.train import execute
from finetune_trainer.training.batches import Plan, packed_rows
from finetune_trainer.training.passes import Cut, filler_of, labelled, loss_sum, on_device, packed, passes_of
from finetune_trainer.training.steps import PASSES, Steps
from finetune_trainer.training.token_store import TokenStore
from tests.unit.finetune_trainer.computing.small_models import MODELS, SMALL, adapted, make_model, make_rows
from tests.unit.finetune_trainer.jobs import make_job

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture(scope="module")
def store():
    return TokenStore(make_rows())


DEEPSEEK = {
    "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "moe_intermediate_size": 32, "first_k_dense_replace": 1, "index_n_heads": 2, "index_head_dim": 8, "index_topk": 8,
}  # fmt: skip
"""Sizes of a kind that chooses which tokens to attend to."""


@pytest.mark.parametrize(
    ("lengths", "tokens", "passes"),
    [
        ([4, 4, 4, 4], 8, [[0, 1], [2, 3]]),
        ([5, 7, 3, 1], 8, [[1, 3], [0, 2]]),
        ([3, 9, 5], 100, [[1, 2, 0]]),
        ([100, 2], 10, [[0], [1]]),
        ([7], 1, [[0]]),
        ([], 8, []),
    ],
)
def test_packed_rows_leave_little_room_and_begin_with_the_fullest_pass(lengths, tokens, passes):
    assert packed_rows(lengths, tokens) == passes


def test_packed_rows_hold_every_row_once_within_the_limit_and_few_passes():
    lengths = [(37 * number) % 97 + 3 for number in range(200)]
    passes = packed_rows(lengths, 256)
    assert sorted(place for one in passes for place in one) == list(range(200))
    assert all(sum(lengths[place] for place in one) <= 256 for one in passes)
    assert len(passes) == -(-sum(lengths) // 256)


def test_a_packed_pass_is_the_rows_token_by_token(store):
    batch = packed(store, [2, 0, 5, 3])
    start = 0
    for number in (2, 0, 5, 3):
        ids, labels = store.row(number)
        here = slice(start, start + len(ids))
        assert batch["input_ids"][0, here].tolist() == ids.tolist()
        assert batch["position_ids"][0, here].tolist() == list(range(len(ids)))
        assert batch["targets"][0, here].tolist() == [*labels[1:].tolist(), IGNORED]
        start += len(ids)
    assert batch["input_ids"].shape == (1, start)
    assert batch["ends"].tolist() == [0, 9, 15, 16, 18]
    assert int(batch["tokens"]) == start
    assert "attention_mask" not in batch


def packed_logits(model, store, rows, device="cpu"):
    batch = on_device(packed(store, rows), device)
    told = {"cu_seq_lens_q": batch["ends"], "max_length_q": int(batch["lengths"].max())}
    with kept_apart(model):
        logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False, **told).logits
    return logits[0].split(batch["lengths"].tolist())


@pytest.mark.parametrize("kind", MODELS)
def test_packed_logits_are_those_of_each_row_alone(kind, store):
    name, changes = MODELS[kind]
    model = make_model(name, **changes).eval()
    assert why_not_packed(model, torch.float32) is None
    rows = list(range(len(store)))
    with torch.no_grad():
        for row, together in zip(rows, packed_logits(model, store, rows), strict=True):
            alone = model(input_ids=torch.from_numpy(store.row(row)[0])[None], use_cache=False).logits[0]
            torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)


def gradients(model, store, cut, device="cpu", dtype=torch.float32):
    model.zero_grad()
    passes = passes_of(store, list(range(len(store))), cut)
    total = sum(map(labelled, passes))
    with kept_apart(model) if cut.packed else contextlib.nullcontext():
        for one in passes:
            with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
                loss = loss_sum(model, on_device(one, device)) / total
            loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize(
    ("lengths", "budget", "filler"),
    [
        ([5000, 6001], 16384, 7),
        ([5000, 6000], 11003, 3),
        ([11000, 1], 9000, 0),
        ([4096, 4096, 4095], None, 1),
        ([700, 700], 2048, 0),
        ([7, 3], 100, 0),
    ],
)
def test_passes_have_few_lengths_and_stay_within_their_budget(lengths, budget, filler):
    assert filler_of(lengths, budget) == filler


def test_passes_of_a_long_job_have_some_dozens_of_lengths():
    found = {total + filler_of([total - 1, 1], None) for total in range(4096, 16384)}
    assert len(found) == 65


def test_what_fills_a_pass_up_carries_no_loss_and_is_not_counted(store):
    plain, filled = packed(store, [2, 0]), packed(store, [2, 0], 9)
    assert filled["input_ids"].shape == (1, 24)
    assert filled["ends"].tolist() == [0, 9, 15, 24]
    assert filled["position_ids"][0, 15:].tolist() == list(range(9))
    for name in ("tokens", "places"):
        assert filled[name].equal(plain[name])


@pytest.mark.parametrize(
    "cut",
    [
        Cut(1000, packed=True),
        Cut(20, packed=True),
        Cut(1, packed=True),
        Cut(None, 2, packed=True),
        Cut(1000, packed=True, filled=True),
        Cut(20, packed=True, even=True),
    ],
)
def test_gradients_of_packed_rows_are_those_of_rows_alone(cut, store):
    model = make_model("llama", num_key_value_heads=2)
    alone, together = gradients(model, store, Cut(None, 1)), gradients(model, store, cut)
    for name, expected in alone.items():
        torch.testing.assert_close(together[name], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("lengths", [[5, 3, 9], [4, 4]], ids=["ragged", "one length"])
@pytest.mark.parametrize("autocast", [False, True])
def test_on_a_cpu_attention_in_16_bits_is_rounded_once(lengths, autocast):
    query, key, value = (torch.randn(1, 2, sum(lengths), 8, dtype=torch.bfloat16) for _ in range(3))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        got, _ = attention(torch.nn.Module(), query, key, value, None, **boundaries(lengths, "cpu"))
    rows = zip(*(one.float().split(lengths, dim=2) for one in (query, key, value)), strict=True)
    exact = torch.cat([functional.scaled_dot_product_attention(*row, is_causal=True) for row in rows], dim=2)
    assert torch.equal(got, exact.to(torch.bfloat16).transpose(1, 2))


def test_queries_that_rotation_left_in_32_bits_are_attended_in_autocasts(monkeypatch):
    seen = []
    attended = finetune_trainer.computing.attention.attended

    def spy(*given, **how):
        seen.extend(one.dtype for one in given)
        return attended(*given, **how)

    monkeypatch.setattr(finetune_trainer.computing.attention, "attended", spy)
    assert why_not_packed(make_model("llama", num_key_value_heads=2), torch.bfloat16) is None
    assert set(seen) == {torch.bfloat16}


def test_kernels_that_do_not_know_the_machine_are_no_reason_to_fail(monkeypatch):
    def unknown(*_given, **_how):
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.\nException raised from mha_varlen_fwd")

    monkeypatch.setattr(finetune_trainer.computing.attention, "attended", unknown)
    why = why_not_packed(make_model("llama"), torch.float32)
    assert why.endswith("cannot be computed within rows here: FlashAttention only supports Ampere GPUs or newer.")


def test_outside_of_training_a_model_attends_as_before():
    model = make_model("llama")
    before = model.config._attn_implementation
    with kept_apart(model):
        assert model.config._attn_implementation == NAME
    assert model.config._attn_implementation == before


@pytest.mark.parametrize(
    ("kind", "changes", "why"),
    [
        ("t5", {"d_model": 32, "d_kv": 8, "num_layers": 2, "num_heads": 4, "d_ff": 64}, "encoder-decoder"),
        ("gemma2", {"num_key_value_heads": 2, "head_dim": 8}, "softcap"),
        ("mamba", {"state_size": 4}, "cannot be replaced"),
        ("lfm2", {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]}, "see each other"),
        ("recurrent_gemma", {"num_key_value_heads": 1, "lru_width": 32, "head_dim": 8}, "see each other"),
        ("bloom", {"n_head": 4, "n_layer": 2}, "cannot be replaced"),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}, "dropout"),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}, "out of range"),
        ("deepseek_v32", DEEPSEEK, "cannot be computed within rows here: 'NoneType' object"),
    ],
)
def test_models_that_cannot_keep_rows_apart_are_found_out(kind, changes, why):
    if kind == "t5":
        model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(kind, vocab_size=64, **changes))
    else:
        model = make_model(kind, **changes)
    before = torch.get_rng_state()
    assert why in str(why_not_packed(model.train(), torch.float32))
    assert torch.get_rng_state().equal(before)
    assert model.training


def test_parts_that_hear_attend_afterwards_as_they_did_before():
    text = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "global_head_dim": 8}
    text |= {"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0}
    of_others = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = AutoConfig.for_model(
        "gemma4",
        text_config={**SMALL, **text, "layer_types": ["sliding_attention", "full_attention"]},
        vision_config={**of_others, "intermediate_size": 32},
        audio_config={**of_others, "output_proj_dims": 32},
    )
    model = AutoModelForCausalLM.from_config(config)
    assert config.audio_config._attn_implementation == "eager"  # all that it can
    assert why_not_packed(model, torch.float32) is None
    parts = (config.text_config, config.vision_config, config.audio_config)
    assert [part._attn_implementation for part in parts] == ["sdpa", "sdpa", "eager"]


@pytest.mark.parametrize("kind", ["lfm2", "lfm2_moe"])
def test_what_a_short_convolution_carries_over_is_found_in_16_bits_too(kind):
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "num_dense_layers": 1}
    layers = {"layer_types": ["conv", "full_attention"], "num_key_value_heads": 2}
    model = make_model(kind, **layers, **(experts if kind == "lfm2_moe" else {}))
    assert "see each other" in str(why_not_packed(model.bfloat16(), torch.bfloat16))


@pytest.mark.parametrize(
    ("kind", "changes", "ahead"),
    [
        ("llama", {"num_key_value_heads": 2}, False),
        ("mixtral", {"num_key_value_heads": 2, "num_local_experts": 4}, False),
        ("bert", {"is_decoder": True}, False),
        ("bert", {}, True),
        ("xlm", {"emb_dim": 32, "n_layers": 2, "n_heads": 4}, True),
        ("cpmant", {"dim_head": 8, "dim_ff": 64}, True),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_that_look_at_what_follows_are_found_out(kind, changes, ahead, dtype):
    model = make_model(kind, **changes).to(dtype).train()
    assert looks_ahead(model, dtype) is ahead
    assert model.training


@pytest.mark.parametrize("lora", [{}, {"use_rslora": True}, {"target_modules": "q_proj,down_proj"}])
def test_a_fused_adapter_layer_computes_what_pefts_does(lora, store):
    model = adapted(make_model("llama", num_key_value_heads=2, attention_bias=True), **lora)
    expected = gradients(model, store, Cut(None, 2))
    assert fuse(model) == sum(hasattr(module, "lora_A") for module in model.modules())
    got = gradients(model, store, Cut(None, 2))
    assert list(got) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-6)
        assert got[name].dtype == value.dtype
        assert value.abs().max() > 0


def test_a_model_may_write_into_what_a_fused_layer_gave():
    """As Gemma 3n does with its projections, `x *= scale`."""
    learnt = {}
    for fused in (False, True):
        model = adapted(make_model("llama"))
        if fused:
            fuse(model)
        layer = next(module for path, module in model.named_modules() if path.endswith("q_proj"))
        torch.manual_seed(1)
        out = layer(torch.randn(2, 3, 32))
        out *= 3.0
        out.pow(2).sum().backward()
        learnt[fused] = [layer.lora_A["default"].weight.grad, layer.lora_B["default"].weight.grad]
    torch.testing.assert_close(learnt[True], learnt[False], rtol=1e-4, atol=1e-5)


def test_a_fused_layer_is_pefts_where_adapters_are_off_or_merged():
    model = adapted(make_model("llama"))
    ids = torch.arange(1, 20)[None]
    with torch.no_grad():
        tuned = model(input_ids=ids).logits
        with model.disable_adapter():
            base = model(input_ids=ids).logits
        fuse(model)
        torch.testing.assert_close(model(input_ids=ids).logits, tuned, rtol=1e-3, atol=1e-4)
        with model.disable_adapter():
            assert model(input_ids=ids).logits.equal(base)
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(input_ids=ids).logits, tuned, rtol=1e-3, atol=1e-3)


def test_layers_that_do_more_than_lora_keep_pefts_way():
    assert fuse(adapted(make_model("llama"), use_dora=True)) == 0


@pytest.mark.parametrize("training", [True, False])
def test_a_fused_layer_of_4_bits_computes_what_pefts_does_and_keeps_no_wider_weights(training):
    found = {}
    for fused in (False, True):
        model = make_model("llama", hidden_size=64, intermediate_size=128)
        quantise(model)
        model = adapted(model).train(training)
        if fused:
            assert fuse(model) == 14
        layer, kept = layer_of(model), []
        first, second = (half["default"].weight for half in (layer.lora_A, layer.lora_B))
        torch.manual_seed(6)
        x, push = torch.randn(5, 128, requires_grad=True), torch.randn(5, 64)
        with torch.autograd.graph.saved_tensors_hooks(lambda one, kept=kept: kept.append(one) or one, lambda one: one):
            out = layer(x)
        found[fused] = [out, *torch.autograd.grad(out, [x, first, second], push)]
        assert all(one.numel() < 128 * 64 for one in kept)
    torch.testing.assert_close(found[True], found[False], rtol=2e-2, atol=2e-2)


def layer_of(model, name="down_proj"):
    return next(module for path, module in model.named_modules() if path.endswith(name))


@pytest.mark.parametrize("training", [True, False])
def test_a_fused_layer_drops_a_part_of_what_its_adapter_reads_and_makes_up_for_it(training):
    """Beside the same written out, with what was dropped told by the seed."""
    model = adapted(make_model("llama", num_key_value_heads=2), dropout=0.25).train(training)
    assert fuse(model)
    layer = layer_of(model)
    first, second = (half["default"].weight for half in (layer.lora_A, layer.lora_B))
    x = torch.randn(2, 300, 64, requires_grad=True)
    torch.manual_seed(5)
    got = torch.autograd.grad(layer(x).pow(2).sum(), [x, first, second])
    torch.manual_seed(5)
    kept = torch.empty(600, 64, dtype=torch.bool).bernoulli_(0.75).view(2, 300, 64) / 0.75 if training else 1
    out = layer.base_layer(x) + 2 * (x * kept) @ first.T @ second.T
    for one, expected in zip(got, torch.autograd.grad(out.pow(2).sum(), [x, first, second]), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("scale", [1e-3, 0.1, 2.0])
@pytest.mark.parametrize("alpha", [8, 6])
def test_in_16_bits_no_number_of_a_fused_layer_is_further_from_exact_than_pefts(scale, alpha):
    """Of a layer alone: a model of several makes of one rounding or another what it will, a third more or less."""
    errors = {}
    for dtype, fused in ((torch.float64, False), (torch.bfloat16, False), (torch.bfloat16, True)):
        model = adapted(make_model("llama", hidden_size=256, intermediate_size=512).bfloat16(), r=16, alpha=alpha)
        if fused:
            fuse(model)
        layer = layer_of(model).to(dtype) if dtype is torch.float64 else layer_of(model)
        first, second = (half["default"].weight for half in (layer.lora_A, layer.lora_B))
        torch.manual_seed(6)
        with torch.no_grad():
            second.copy_(torch.randn(second.shape) * scale)
        x = torch.randn(400, 512).bfloat16().to(dtype).requires_grad_()
        push = torch.randn(400, 256).bfloat16().to(dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            out = layer(x)
        found = [out, *torch.autograd.grad(out, [x, first, second], push.to(out.dtype))]
        errors[dtype, fused] = [one.detach().double() for one in found]
    exact, *both = errors.values()
    pefts, ours = (
        [float((one - right).norm() / right.norm()) for one, right in zip(way, exact, strict=True)] for way in both
    )
    assert all(mine < 1.02 * theirs for mine, theirs in zip(ours, pefts, strict=True)), (ours, pefts)


def test_fused_layers_in_bfloat16_learn_in_float32_what_those_in_32_bits_do(store):
    def learnt(dtype):
        model = adapted(make_model("llama", num_key_value_heads=2).to(dtype))
        fuse(model)
        return gradients(model, store, Cut(None, 2), dtype=dtype)

    got = learnt(torch.bfloat16)
    for name, exact in learnt(torch.float32).items():
        assert got[name].dtype == torch.float32
        assert (got[name] - exact).norm() < 0.3 * exact.norm(), name


@pytest.mark.parametrize("traced", [False, True], ids=["as it is", "as a compiler sees it"])
@pytest.mark.parametrize("name", ["q_proj", "down_proj"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_gpu)])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_what_a_new_adapter_adds_is_not_lost_in_the_rounding_of_what_it_is_added_to(name, device, traced, dropout):
    """In its first steps that is a fraction of the last of 16 bits. Of what is rounded twice, 0.36 would be left."""
    model = make_model("llama", hidden_size=256, intermediate_size=512, num_hidden_layers=1, attention_bias=True)
    model = adapted(model.to(device, torch.bfloat16), dropout=dropout)
    fuse(model)
    layer = layer_of(model, name)
    first, second = (half["default"].weight for half in (layer.lora_A, layer.lora_B))
    with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16):
        second.normal_(std=4e-4)
        if layer.base_layer.bias is not None:
            layer.base_layer.bias.normal_()
        x = torch.randn(400, first.shape[1], dtype=torch.bfloat16, device=device)
        alone = layer.base_layer(x).double()
        added = (torch.compile(layer, backend="aot_eager") if traced else layer)(x).double() - alone
    expected = 2 * x.double() @ first.double().T @ second.double().T
    assert expected.abs().mean() < 0.25 * 2**-8 * alone.abs().mean()
    assert float((added * expected).sum()) == pytest.approx(float(expected.pow(2).sum()), rel=0.1)


@on_gpu
@pytest.mark.parametrize("kind", MODELS)
def test_on_a_gpu_packed_logits_are_those_of_each_row_alone(kind, store):
    name, changes = MODELS[kind]
    model = make_model(name, **changes).to("cuda", torch.bfloat16).eval()
    assert why_not_packed(model, torch.bfloat16) is None
    rows = list(range(len(store)))
    with torch.no_grad():
        for row, together in zip(rows, packed_logits(model, store, rows, "cuda"), strict=True):
            ids = torch.from_numpy(store.row(row)[0])[None].to("cuda")
            alone = model(input_ids=ids, use_cache=False).logits[0].float()
            assert (together.float() - alone).norm() < 0.05 * alone.norm()


@on_gpu
def test_on_a_gpu_gradients_of_packed_rows_are_as_near_those_in_32_bits_as_those_of_rows_alone(store):
    def learnt(dtype, cut, *, fused):
        model = adapted(make_model("llama", num_key_value_heads=2)).to("cuda", torch.bfloat16).to(dtype)
        if fused:
            fuse(model)
        return gradients(model, store, cut, "cuda", dtype)

    exact = learnt(torch.float32, Cut(None, 1), fused=False)
    errors = {}
    for together in (False, True):
        cut = Cut(1000, packed=True) if together else Cut(None, 1)
        got = learnt(torch.bfloat16, cut, fused=together)
        errors[together] = sum(float((got[name] - value).norm() / value.norm()) for name, value in exact.items())
    assert errors[True] < 1.2 * errors[False] < 0.12 * len(exact)


def test_fused_layers_keep_pefts_class():
    model = adapted(make_model("llama"))
    fuse(model)
    assert any(isinstance(module, AdaptedLinear) for module in model.modules())


def losses_of(folder, cache, **hyperparameters):
    job = make_job(folder, cache, splits=("train", "validation"), hyperparameters={"epochs": 1, **hyperparameters})
    reporter, interruption = Reporter(job), Interruption()
    execute(job, reporter, interruption, allow_local=True)
    lines = map(json.loads, (Path(job.output) / "metrics.jsonl").read_text().splitlines())
    return [line.get("loss", line.get("validationLoss")) for line in lines]


def test_a_job_has_the_same_losses_whether_its_rows_are_packed_or_padded(tiny_model, tmp_path, caplog):
    caplog.set_level(logging.INFO, "finetune_trainer.train")
    packed_losses = losses_of(tmp_path / "packed", tiny_model, precision="Float32")
    padded_losses = losses_of(tmp_path / "padded", tiny_model, precision="Float32", packing=False)
    assert packed_losses == pytest.approx(padded_losses, rel=1e-3)
    said = [record.getMessage() for record in caplog.records if "rows are" in record.getMessage()]
    if not torch.cuda.is_available():
        assert said == ["rows are packed", "rows are padded, not packed: hyperparameters.packing is off"]


def test_after_training_a_model_forgets_gradients_as_any_other():
    model = make_model("llama")
    trained = list(model.parameters())
    with in_training(model, trained, packed=True, compile_layers=False):
        model.get_input_embeddings().weight.grad = torch.ones(64, 32)
        model.zero_grad()
        assert all(value.grad is None for value in trained)
        assert model.config._attn_implementation == NAME
    assert model.config._attn_implementation != NAME
    assert "zero_grad" not in vars(model)


def test_accelerate_leaves_the_passes_of_a_step_where_they_are(store):
    steps = Steps(store, Plan(len(store), batch_size=3, epochs=1, seed=0), Cut(100, packed=True))
    batch = send_to_device(steps[0], "meta")[PASSES].each[0]
    assert {value.device.type for value in batch.values()} == {"cpu"}
