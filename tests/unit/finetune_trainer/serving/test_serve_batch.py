"""Rows that share a batch get the tokens that transformers' own `generate` gives each of them alone."""

import weakref

import pytest
import torch
from served_models import greedy

from finetune_trainer.errors import TrainerError
from finetune_trainer.serving import batch as batches
from finetune_trainer.serving import kv_cache
from finetune_trainer.serving.asks import Ask, Sampling
from finetune_trainer.serving.batch import Batch, can_join, row_of
from finetune_trainer.serving.load import _generations

GREEDY = Sampling(temperature=0)
PROMPTS = ["one two", "What colour is the sky? The sky is blue.", "good", "happy sad happy sad no yes no yes", "three"]


LONG_ROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "factor": 32.0, "original_max_position_embeddings": 8,
    "short_factor": [1.0] * 4, "long_factor": [1.0, 3.0, 9.0, 27.0],
}  # fmt: skip


def make_llama(**fields):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2, intermediate_size=64, **fields))


def make_mistral_with_a_window():
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(**SMALL, num_key_value_heads=2, intermediate_size=64, sliding_window=6, head_dim=8)
    return MistralForCausalLM(config)


def make_gemma_with_windows():
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        **SMALL | {"num_hidden_layers": 4}, num_key_value_heads=2, intermediate_size=64, sliding_window=6, head_dim=8,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )  # fmt: skip
    return Gemma3ForCausalLM(config)


def make_gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.5)
    )


def make_bloom():
    from transformers import BloomConfig, BloomForCausalLM

    return BloomForCausalLM(BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.5))


def make_mamba():
    from transformers import MambaConfig, MambaForCausalLM

    return spread(MambaForCausalLM(MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, state_size=4)))


def make_mamba2():
    from transformers import Mamba2Config, Mamba2ForCausalLM

    config = Mamba2Config(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, state_size=8, num_heads=8, head_dim=8, n_groups=1
    )
    return spread(Mamba2ForCausalLM(config))


def make_minimax():
    from transformers import MiniMaxConfig, MiniMaxForCausalLM

    config = MiniMaxConfig(
        **SMALL, num_key_value_heads=2, head_dim=8, intermediate_size=32, num_local_experts=2, block_size=4,
        layer_types=["linear_attention", "full_attention"],
    )  # fmt: skip
    return MiniMaxForCausalLM(config)


def make_recurrent_gemma():
    from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

    config = RecurrentGemmaConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=1, head_dim=8,
        intermediate_size=64, lru_width=32, attention_window_size=64,
    )  # fmt: skip
    return spread(RecurrentGemmaForCausalLM(config))


def spread(model):
    """Its own first weights are so small that its state would change no answer."""
    with torch.no_grad():
        for value in model.parameters():
            if value.dim() > 1:
                value.normal_(0, 0.3)
    return model


SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.5,
}


def build(make):
    torch.manual_seed(3)
    model = make().eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def ask(prompt, count, sampling=GREEDY):
    return Ask(tuple(prompt), count, tell=lambda _: None, sampling=sampling)


def run(batch: Batch, asks: list[Ask], *, steps_between: int) -> list[list[int]]:
    """Let the asks join one after the other while the earlier ones go on, until all have their tokens."""
    done: dict[int, list[int]] = {}
    waiting = list(asks)

    def collect():
        ended = [row for row in batch.rows if len(row.generated) >= row.ask.max_tokens]
        done.update({id(row.ask): row.generated for row in ended})
        batch.drop(ended)

    while waiting or batch.rows:
        if waiting and not batch.is_reading:
            batch.start(row_of(waiting.pop(0)))
        while batch.is_reading:
            batch.read()
            collect()
            batch.step()
            collect()
        for _ in range(steps_between):
            batch.step()
            collect()
        if not waiting:
            batch.step()
            collect()
    return [done[id(one)] for one in asks]


def random_prompts(count, seed=11):
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 24, (count,), generator=random).tolist()
    return [torch.randint(1, 300, (length,), generator=random).tolist() for length in lengths]


@pytest.mark.alike
@pytest.mark.parametrize("make", [make_llama, make_mistral_with_a_window, make_gemma_with_windows, make_gpt2])
@pytest.mark.parametrize("portion", [4, 512])
def test_rows_that_come_and_go_get_the_tokens_of_generate(make, portion, monkeypatch):
    monkeypatch.setattr(batches, "PORTION", portion)
    model = build(make)
    assert can_join(model)
    prompts = random_prompts(6)
    counts = [9, 3, 14, 1, 20, 6]
    asks = [ask(prompt, count) for prompt, count in zip(prompts, counts, strict=True)]
    expected = [greedy(model, prompt, count) for prompt, count in zip(prompts, counts, strict=True)]
    assert run(Batch(model, can_join=True), asks, steps_between=2) == expected
    assert len({tuple(tokens) for tokens in expected}) == len(expected)


