"""Conversations become the tokens that transformers makes of them, and loss lies on answers alone."""

import json
import os
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from finetune_trainer.data import IGNORED, ChatTokenizer, Position, Row, Tally, TemplateRefusedError, Turn, encode
from finetune_trainer.data.encode import (
    NOTE_EOS,
    NOTE_NO_EOS,
    NOTE_PREFIX,
    NOTE_REPEATED,
    NOTE_TEXT,
    NOTE_THOUGHT,
    NOTE_TURNS,
)
from finetune_trainer.errors import TrainerError
from tests.unit.finetune_trainer.data.chat_templates import (
    CASES,
    CHATML,
    LLAMA,
    NO_END,
    NO_SYSTEM,
    THINKING,
    byte_level,
    sentence_piece,
)

THREE = (Turn("system", "Be brief."), Turn("user", "What colour is the sky?"), Turn("assistant", "It is blue."))
TWO = THREE[1:]
LONG = (*THREE, Turn("user", "And grass?\n"), Turn("assistant", "Green äöü 🙂 <|im_end|> it is"))


def reference(tokenizer, turns, *, prompt=False) -> list[int]:
    """What transformers itself makes of a conversation."""
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=False)


def one(tokenizer: ChatTokenizer, turns, max_length=10_000, tally=None):
    """The only row that is encoded."""
    (encoded,) = encode([Row(Position(line=1), tuple(turns))], tokenizer, max_length, tally)
    return encoded


def labelled(tokenizer: ChatTokenizer, encoded) -> str:
    """The text that carries loss."""
    return tokenizer.backend.decode([i for i in encoded.labels if i != IGNORED], skip_special_tokens=False)


@pytest.mark.parametrize("turns", [TWO, THREE, LONG], ids=["two turns", "with system", "five turns"])
@pytest.mark.parametrize("case", CASES)
def test_token_ids_are_those_of_transformers(case, turns, tmp_path):
    tokenizer = CASES[case]()
    tokenizer.save_pretrained(tmp_path)
    for ours in (ChatTokenizer.from_transformers(tokenizer), ChatTokenizer.from_folder(tmp_path)):
        whole, prompt = reference(tokenizer, turns), reference(tokenizer, turns[:-1], prompt=True)
        assert ours.ids([ours.render(turns)])[0] == whole
        assert ours.prompt_ids(turns[:-1]) == prompt
        ids = list(one(ours, turns).input_ids)
        assert ids == whole[: len(ids)]
        assert not tokenizer.decode(
            whole[len(ids) :]
        ).strip()  # only a line break after the end of the turn is left out


@pytest.mark.parametrize("case", CASES)
def test_trap_01_prompt_of_training_is_the_prompt_of_inference(case):
    tokenizer = CASES[case]()
    ours = ChatTokenizer.from_transformers(tokenizer)
    encoded = one(ours, THREE)
    prompt = reference(tokenizer, THREE[:-1], prompt=True)
    unlabelled = [token for token, label in zip(encoded.input_ids, encoded.labels, strict=True) if label == IGNORED]
    assert unlabelled == prompt
    assert list(encoded.labels[len(prompt) :]) == list(encoded.input_ids[len(prompt) :])


