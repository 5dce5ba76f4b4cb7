"""The traps of other trainers, each held by a test that has its number: here those of templates, on real tokenizers.

What transformers itself makes of a conversation is the measure, token by token. Where the others are: their names
begin with test_trap_NN in this folder.
"""

import json
import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from finetune_api.exit_codes import ExitCode
from finetune_trainer.data import IGNORED, ChatTokenizer, Position, Row, Turn, encode
from finetune_trainer.models.generation import end_of_answer
from tests.assets import mistral_by_mistral_common
from tests.assets.real_tokenizers import BY_MISTRAL, real_tokenizer
from tests.assets.tiny_model import NAME
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.training_runs import do

HERE = Path(__file__).parent
TRAPS = range(1, 19)
ENDS = {"qwen3": "<|im_end|>", "llama3_1": "<|eot_id|>", "smollm2": "<|im_end|>", "mistral": "</s>"}
CONVERSATIONS = {
    name: tuple(Turn(role, text) for role, text in turns)
    for name, turns in mistral_by_mistral_common.CONVERSATIONS.items()
}


@pytest.fixture(scope="module", params=list(ENDS))
def real(request):
    """A published model's tokenizer, as transformers has it and as the trainer has it."""
    folder = real_tokenizer(request.param)
    return request.param, AutoTokenizer.from_pretrained(folder), ChatTokenizer.from_folder(folder)


def by_transformers(tokenizer, turns, *, prompt=False):
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=False)


def learnt(ours, turns):
    (encoded,) = encode([Row(Position(line=1), turns)], ours, 4096)
    return encoded


@pytest.mark.parametrize("turns", CONVERSATIONS.values(), ids=list(CONVERSATIONS))
def test_trap_01_training_has_the_tokens_of_the_template_with_one_begin_of_sequence(real, turns):
    name, tokenizer, ours = real
    ids, whole = list(learnt(ours, turns).input_ids), by_transformers(tokenizer, turns)
    assert ids == whole[: len(ids)]
    assert tokenizer.decode(whole[len(ids) :]).strip() == ""
    if name in {"llama3_1", "mistral"}:  # SmolLM2's opens every turn, Qwen3 has none
        assert ids.count(tokenizer.bos_token_id) == 1
    assert ours.prompt_ids(turns[:-1]) == by_transformers(tokenizer, turns[:-1], prompt=True)


def test_trap_01_and_02_mistrals_tokens_are_those_of_its_own_library():
    folder = real_tokenizer("mistral")
    ours = ChatTokenizer.from_folder(folder)
    for known in json.loads((folder / BY_MISTRAL).read_text(encoding="utf-8"))["conversations"]:
        turns = [Turn(role, text) for role, text in known["turns"]]
        encoded = learnt(ours, turns)
        assert list(encoded.input_ids) == known["tokens"]
        assert ours.prompt_ids(turns[:-1]) == known["prompt"] == known["tokens"][: len(known["prompt"])]
        assert list(encoded.labels[len(known["prompt"]) :]) == known["tokens"][len(known["prompt"]) :]


@pytest.mark.parametrize("turns", CONVERSATIONS.values(), ids=list(CONVERSATIONS))
def test_trap_02_and_03_loss_begins_where_the_prompt_of_inference_ends(real, turns):
    """Qwen3's template writes an empty thought before the answer, and rewrites earlier answers: both were read over."""
    name, tokenizer, ours = real
    encoded = learnt(ours, turns)
    prompt = by_transformers(tokenizer, turns[:-1], prompt=True)
    with_loss = [place for place, label in enumerate(encoded.labels) if label != IGNORED]
    last = [place for place in with_loss if place >= len(prompt)]
    assert last == list(range(len(prompt), len(encoded.labels))), "every token behind the last prompt"
    assert list(encoded.labels[len(prompt) :]) == list(encoded.input_ids[len(prompt) :])
    answer = tokenizer.decode(encoded.input_ids[len(prompt) :])
    thought = "<think>\n\n</think>\n\n" if name == "qwen3" else ""
    assert answer.startswith(thought)
    assert answer.removeprefix(thought).removesuffix(ENDS[name]).strip() == turns[-1].content.strip()
    earlier = tokenizer.decode([encoded.input_ids[place] for place in with_loss if place < len(prompt)])
    assert not any(turn.content in earlier for turn in turns if turn.role != "assistant")


@pytest.mark.parametrize("turns", CONVERSATIONS.values(), ids=list(CONVERSATIONS))
def test_trap_04_the_end_of_the_answer_is_learnt_and_is_what_generation_stops_at(real, turns):
    name, tokenizer, ours = real
    end = tokenizer.convert_tokens_to_ids(ENDS[name])
    assert learnt(ours, turns).labels[-1] == end
    assert end_of_answer(ours) == end


def test_trap_12_tokenizer_and_template_of_the_artifact_are_the_bases(tiny_model, tmp_path):
    job = make_job(tmp_path, tiny_model, splits=("train",), hyperparameters={"epochs": 0.2})
    assert do(job)[0] == ExitCode.OK
    base, folder = AutoTokenizer.from_pretrained(tiny_model / NAME), Path(job.output) / "model"
    ours = AutoTokenizer.from_pretrained(folder)
    assert ours.chat_template == base.chat_template
    assert ours.special_tokens_map == base.special_tokens_map
    for turns in CONVERSATIONS.values():
        assert by_transformers(ours, turns) == by_transformers(base, turns)
    told = [json.loads((path / "tokenizer.json").read_text())["model"] for path in (folder, tiny_model / NAME)]
    assert told[0] == told[1]


def test_every_trap_has_a_test_that_is_named_after_it():
    named: set[int] = set()
    for path in HERE.rglob("test_*.py"):
        for numbers in re.findall(r"def test_trap((?:_\d\d|_and)+)", path.read_text(encoding="utf-8")):
            named.update(map(int, re.findall(r"\d\d", numbers)))
    assert named == set(TRAPS)
