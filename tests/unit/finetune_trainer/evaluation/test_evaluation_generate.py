"""Answers do not depend on how questions are batched, with a decoder alone or behind an encoder."""

import random
from types import SimpleNamespace

import pytest

from finetune_trainer.data import ChatTokenizer
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation import generate
from finetune_trainer.evaluation.generate import depends_on_padding, generated
from finetune_trainer.models import base_model
from finetune_trainer.models.generation import end_of_answer, plain_generation
from tests.unit.finetune_trainer.computing.small_models import make_model


@pytest.fixture(scope="module")
def causal(tiny_model):
    import torch

    folder = tiny_model / "test" / "tiny-llama"
    base_model.quiet_libraries()
    model = base_model.load_model(folder, dtype=torch.float32)
    tokenizer, chat = base_model.load_tokenizer(folder), ChatTokenizer.from_folder(folder)
    return model, plain_generation(model, tokenizer, chat)


@pytest.fixture(scope="module")
def encoder_decoder():
    import torch
    from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=300, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0,
        initializer_factor=20.0,
    )  # fmt: skip
    generation = GenerationConfig(eos_token_id=1, pad_token_id=0, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config), generation


@pytest.fixture(params=["causal", "encoder_decoder"])
def asked(request):
    return request.getfixturevalue(request.param)


def ask(asked, prompts, **options):
    model, generation = asked
    said, batches = {}, 0
    for batch in generated(model, prompts, generation=generation, **options):
        said |= dict(batch)
        batches += 1
    return [said[place] for place in range(len(prompts))], batches


def test_answers_do_not_depend_on_batches(asked):
    chance = random.Random(5)
    prompts = [[chance.randint(5, 250) for _ in range(chance.randint(3, 30))] for _ in range(9)]
    alone, many = ask(asked, prompts, max_new_tokens=6, token_budget=1)
    together, few = ask(asked, prompts, max_new_tokens=6, token_budget=120)
    assert together == alone
    assert len({tuple(ids) for ids in alone}) > 3
    assert (many, 1 < few < 9) == (9, True)


def with_room_for(monkeypatch, tokens):
    """A GPU that holds so many tokens at once; the sizes of the batches that it was given."""
    import torch

    original, tried = generate._new_tokens, []

    def new_tokens(model, prompts, generation, limit):
        tried.append(len(prompts))
        if len(prompts) * (max(map(len, prompts)) + limit) > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return original(model, prompts, generation, limit)

    monkeypatch.setattr(generate, "_new_tokens", new_tokens)
    return tried


def test_batches_that_memory_is_too_small_for_are_halved_and_everybody_answers(asked, monkeypatch):
    chance = random.Random(5)
    prompts = [[chance.randint(5, 250) for _ in range(chance.randint(3, 30))] for _ in range(9)]
    plain, _ = ask(asked, prompts, max_new_tokens=6, token_budget=1000)
    tried, budgets = with_room_for(monkeypatch, 80), []
    halved, _ = ask(asked, prompts, max_new_tokens=6, token_budget=1000, on_shortage=budgets.append)
    assert halved == plain
    assert (tried[0], budgets) == (9, sorted(budgets, reverse=True))
    assert sum(tried) < 9 + 4 + 3 + 9, "what has answered is not asked again"


def test_a_question_that_memory_is_too_small_for_alone_is_told_without_its_words(asked, monkeypatch):
    with_room_for(monkeypatch, 80)
    with pytest.raises(TrainerError, match=r"one question and its answer, up to 96 tokens") as raised:
        ask(asked, [[7] * 5, [7] * 90, [9] * 5], max_new_tokens=6, token_budget=1000)
    assert (raised.value.reason, "maxNewTokens" in raised.value.next_step) == ("OutOfMemory", True)


def test_what_the_base_model_likes_beyond_the_likeliest_token_changes_no_answer(asked, monkeypatch):
    from transformers import GenerationConfig

    model, _ = asked
    prompts = [[7, 8, 9], [31, 32]]
    plain, _ = ask(asked, prompts, max_new_tokens=9, token_budget=100)
    taste = GenerationConfig(
        repetition_penalty=9.0,
        no_repeat_ngram_size=1,
        num_beams=2,
        forced_eos_token_id=5,
        suppress_tokens=[plain[0][0]],
    )
    monkeypatch.setattr(model, "generation_config", taste)
    assert ask(asked, prompts, max_new_tokens=9, token_budget=100)[0] == plain
    assert model.generation_config is taste


def test_a_model_that_passes_over_the_mask_of_padding_is_asked_by_prompts_of_one_length(causal):
    import torch
    from transformers import GenerationConfig, MiniMaxConfig, MiniMaxForCausalLM

    torch.manual_seed(0)
    config = MiniMaxConfig(
        vocab_size=300, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, head_dim=8,
        num_key_value_heads=2, num_local_experts=2, layer_types=["linear_attention", "full_attention"], block_size=16,
        initializer_range=0.3,
    )  # fmt: skip
    model = MiniMaxForCausalLM(config).eval()
    for value in model.parameters():
        if value.dim() > 1:
            torch.nn.init.normal_(value, std=0.25)
    assert (depends_on_padding(causal[0]), depends_on_padding(model)) == (False, True)
    prompts = [[5 + place] * length for place, length in enumerate((3, 9, 3, 5, 9, 3))]
    asked = model, GenerationConfig(eos_token_id=1, pad_token_id=0)
    alone, _ = ask(asked, prompts, max_new_tokens=4, token_budget=1)
    assert ask(asked, prompts, max_new_tokens=4, token_budget=120) == (alone, 3)


def test_prompts_that_reach_where_a_model_rotates_otherwise_are_asked_by_one_length():
    from transformers import GenerationConfig

    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 12}
    rope |= {"factor": 4.0, "short_factor": [1.0] * 4, "long_factor": [2.0, 9.0, 20.0, 30.0]}
    model = make_model("llama", rope_parameters=rope, max_position_embeddings=48)
    prompts = [[5 + place] * length for place, length in enumerate((3, 20, 5, 20, 10, 4))]
    asked = model, GenerationConfig(eos_token_id=1, pad_token_id=0)
    alone, _ = ask(asked, prompts, max_new_tokens=4, token_budget=1)
    assert ask(asked, prompts, max_new_tokens=4, token_budget=200) == (alone, 3)


def test_an_answer_stops_before_the_token_that_ends_it(asked):
    model, generation = asked
    (said,), _ = ask(asked, [[7, 8, 9]], max_new_tokens=6, token_budget=100)
    copied = type(generation)(**(generation.to_dict() | {"eos_token_id": [said[2], 299]}))
    (cut,), _ = ask((model, copied), [[7, 8, 9]], max_new_tokens=6, token_budget=100)
    assert cut == said[: said.index(said[2])]


def test_an_answer_ends_where_the_template_ends_a_turn(causal, tiny_model):
    folder = tiny_model / "test" / "tiny-llama"
    chat, tokenizer = ChatTokenizer.from_folder(folder), base_model.load_tokenizer(folder)
    assert end_of_answer(chat) == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert causal[1].eos_token_id == 2


def test_every_token_that_may_end_an_answer_is_named(tiny_model):
    folder = tiny_model / "test" / "tiny-llama"
    stub = SimpleNamespace(
        generation_config=SimpleNamespace(eos_token_id=[0, 1], bos_token_id=1, decoder_start_token_id=None)
    )
    plain = plain_generation(stub, base_model.load_tokenizer(folder), ChatTokenizer.from_folder(folder))
    assert plain.eos_token_id == [2, 0, 1]