def test_trap_01_one_begin_of_sequence_although_the_tokenizer_would_add_one():
    tokenizer = sentence_piece(LLAMA)
    assert tokenizer("text").input_ids[0] == tokenizer.bos_token_id
    encoded = one(ChatTokenizer.from_transformers(tokenizer), TWO)
    assert encoded.input_ids.count(tokenizer.bos_token_id) == 1
    assert encoded.input_ids[0] == tokenizer.bos_token_id
    assert encoded.input_ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("case", "turns", "learnt"),
    [
        ("ChatML", TWO, "It is blue.<|im_end|>"),
        ("ChatML", LONG, "It is blue.<|im_end|>Green äöü 🙂 <|im_end|> it is<|im_end|>"),
        ("Llama", THREE, "It is blue. </s>"),
        ("Llama", LONG, None),
        ("thinking", TWO, "<think>\n\n</think>\n\nIt is blue.<|im_end|>"),
        ("marked", THREE, "It is blue.<|im_end|>"),
    ],
)
def test_trap_03_loss_lies_on_answers_and_on_what_ends_them_whatever_the_template_marks(case, turns, learnt):
    tokenizer = ChatTokenizer.from_transformers(CASES[case]())
    encoded = one(tokenizer, turns)
    text = labelled(tokenizer, encoded)
    if learnt is None:
        assert text.count("</s>") == 2
        assert "grass" not in text
    else:
        assert text == learnt
    assert encoded.labels[0] == IGNORED


def test_answers_that_are_a_part_of_the_prompt_carry_no_loss():
    tokenizer = ChatTokenizer.from_transformers(CASES["ChatML"]())
    turns = (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d"))
    (encoded,) = encode([Row(Position(line=1), turns, unlearnt=(1,))], tokenizer, 100)
    assert labelled(tokenizer, encoded) == labelled(tokenizer, one(tokenizer, turns)).removeprefix("b<|im_end|>")


def test_trap_04_end_of_turn_is_learnt_although_padding_is_the_same_token():
    tokenizer = byte_level(CHATML)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert one(ChatTokenizer.from_transformers(tokenizer), TWO).labels[-1] == tokenizer.eos_token_id


def test_earlier_answers_that_the_template_rewrites_carry_no_loss_and_are_noted():
    tokenizer = ChatTokenizer.from_transformers(byte_level(THINKING))
    tally = Tally()
    encoded = one(tokenizer, LONG, tally=tally)
    assert labelled(tokenizer, encoded).startswith("<think>")
    assert "blue" not in labelled(tokenizer, encoded)
    assert tally.notes == {NOTE_TURNS}


@pytest.mark.parametrize(
    ("left_out", "notes"),
    [
        ("{% if message.role != 'system' %}{{ message.content }}{% endif %}", {NOTE_TEXT.format("system")}),
        ("{{ message.content }}<|im_end|>{{ message.content }}", {NOTE_REPEATED}),
        ("{{ message.content | upper }}", {NOTE_TEXT.format(role) for role in ("system", "user", "assistant")}),
        ("{{ message.content | trim }}", set()),
    ],
)
def test_text_that_the_template_does_not_write_as_it_is_is_noted_by_who_said_it(left_out, notes):
    start, end = "{{ '<|im_start|>' + message.role }}", "{{ '<|im_end|>' }}"
    template = f"{{% for message in messages %}}{start}{left_out}{end}{{% endfor %}}"
    tally = Tally()
    one(ChatTokenizer.from_transformers(byte_level(template)), THREE, tally=tally)
    assert tally.notes == notes


CHANNELS = (  # as gpt-oss writes an answer
    "{% for m in messages %}{{ '<|im_start|>' + m.role }}{% if m.role == 'assistant' %}{{ '<|endoftext|>final' }}"
    "{% endif %}{{ '<|im_start|>' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("make", "template", "opening"),
    [
        (byte_level, THINKING, "<think>\n\n</think>"),
        (byte_level, CHANNELS, "<|endoftext|>final<|im_start|>"),
        (byte_level, CHATML, ""),
        (byte_level, NO_SYSTEM, ""),
        (byte_level, None, ""),
        (sentence_piece, LLAMA, ""),
        (byte_level, "{{ raise_exception('no') }}", ""),
    ],
)
def test_what_a_template_writes_before_an_answer_is_none_of_it(make, template, opening):
    tokenizer = ChatTokenizer.from_transformers(make(template))
    assert tokenizer.backend.decode(tokenizer.opening, skip_special_tokens=False) == opening
    answer = tokenizer.ids(["It is blue."])[0]
    assert tokenizer.answer_in([*tokenizer.opening, *answer]) == tokenizer.answer_in(answer) == answer
    if opening:  # a thought with something in it is what somebody's rows have
        thought = tokenizer.ids(["<think>\nso</think>\n\nIt is blue."])[0]
        assert tokenizer.answer_in(thought) == thought
        by_special_tokens = opening.startswith("<|")
        assert (tokenizer.answer_in([*thought, *tokenizer.opening, *answer]) == answer) is by_special_tokens
        cut_off = [*tokenizer.opening[:1], *thought]  # in a message of its own
        assert (tokenizer.answer_in(cut_off) == []) is by_special_tokens


def test_trap_02_a_prompt_that_is_no_prefix_is_noted_and_loss_begins_where_the_texts_part():
    template = (  # as templates do that open a thought in the prompt
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% if m.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
        "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>yes' }}{% endif %}"
    )
    tokenizer, tally = ChatTokenizer.from_transformers(byte_level(template)), Tally()
    encoded = one(tokenizer, TWO, tally=tally)
    assert tally.notes == {NOTE_PREFIX}
    assert labelled(tokenizer, encoded).endswith("</think>\n\nIt is blue.<|im_end|>")
    assert "sky" not in labelled(tokenizer, encoded)
    whole, prompt = list(encoded.input_ids), tokenizer.prompt_ids(TWO[:-1])
    parted = next(place for place, token in enumerate(prompt) if whole[place] != token)
    assert list(encoded.labels) == [IGNORED] * parted + whole[parted:], "from the very token on"


def test_prompts_that_open_a_thought_which_rows_have_not_are_told_with_what_helps():
    template = NO_SYSTEM.replace("'<|im_start|>assistant'", "'<|im_start|>assistant<think>\n'")
    tally = Tally()
    one(ChatTokenizer.from_transformers(byte_level(template)), TWO, tally=tally)
    assert tally.notes == {NOTE_THOUGHT}
    assert len(NOTE_THOUGHT) <= 300


def test_thoughts_that_a_template_drops_from_earlier_answers_are_not_missed():
    template = NO_SYSTEM.replace("'<|im_start|>assistant'", "'<|im_start|>assistant<think>\n'")
    turns = [Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "<think>\nso</think>d")]
    tally = Tally()
    one(ChatTokenizer.from_transformers(byte_level(template)), turns, tally=tally)
    assert tally.notes == set()


