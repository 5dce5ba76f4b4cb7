"""Models of many kinds on a GPU, as a job trains them, beside plain transformers in 32 bits: the same losses and
gradients, but for what 16 bits round."""

import statistics

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from finetune_trainer.computing.adapted_linear import fuse
from finetune_trainer.computing.attention import why_not_packed
from finetune_trainer.computing.compiled_layers import in_training
from finetune_trainer.training.passes import Cut, labelled, loss_sum, on_device, passes_of
from finetune_trainer.training.token_store import TokenStore
from tests.unit.finetune_trainer.computing.small_models import adapted, make_model, make_rows

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

WIDE = {"hidden_size": 64, "num_key_value_heads": 2, "head_dim": 16}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
KINDS = {
    "llama": ("llama", WIDE),
    "qwen3": ("qwen3", WIDE),
    "mixtral": ("mixtral", WIDE | EXPERTS | {"num_local_experts": 4}),
    "qwen3 moe": ("qwen3_moe", WIDE | EXPERTS | {"num_experts": 4, "norm_topk_prob": True}),
    "phi3": ("phi3", {"hidden_size": 64, "num_key_value_heads": 2, "pad_token_id": 0}),
    "gemma2": ("gemma2", WIDE | {"query_pre_attn_scalar": 16, "sliding_window": 4}),
    "gemma3": ("gemma3_text", WIDE | {"query_pre_attn_scalar": 16, "sliding_window": 4}),
    "t5": ("t5", {"d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
           | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0}),
}  # fmt: skip
WAYS = {"LoRA": {}, "rsLoRA": {"use_rslora": True}, "DoRA": {"use_dora": True}, "Full": None}


def built(kind, way, dtype):
    """On the GPU, with adapters on a frozen base that 16 bits can hold."""
    name, changes = KINDS[kind]
    if name == "t5":
        model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(name, vocab_size=64, **changes))
    else:
        model = make_model(name, **changes)
    if WAYS[way] is None:
        return model.to("cuda").train()
    tuned = adapted(model.to("cuda", torch.bfloat16), **WAYS[way])
    return (tuned if dtype is torch.bfloat16 else tuned.to(dtype)).train()


@torch.no_grad()
def fill(model, seed):
    """The same numbers in whatever way the model is built, and such as 16 bits can hold; norms scale by one."""
    chance = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        if value.dim() > 1 and "magnitude" not in name:
            value.copy_(torch.randn(value.shape, generator=chance).mul_(_STD).to(torch.bfloat16))
        elif "norm" in name:
            value.sign_()  # Gemma's are zeros: they scale by 1 + w
    for module in model.modules():
        for magnitude in getattr(module, "lora_magnitude_vector", {}).values():
            weight = module.get_base_layer().weight.float() + module.get_delta_weight("default").float()
            magnitude.weight.copy_(weight.norm(dim=1))


_STD = 0.08
SEEDS = range(6)


def rows_of(kind):
    store = TokenStore(make_rows(), decoder_start=0 if kind == "t5" else None)
    return store, list(range(len(store)))


def trained_by(model):
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def plainly(kind, way, dtype):
    """Losses and gradients of transformers' and peft's own layers, one row after the other: of each seed."""
    model, (store, rows) = built(kind, way, dtype), rows_of(kind)
    passes = passes_of(store, rows, Cut(None, 1))
    return [learnt(model, passes, dtype, seed) for seed in SEEDS]


def as_a_job_does(kind, way, dtype):
    """The same of layers that are fused and, where the model takes it, packed and compiled."""
    model, (store, rows) = built(kind, way, dtype), rows_of(kind)
    fuse(model)
    packed = why_not_packed(model, dtype) is None
    assert packed is (dtype == torch.bfloat16 and kind not in {"t5", "gemma2"})
    passes = passes_of(store, rows, Cut(1000, packed=packed))
    with (
        torch._dynamo.config.patch(fail_on_recompile_limit_hit=True),
        in_training(model, list(trained_by(model).values()), packed=packed, compile_layers=packed),
    ):
        found = [learnt(model, passes, dtype, seed) for seed in SEEDS]
    torch._dynamo.reset()
    return found


def learnt(model, passes, dtype, seed):
    fill(model, seed)
    total, summed = sum(map(labelled, passes)), 0.0
    for one in passes:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            loss = loss_sum(model, on_device(one, "cuda")) / total
        loss.backward()
        summed += float(loss)
    grads = {name: value.grad for name, value in trained_by(model).items()}
    for value in model.parameters():
        value.grad = None
    return summed, grads


def errors(got, exact):
    """How far gradients are from exact ones: norm over norm, of each parameter of each seed."""
    return [
        float((one[name] - value).norm() / value.norm())
        for (_, one), (_, right) in zip(got, exact, strict=True)
        for name, value in right.items()
        if value is not None and value.norm() > 0
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_job_learns_what_plain_transformers_does(kind, way):
    """In 32 bits the same; in 16 bits no further from that than plain layers are."""
    exact = plainly(kind, way, torch.float32)
    same = as_a_job_does(kind, way, torch.float32)
    assert [loss for loss, _ in same] == pytest.approx([loss for loss, _ in exact], rel=1e-5)
    assert len(errors(same, exact)) > 10 * len(SEEDS)
    assert max(errors(same, exact)) < 1e-3
    theirs, ours = (
        statistics.median(errors(compute(kind, way, torch.bfloat16), exact)) for compute in (plainly, as_a_job_does)
    )
    assert ours < 1.1 * theirs  # a token that meets another expert is far off: the mean would be of those


@pytest.mark.parametrize("kind", ["llama", "phi3", "gemma3", "qwen3 moe"])
def test_gradients_of_compiled_layers_with_dropout_are_the_slope_of_their_loss(kind):
    """What was dropped is drawn within the compiled layer; on the way back it has to be the same."""
    name, changes = KINDS[kind]
    model = adapted(make_model(name, **changes).to("cuda", torch.bfloat16), dropout=0.5).train()
    fuse(model)
    fill(model, 1)
    store, rows = rows_of(kind)
    (batch,) = (on_device(one, "cuda") for one in passes_of(store, rows, Cut(1000, packed=True)))
    first = [value for path, value in trained_by(model).items() if "lora_A" in path]

    def loss(seed=7):
        torch.manual_seed(seed)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            return loss_sum(model, batch)

    with in_training(model, list(trained_by(model).values()), packed=True, compile_layers=True):
        way = torch.autograd.grad(loss(), first)
        whole = sum(float(one.square().sum()) for one in way)

        def move(nats):
            with torch.no_grad():
                for value, one in zip(first, way, strict=True):
                    value.add_(one, alpha=nats / whole)
            return float(loss())

        above, below = move(2), move(-4)
        assert above - below == pytest.approx(4, rel=0.15)
        assert float(loss()) == float(loss()) != float(loss(8))
    torch._dynamo.reset()