def test_a_prompt_beyond_the_switch_of_longrope_is_read_with_the_long_factors_from_its_beginning(monkeypatch):
    monkeypatch.setattr(batches, "PORTION", 4)
    model = build(lambda: make_llama(rope_parameters=LONG_ROPE))
    for prompt in (range(1, 21), range(40, 43)):
        expected = greedy(model, list(prompt), 5)
        assert run(Batch(model, can_join=True), [ask(prompt, 5)], steps_between=0) == [expected]


ALONE = [make_bloom, make_mamba, make_mamba2, make_minimax, make_recurrent_gemma]


@pytest.mark.parametrize("make", ALONE)
def test_models_whose_state_cannot_be_joined_answer_one_after_the_other(make):
    model = build(make)
    assert not can_join(model)
    batch = Batch(model, can_join=False)
    for prompt in random_prompts(3):
        expected = greedy(model, prompt, 8)
        assert run(batch, [ask(prompt, 8)], steps_between=0) == [expected]
        assert len(set(expected)) > 1


def test_a_model_whose_state_has_another_name_is_not_served():
    from transformers import RwkvConfig, RwkvForCausalLM

    model = RwkvForCausalLM(RwkvConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2))
    with pytest.raises(TrainerError, match="keep their state in a way"):
        _generations(model)


def test_the_tuned_model_answers_in_a_batch_as_alone(reference):
    model, tokenizer = reference
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    asks = [ask(prompt, 12) for prompt in prompts]
    batch = Batch(model.get_base_model(), can_join=True)
    assert run(batch, asks, steps_between=1) == [greedy(model, one, 12) for one in prompts]


def test_a_seeded_row_draws_the_same_tokens_in_a_batch_as_alone():
    model = build(make_llama)
    prompts = random_prompts(4)
    asks = [ask(prompt, 10, Sampling(seed=40 + index)) for index, prompt in enumerate(prompts)]
    together = run(Batch(model, can_join=True), asks, steps_between=1)
    alone = [run(Batch(model, can_join=True), [one], steps_between=0)[0] for one in asks]
    assert together == alone


def test_a_dropped_row_leaves_the_others_as_they_were():
    model = build(make_llama)
    short, long = [5, 6], list(range(10, 40))
    batch = Batch(model, can_join=True)
    for prompt in (long, short):
        batch.start(row_of(ask(prompt, 50)))
        while batch.is_reading:
            batch.read()
    batch.step()
    leaving, staying = batch.rows
    batch.drop([leaving])
    while len(staying.generated) < 10:
        batch.step()
    assert staying.generated == greedy(model, short, 10)


def test_a_change_of_rows_takes_memory_for_one_layer_beside_what_there_is(monkeypatch):
    """The server keeps 40 % of the free memory for what is cached, and a fourth of that as room to grow."""
    make, layers, held = kv_cache._blank, SMALL["num_hidden_layers"], []

    def made(*about):
        tensor = make(*about)
        living.append(weakref.ref(tensor))
        held.append(sum(one() is not None for one in living))
        return tensor

    living = []
    monkeypatch.setattr(kv_cache, "_blank", made)
    batch = Batch(build(make_llama), can_join=True)
    for prompt in random_prompts(4):
        batch.start(row_of(ask(prompt, 50)))
        while batch.is_reading:
            batch.read()
    batch.drop(batch.rows[:1])
    assert len(held) == 4 * 2 * layers
    assert max(held) == 2 * layers + 2, "keys and values of all layers, and of one that is being copied"


def put_back_and_resumed(batch, row, count, *, at):
    """The row's tokens where it has to leave the batch with `at` of them, and comes again."""
    batch.start(row)
    while len(row.generated) < count:
        if len(row.generated) == at and row in batch.rows and not batch.is_reading:
            batch.drop([row])
            batch.start(row)
            at = None
        while batch.is_reading:
            batch.read()
        if len(row.generated) < count and len(row.generated) != at:
            batch.step()
    return row.generated


@pytest.mark.parametrize("make", [make_llama, make_mistral_with_a_window, make_bloom])
@pytest.mark.parametrize("at", [1, 7])
def test_a_row_that_was_put_back_goes_on_where_it_was(make, at, monkeypatch):
    monkeypatch.setattr(batches, "PORTION", 4)
    model, prompt = build(make), list(range(10, 21))
    row = row_of(ask(prompt, 14))
    batch = Batch(model, can_join=can_join(model))
    assert put_back_and_resumed(batch, row, 14, at=at) == greedy(model, prompt, 14)


def test_a_row_that_was_put_back_draws_the_same_tokens():
    model, prompt, seeded = build(make_llama), [5, 6, 7], Sampling(seed=3)
    alone = run(Batch(model, can_join=True), [ask(prompt, 14, seeded)], steps_between=0)[0]
    row = row_of(ask(prompt, 14, seeded))
    assert put_back_and_resumed(Batch(model, can_join=True), row, 14, at=5) == alone


def test_an_unfinished_prompt_can_be_dropped(monkeypatch):
    monkeypatch.setattr(batches, "PORTION", 2)
    batch = Batch(build(make_llama), can_join=True)
    batch.start(row_of(ask([1, 2, 3, 4, 5], 3)))
    assert batch.read() is None
    batch.drop(batch.rows)
    assert not batch.rows
    assert batch.step() == []