OTHER_ENDS = (  # the last answer ends otherwise than the earlier ones
    "{% for m in messages %}{{ '<|im_start|>' + m.role + m.content }}"
    "{{ '<|endoftext|>' if m.role == 'assistant' and not loop.last else '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
)
ANSWERS_ALONE = "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "special", "turns", "learnt"),
    [
        pytest.param(
            OTHER_ENDS, {}, LONG[1:], "Green äöü 🙂 <|im_end|> it is<|im_end|>", id="one token of it rewritten"
        ),
        pytest.param(ANSWERS_ALONE, {}, TWO, None, id="nothing before the answer"),
        pytest.param(NO_SYSTEM, {}, (Turn("assistant", "Hello."), *TWO), "It is blue.<|im_end|>", id="a greeting"),
        pytest.param(
            NO_SYSTEM.partition("{% endif %}")[2],
            {},
            (Turn("assistant", "Hello."), *TWO),
            "It is blue.<|im_end|>",
            id="a greeting, by a template that also begins a conversation with the assistant",
        ),
        pytest.param(
            CHATML,
            {"eos_token": "<|endoftext|>"},
            TWO,
            "It is blue.<|im_end|>",
            id="an end of turn that is not an end of all",
        ),
    ],
)
def test_the_mask_is_right_to_the_token_at_its_edges(template, special, turns, learnt):
    tokenizer = ChatTokenizer.from_transformers(byte_level(template, **special))
    encoded = one(tokenizer, turns)
    assert encoded.labels[0] == IGNORED, "nothing asks for the first token"
    if learnt is None:
        assert encoded.labels[1:] == encoded.input_ids[1:]
    else:
        assert labelled(tokenizer, encoded) == learnt


