"""What is asked: examples are never of the test set, prompts fit, and a spec that does not fit is refused early."""

from collections import Counter

import pytest

from finetune_api.evaluation import Evaluation
from finetune_api.verdict import DatasetVerdict
from finetune_trainer.data import ChatTokenizer, Position, Row, Turn, check_dataset
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation import material
from finetune_trainer.evaluation.material import (
    after_examples,
    answer_limit,
    collected,
    examples,
    prepare,
    questions,
)
from tests.unit.finetune_trainer.data.chat_templates import CHATML, THINKING, byte_level
from tests.unit.finetune_trainer.jobs import make_job


def row(number, prompt=None, completion=" red\n", system=None):
    turns = (Turn("user", prompt or f"Question {number}?"), Turn("assistant", completion))
    return Row(Position(line=number), ((Turn("system", system),) if system else ()) + turns)


@pytest.fixture(scope="module")
def chat(tiny_model):
    return ChatTokenizer.from_folder(tiny_model / "test" / "tiny-llama")


def test_completions_are_compared_without_white_space_around_them():
    (question,) = questions([row(1)])
    assert (question.place, question.completion) == ("line 1", "red")


def test_an_example_is_never_asked_in_the_test_set_not_even_with_another_answer():
    asked = questions([row(1, "Known?"), row(2)])
    train = [row(10, "Known?", "other"), row(11, "Question 2?"), row(12), row(13)]
    for seed in range(20):
        assert {one.position.line for one in examples(train, asked, 4, seed=seed)} == {12, 13}


def test_no_example_gives_an_answer_away_that_it_has_in_another_place_or_after_another_instruction():
    asked = questions([row(1, "Known?")])
    turns = (Turn("user", "Known?"), Turn("assistant", "red"), Turn("user", "More?"), Turn("assistant", "green"))
    longer = Row(Position(line=11), turns)
    train = [row(10, "Known?", system="Be brief."), longer, row(12)]
    assert [one.position.line for one in examples(train, asked, 4, seed=0)] == [12]


def test_examples_are_drawn_by_seed_and_each_row_has_the_same_chance():
    train = [row(number) for number in range(10)]
    assert examples(train, [], 3, seed=1) == examples(train, [], 3, seed=1)
    drawn = Counter(one.position.line for seed in range(3000) for one in examples(train, [], 3, seed=seed))
    assert all(800 < count < 1000 for count in drawn.values())
    assert len(drawn) == 10


def test_examples_stand_between_the_system_message_and_the_question():
    question = row(1, "Now?", system="Be brief.")
    shown = [row(2, "Then?", "green", system="Be long.")]
    assert after_examples(question.prompt, shown) == (
        Turn("system", "Be brief."),
        Turn("user", "Then?"),
        Turn("assistant", "green"),
        Turn("user", "Now?"),
    )


def test_a_question_gets_as_many_examples_as_fit(chat):
    asked = questions([row(1, "short"), row(2, "long " * 40)])
    shown = [row(number) for number in range(10, 18)]
    whole = material.prompts(asked, chat, 10_000)
    longest = len(whole[0].ids) + 60
    found = material.prompts_with_examples(asked, shown, chat, longest)
    assert all(len(prompt.ids) <= longest for prompt in found)
    assert 0 < found[0].examples < 8
    assert found[1].examples == 0
    assert list(found[1].ids) == list(whole[1].ids)[-longest:]
    one_more = after_examples(asked[0].turns, shown[: found[0].examples + 1])
    assert len(chat.prompt_ids(one_more)) > longest


def test_a_long_prompt_keeps_its_end(chat):
    asked = questions([row(1)])
    (cut,), (whole,) = (material.prompts(asked, chat, longest) for longest in (5, 400))
    assert list(cut.ids) == list(whole.ids)[-5:]


@pytest.mark.parametrize(
    ("spec", "completions", "limit"),
    [
        ({}, [3, 10], 18),
        ({"maxNewTokens": 4}, [3, 10], 4),
        ({"maxNewTokens": 500}, [3, 10], 500),
        ({}, [5000], 1024),
        ({"metrics": ["rougeL"], "maxNewTokens": 500}, [3, 10], 500),
        ({"metrics": ["exactMatch", "rougeL"]}, [80], 98),
        ({"metrics": ["rougeL"]}, [5000], 1024),
        ({}, [], 8),
    ],
)
def test_an_answer_is_as_long_as_its_measure_needs(spec, completions, limit):
    assert answer_limit(Evaluation.model_validate(spec), completions) == limit


def test_an_answer_has_room_for_what_the_template_writes_before_it(tiny_model, tmp_path):
    job = make_job(tmp_path, tiny_model, splits=("train", "test"))
    tokenizers = [ChatTokenizer.from_transformers(byte_level(template)) for template in (CHATML, THINKING)]
    verdict = check_dataset(job.spec, tokenizer=None, allow_local=True)
    plain, thinking = (prepare(job, one, verdict, allow_local=True).max_new_tokens for one in tokenizers)
    thought = "<think>\n\n</think>\n\n"
    assert thinking - plain == len(tokenizers[1].ids([thought])[0]) > 0


def test_no_right_answer_of_a_service_is_cut_because_it_has_more_tokens_there(tiny_model, tmp_path):
    job = make_job(tmp_path, tiny_model, splits=("train", "test"))
    found = collected(
        job.spec, DatasetVerdict(valid=True, reason="Valid", message=""), lambda _: iter([row(1, completion="今天")]),
        lambda texts: [1] * len(texts),
    )  # fmt: skip
    assert (found.max_new_tokens, found.service_tokens) == (1 + 8, len("今天".encode()) + 8)


def test_fields_of_json_are_not_compared_where_there_are_none(tiny_model, tmp_path, chat):
    job = make_job(tmp_path, tiny_model, splits=("train", "test"), evaluation={"metrics": ["jsonFields"]})
    verdict = check_dataset(job.spec, tokenizer=chat, allow_local=True)
    with pytest.raises(TrainerError, match=r"no completion of dataset\.test is JSON") as caught:
        prepare(job, chat, verdict, allow_local=True)
    assert caught.value.reason == "DatasetInvalid"
