"""Measuring: answers do not depend on how rows are batched, and the verdict knows chance from difference."""

import random
from types import SimpleNamespace

import pytest

from finetune_trainer import artifact, base_model, evaluate
from finetune_trainer.data import ChatTokenizer, Position, Row, Turn


@pytest.fixture(scope="module")
def base(tiny_model):
    import torch

    folder = tiny_model / "test" / "tiny-llama"
    base_model.quiet_libraries()
    model = base_model.load_model(folder, dtype=torch.float32)
    return model, base_model.load_tokenizer(folder), ChatTokenizer.from_folder(folder)


def rows(count):
    chance = random.Random(5)
    for line in range(1, count + 1):
        prompt = "What colour? " + "very " * chance.randint(0, 30)
        yield Row(
            Position(line=line), (Turn("user", prompt), Turn("assistant", f" {chance.choice(['red', 'blue'])}\n"))
        )


def ask(base, asked, **options):
    model, tokenizer, chat = base
    generation = artifact.plain_generation(model, tokenizer, chat)
    return evaluate.answers(model, asked, chat, generation=generation, **options)


def test_answers_do_not_depend_on_batches(base):
    asked = evaluate.questions(rows(9), base[2], 400)
    alone = ask(base, asked, max_new_tokens=6, token_budget=1)
    heard = []
    together = ask(base, asked, max_new_tokens=6, token_budget=600, on_batch=heard.append)
    assert together == alone
    assert any(alone)
    assert heard[-1] == 9
    assert 1 < len(heard) < 9


def test_an_answer_ends_where_the_template_ends_a_turn(base):
    model, tokenizer, chat = base
    assert artifact.end_of_answer(chat) == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert artifact.plain_generation(model, tokenizer, chat).eos_token_id == 2


def test_every_token_that_may_end_an_answer_is_named(base):
    _, tokenizer, chat = base
    stub = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[0, 1], bos_token_id=1))
    assert artifact.plain_generation(stub, tokenizer, chat).eos_token_id == [2, 0, 1]


def test_completions_are_compared_without_white_space_around_them(base):
    (question,) = evaluate.questions(rows(1), base[2], 400)
    assert question.completion in ("red", "blue")
    assert question.place == "line 1"
    found = evaluate.result([question], [question.completion], ["something else"])
    assert (found.tuned.exact_match, found.baselines.zero_shot.exact_match, found.rows) == (1.0, 0.0, 1)


@pytest.mark.parametrize(
    ("tuned", "base_right", "verdict"),
    [
        ([True] * 80 + [False] * 20, [True] * 10 + [False] * 90, "Better"),
        ([True] * 10 + [False] * 90, [True] * 80 + [False] * 20, "Worse"),
        ([True] * 50 + [False] * 50, [True] * 50 + [False] * 50, "NoDifference"),
        ([True] * 52 + [False] * 48, [False] * 48 + [True] * 52, "NoDifference"),
        ([True] * 3, [False] * 3, "Better"),
        ([True, False], [False, True], "NoDifference"),
        ([], [], "NoDifference"),
    ],
)
def test_the_verdict_is_that_of_a_paired_bootstrap(tuned, base_right, verdict):
    assert evaluate.verdict(tuned, base_right) == verdict


def test_a_long_prompt_keeps_its_end(base):
    (question,) = evaluate.questions(rows(1), base[2], 5)
    (whole,) = evaluate.questions(rows(1), base[2], 400)
    assert list(question.prompt) == list(whole.prompt)[-5:]