def test_an_answer_that_the_template_does_not_end_gets_the_end_of_sequence_token():
    tokenizer, tally = ChatTokenizer.from_transformers(byte_level(NO_END)), Tally()
    encoded = one(tokenizer, TWO, tally=tally)
    assert encoded.input_ids[-1] == encoded.labels[-1] == tokenizer.eos_id
    assert tally.notes == {NOTE_EOS}


def test_white_space_at_the_end_of_an_answer_is_learnt_where_no_special_token_stands_before_it():
    tokenizer = ChatTokenizer.from_transformers(byte_level(NO_END))
    turns = (Turn("user", "a"), Turn("assistant", "It is blue. \n"))
    assert labelled(tokenizer, one(tokenizer, turns)).endswith("It is blue. \n\n<|im_end|>")


def test_loss_may_begin_at_the_second_token():
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    tokenizer = ChatTokenizer.from_transformers(byte_level(template))
    encoded = one(tokenizer, (Turn("user", "<|im_start|>"), Turn("assistant", "blue")))
    assert encoded.labels[1:] == encoded.input_ids[1:]


def test_a_tokenizer_without_end_of_sequence_is_noted():
    tokenizer, tally = ChatTokenizer.from_transformers(byte_level(NO_END, unk_token="<|endoftext|>")), Tally()
    one(tokenizer, TWO, tally=tally)
    assert tally.notes == {NOTE_NO_EOS}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (byte_level, "Be brief.\nWhat colour is the sky?\nIt is blue.<|im_end|>"),
        (sentence_piece, "<s>Be brief.\nWhat colour is the sky?\nIt is blue.</s>"),
    ],
)
def test_base_models_without_template_get_plain_text(make, text):
    tokenizer = ChatTokenizer.from_transformers(make(None))
    assert not tokenizer.has_own_template
    assert tokenizer.render(THREE) == text
    assert labelled(tokenizer, one(tokenizer, THREE)).strip() == text.rpartition("\n")[2]


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("added_tokens.json", {"<|new|>": 1000, "<|newer|>": 1001}),
        ("special_tokens_map.json", {"additional_special_tokens": ["<|new|>", "<|newer|>"]}),
        ("tokenizer_config.json", {"additional_special_tokens": ["<|new|>", "<|newer|>"]}),
        ("tokenizer_config.json", {"extra_special_tokens": ["<|new|>", "<|newer|>"]}),
        ("tokenizer_config.json", {"extra_special_tokens": {"a_token": "<|new|>", "b_token": "<|newer|>"}}),
    ],
)
def test_tokens_that_only_a_file_beside_the_tokenizer_names_are_tokens_as_for_transformers(tmp_path, file, fields):
    byte_level(CHATML).save_pretrained(tmp_path)
    path = tmp_path / file
    before = json.loads(path.read_text()) if path.is_file() else {}
    before.pop("added_tokens_decoder", None)
    path.write_text(json.dumps(before | fields))
    text = "x <|new|> y<|newer|>"
    own = AutoTokenizer.from_pretrained(tmp_path)(text, add_special_tokens=False).input_ids
    assert ChatTokenizer.from_folder(tmp_path).ids([text]) == [own]
    assert len(own) < 8


AS_OBJECT = {"content": "<|im_end|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
NAMED = [{"name": "tool_use", "template": "{{ tools }}"}, {"name": "default", "template": LLAMA}]
FILED = {
    "tokens as objects": {"eos_token": {"__type": "AddedToken", "special": True, **AS_OBJECT}, "chat_template": LLAMA},
    "templates with names": {"chat_template": NAMED},
    "templates by their names": {"chat_template": {one["name"]: one["template"] for one in NAMED}},
    "older map of tokens": {"special_tokens_map.json": {"eos_token": AS_OBJECT}, "chat_template": LLAMA},
}


@pytest.mark.parametrize("case", FILED)
def test_template_and_tokens_are_read_however_a_models_files_say_them(case, tmp_path):
    byte_level(CHATML, bos_token="<|im_start|>", eos_token="<|im_end|>").save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    fields = dict(FILED[case])
    beside = fields.pop("special_tokens_map.json", None)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text()) | fields
    if beside:
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(beside))
        config = {name: value for name, value in config.items() if name not in {*beside, "added_tokens_decoder"}}
    path.write_text(json.dumps(config))
    assert ChatTokenizer.from_folder(tmp_path).prompt_ids(TWO[:1]) == reference(
        AutoTokenizer.from_pretrained(tmp_path), TWO[:1], prompt=True
    )
    ours = ChatTokenizer.from_folder(tmp_path)
    assert ours.ids([ours.render(TWO)])[0] == reference(AutoTokenizer.from_pretrained(tmp_path), TWO)


@pytest.mark.parametrize("template", ["", " \n"])
def test_a_template_of_nothing_is_none(template):
    tokenizer = ChatTokenizer.from_transformers(byte_level(template))
    assert not tokenizer.has_own_template
    assert "What colour" in tokenizer.render(THREE)


def test_a_folder_of_older_tokenizer_files_is_answered_with_how_to_write_the_newer_one(tmp_path):
    byte_level(CHATML).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").rename(tmp_path / "tokenizer.model")
    with pytest.raises(TrainerError, match="has no tokenizer") as raised:
        ChatTokenizer.from_folder(tmp_path)
    assert "AutoTokenizer.from_pretrained('FOLDER').save_pretrained('FOLDER')" in raised.value.next_step


def test_a_model_saved_with_the_plain_template_is_asked_as_it_was_trained(tmp_path):
    tokenizer = byte_level(None)
    trained = ChatTokenizer.from_transformers(tokenizer)
    tokenizer.chat_template = trained.template
    tokenizer.save_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    assert reference(saved, TWO[:-1], prompt=True) == trained.prompt_ids(TWO[:-1])
    assert reference(saved, TWO) == list(one(trained, TWO).input_ids)


@pytest.mark.parametrize("spare", [0, 1, 2, 3])
def test_the_end_of_long_rows_is_cut_and_counted(spare):
    tokenizer = ChatTokenizer.from_transformers(byte_level(CHATML))
    whole = one(tokenizer, THREE)
    tally = Tally()
    cut = one(tokenizer, THREE, max_length=len(whole.input_ids) - spare, tally=tally)
    assert cut.input_ids == whole.input_ids[: len(whole.input_ids) - spare]
    assert cut.labels == whole.labels[: len(whole.input_ids) - spare]
    assert (cut.truncated, tally.truncated) == (spare > 0, int(spare > 0))
    assert tally.tokens == tally.longest == len(whole.input_ids)


def test_trap_05_rows_whose_answer_is_cut_off_are_left_out_and_counted():
    tokenizer, tally = ChatTokenizer.from_transformers(byte_level(CHATML)), Tally()
    rows = [
        Row(Position(line=1), TWO),
        Row(Position(line=2), (Turn("user", "sky " * 100), TWO[1])),
        Row(Position(line=3), TWO),
    ]
    kept = list(encode(rows, tokenizer, 64, tally))
    assert [row.position.line for row in kept] == [1, 3]
    assert (tally.rows, tally.unlabelled, tally.first_unlabelled) == (3, 1, Position(line=2))
    assert tally.loss_tokens == sum(row.loss_tokens for row in kept)


def test_a_refusal_names_the_row_in_the_templates_own_words():
    tokenizer = ChatTokenizer.from_transformers(byte_level(NO_SYSTEM))
    rows = [Row(Position(line=7), TWO), Row(Position(line=8), THREE)]
    with pytest.raises(TrainerError, match=r"line 8: the model's chat template refuses .* System role not supported"):
        list(encode(rows, tokenizer, 64))


def test_a_refusal_never_quotes_the_row():
    template = "{{ raise_exception('Unexpected: ' + messages[0].content) }}"
    tokenizer = ChatTokenizer.from_transformers(byte_level(template))
    with pytest.raises(TemplateRefusedError) as refused:
        tokenizer.render([Turn("user", "secret"), Turn("assistant", "words")])
    assert "secret" not in str(refused.value)


def test_a_template_that_takes_text_for_something_else_refuses_the_row():
    tokenizer = ChatTokenizer.from_transformers(byte_level("{{ messages[0].content | dictsort }}"))
    with pytest.raises(TemplateRefusedError):
        tokenizer.render(TWO)


def test_templates_know_the_tokens_that_a_model_names_for_itself(tmp_path):
    template = "{{ image_token }}{{ bos_token }}{{ messages[-1].content }}"
    tokenizer = byte_level(template, bos_token="<|im_start|>", image_token="<image>")
    tokenizer.save_pretrained(tmp_path)
    for ours in (ChatTokenizer.from_transformers(tokenizer), ChatTokenizer.from_folder(tmp_path)):
        assert ours.ids([ours.render(TWO)])[0] == reference(tokenizer, TWO)
        assert ours.render(TWO) == "<image><|im_start|>" + TWO[-1].content


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{% set ns = namespace(__x=1) %}",
        "{{ dict.fromkeys.__globals__['json'] }}",
        "{{ 1 / 0 }}",
    ],
)
def test_templates_cannot_reach_out_of_their_sandbox(template):
    tokenizer = ChatTokenizer.from_transformers(byte_level(template))
    with pytest.raises(TemplateRefusedError):
        tokenizer.render(TWO)


def test_a_template_that_is_none_is_a_fault_of_the_model():
    with pytest.raises(TrainerError, match="chat template of the model is broken"):
        ChatTokenizer.from_transformers(byte_level("{% for %}"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", None),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "nonsense"),
        ("tokenizer_config.json", '{"a":' * 100_000),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "a"}}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"1": {"content": 1}}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"1": "a"}}'),
        ("chat_template.jinja", b"\xff"),
    ],
)
def test_a_broken_model_folder_is_refused_with_the_file(name, content, tmp_path):
    byte_level(CHATML).save_pretrained(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TrainerError, match=name.replace(".", r"\.")) as raised:
        ChatTokenizer.from_folder(tmp_path)
    assert raised.value.reason == "ModelUnusable"


def test_many_rows_keep_their_order_across_batches():
    tokenizer = ChatTokenizer.from_transformers(byte_level(CHATML))
    rows = [Row(Position(line=n), (Turn("user", f"{n}"), Turn("assistant", f"<{n}>"))) for n in range(1, 1500)]
    for row, encoded in zip(rows, encode(rows, tokenizer, 512), strict=True):
        assert encoded.position == row.position
        assert labelled(tokenizer, encoded) == f"{row.completion}<|im_end|>"


@pytest.mark.skipif("FINETUNE_TEST_MODEL" not in os.environ, reason="FINETUNE_TEST_MODEL names no model folder")
def test_a_real_model_is_tokenised_as_transformers_does():
    folder = Path(os.environ["FINETUNE_TEST_MODEL"])
    tokenizer, ours = AutoTokenizer.from_pretrained(folder), ChatTokenizer.from_folder(folder)
    for turns in (TWO, THREE, LONG):
        assert ours.ids([ours.render(turns)])[0] == reference(tokenizer, turns)
        assert ours.prompt_ids(turns[:-1]) == reference(tokenizer, turns[:-1], prompt=True)
