"""Texts put together from frames and tokenised by parts have the tokens of those that are rendered and taken whole."""

from contextlib import ExitStack
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

from finetune_trainer.data import ChatTokenizer, Position, Row, Tally, Turn
from finetune_trainer.data.counting import count
from finetune_trainer.data.encode import Refused, encode_all
from finetune_trainer.data.rows import Rows, line_places
from finetune_trainer.data.tokenizer.frames import frame
from finetune_trainer.data.tokenizer.shared_parts import SharedParts, mark_pattern, marks, stands_alone
from finetune_trainer.errors import TrainerError
from tests.unit.finetune_trainer.data.chat_templates import CASES, CHATML, NO_END, NO_SYSTEM, THINKING, byte_level

TEXT = st.text("ab \nä<>|_/[]") | st.sampled_from(
    ["<|im_start|>", "\n\n", " <|im_end|>", "<s>", "</s> [INST]", "assistant"]
)
TEXTS = st.lists(TEXT, min_size=1, max_size=4).map("".join)
ROLES = st.sampled_from(["system", "user", "assistant"])
ROWS = st.lists(
    st.lists(st.builds(Turn, ROLES, TEXTS), max_size=4).map(lambda turns: (*turns, Turn("assistant", "x"))), min_size=2
)
TOKENIZERS = CASES | {"no end": lambda: byte_level(NO_END), "no system": lambda: byte_level(NO_SYSTEM)}
THE_LONG_WAY = {
    "finetune_trainer.data.tokenizer.chat_tokenizer.frame": lambda *_, **__: None,
    "finetune_trainer.data.tokenizer.shared_parts.marks": lambda _: {},
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_any_conversations_have_the_tokens_and_labels_of_the_long_way(case):
    tokenizer = TOKENIZERS[case]()
    quick, slow = (ChatTokenizer.from_transformers(tokenizer) for _ in range(2))

    @settings(deadline=None, database=None, max_examples=25, suppress_health_check=list(HealthCheck))
    @given(ROWS, st.integers(1, 40))
    def check(conversations, length):
        rows = [Row(Position(line=number), turns) for number, turns in enumerate(conversations, 1)]
        notes: tuple[set[str], set[str]] = (set(), set())
        with patch("finetune_trainer.data.encode._BATCH_TEXTS", 3):
            found = list(encode_all(rows, quick, length, notes[0]))
            with ExitStack() as stack:
                for name, instead in THE_LONG_WAY.items():
                    stack.enter_context(patch(name, instead))
                assert found == list(encode_all(rows, slow, length, notes[1]))
        assert notes[0] == notes[1]

    check()


BLOCKS = st.lists(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=3), min_size=2, max_size=4)


@pytest.mark.parametrize("roles", [("user", "assistant"), ("system", "user", "assistant")], ids=len)
@pytest.mark.parametrize("case", TOKENIZERS)
def test_rows_counted_together_have_the_counts_of_the_long_way(case, roles):
    tokenizer = TOKENIZERS[case]()
    quick, slow = (ChatTokenizer.from_transformers(tokenizer) for _ in range(2))

    @settings(deadline=None, database=None, max_examples=12, suppress_health_check=list(HealthCheck))
    @given(BLOCKS, st.integers(1, 40))
    def check(texts, length):
        blocks = [
            Rows(line_places(1 + 5 * n, len(one)), roles, tuple(zip(*one, strict=True))[-len(roles) :])
            for n, one in enumerate(texts)
        ]
        together, alone = Tally(), Tally()
        refused = list(count(blocks, quick, length, together))
        with ExitStack() as stack:
            for name, instead in THE_LONG_WAY.items():
                stack.enter_context(patch(name, instead))
            results = list(encode_all([row for one in blocks for row in one.rows()], slow, length, alone.notes))
        for result in results:
            if not isinstance(result, Refused):
                alone.add(result)
        assert together == alone
        assert refused == [result for result in results if isinstance(result, Refused)]

    check()


def test_rows_of_a_plain_frame_are_counted_together(monkeypatch):
    """Else the test before would compare nothing: only the first rows, which prove the way, are made one by one."""
    made = []

    def seen(rows, *others):
        for result in encode_all(rows, *others):
            made.append(result.position.line)
            yield result

    monkeypatch.setattr("finetune_trainer.data.counting.encode_all", seen)
    blocks = [Rows(line_places(line, 2), ("user", "assistant"), (["a", "b"], ["x", "y"])) for line in (1, 3, 5)]
    assert list(count(blocks, ChatTokenizer.from_transformers(byte_level(THINKING)), 100, tally := Tally())) == []
    assert (tally.rows, made) == (6, [1, 2])


def test_what_is_the_same_in_each_row_is_not_tokenised_again(monkeypatch):
    tokenizer = ChatTokenizer.from_transformers(byte_level(CHATML))
    block = Rows(line_places(1, 2), ("system", "user", "assistant"), (["s", "t"], ["a", "b"], ["x", "y"]))
    assert list(count([block], tokenizer, 100, tally := Tally())) == []
    tokenised, made = [], ChatTokenizer.ids
    monkeypatch.setattr(ChatTokenizer, "ids", lambda self, texts: tokenised.extend(texts) or made(self, texts))
    assert list(count([block, block], tokenizer, 100, twice := Tally())) == []
    assert (twice.rows, twice.tokens, twice.loss_tokens) == (4, 2 * tally.tokens, 2 * tally.loss_tokens)
    assert tokenised.count("system\ns<|im_start|>user\na<|im_start|>assistant\nx") == 2


ASKED_AND_ANSWERED = (
    "{% for one in messages %}{{ '<|im_start|>' + one['role'] + '\n' + one['content'] }}"
    "{{ '<|im_end|>\n' if one['role'] == 'assistant' else '<|asked|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize("odd", [("ax", "b"), ("a", "bx")], ids=["question", "answer"])
@pytest.mark.parametrize("roles", [("user", "assistant"), ("system", "user", "assistant")], ids=len)
@pytest.mark.parametrize("template", [CHATML, ASKED_AND_ANSWERED], ids=["one end", "two ends"])
def test_a_token_that_text_can_become_a_part_of_is_tokenised_in_each_row(odd, roles, template):
    """The first block proves the way, and has no such text."""
    tokenizer = byte_level(template)
    overlapping = ["<|asked|>", "x<|asked|>"] if template == ASKED_AND_ANSWERED else ["x<|im_end|>"]
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in overlapping])
    chat = ChatTokenizer.from_transformers(tokenizer)
    texts = [(["s", "s"], [asked, "a"], [answered, "b"])[-len(roles) :] for asked, answered in (("a", "b"), odd)]
    blocks = [Rows(line_places(1 + 2 * number, 2), roles, contents) for number, contents in enumerate(texts)]
    assert list(count(blocks, chat, 100, together := Tally())) == []
    alone = Tally()
    for one in encode_all([row for block in blocks for row in block.rows()], chat, 100, alone.notes):
        alone.add(one)
    assert together == alone


def test_a_token_that_another_one_could_overlap_is_no_place_to_cut():
    assert stands_alone("<|a|>", ["<|a|>", "<|b|>"])
    assert not stands_alone("<|a|>", ["<|a|>", "|><|"])
    assert not stands_alone("<a>", ["<a>", "x<a>"])
    assert not stands_alone("aba", ["aba"])


def test_a_frame_is_what_stands_around_the_turns():
    head = frame(CHATML, ["user"], {}, add_generation_prompt=True)
    assert head == [
        "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
    ]


@pytest.mark.parametrize(
    "written",
    [
        "{{ m.content | trim }}",
        "{{ m.content.strip() }}",
        "{{ m['content'][1:] }}",
        "{{ (m.content ~ ' ') }}",
        "{{ '%s' % m.content }}",
        "{{ '{}'.format(m.content) }}",
        "{{ m.content * 2 }}",
        "{{ [m.content] | join }}",
        "{{ 'a'.replace('a', m.content) }}",
        "{% set x %}{{ m.content }}{% endset %}{{ x | trim }}",
        "{% macro x(y) %}{{ y }}{% endmacro %}{{ x(m.content) }}",
        "{% filter upper %}{{ m.content }}{% endfilter %}",
        "{% if m.content %}{{ m.content }}{% endif %}",
        "{% if 'x' in m.content %}{% endif %}{{ m.content }}",
        "{% if m.content in 'xyz' %}{% endif %}{{ m.content }}",
        "{% if m.content in ['xyz'] %}{% endif %}{{ m.content }}",
        "{% if m.content == 'x' %}{% endif %}{{ m.content }}",
        "{% if m.content | length > 3 %}{% endif %}{{ m.content }}",
        "{% for c in m.content %}{{ c }}{% endfor %}",
        "{{ m.content }}{{ m.content }}",
        "nothing of it",
        "{{ strftime_now('%s') }}{{ m.content }}",
        "{{ raise_exception('no') }}",
    ],
)
def test_a_template_that_does_more_with_texts_than_writing_them_has_no_frame(written):
    template = "{% for m in messages %}" + written + "{% endfor %}"
    assert frame(template, ["user", "assistant"], {}, add_generation_prompt=False) is None


@pytest.mark.parametrize("wants", ["lstrip", "rstrip", "single_word"])
def test_texts_are_taken_apart_only_where_nothing_depends_on_what_stands_beside_a_token(wants):
    plain = ChatTokenizer.from_transformers(byte_level(THINKING))
    assert marks(plain)["<|im_start|>"] == [plain.backend.token_to_id("<|im_start|>")]
    greedy = byte_level(THINKING)
    token = AddedToken("<|end|>", special=True, normalized=False, **{wants: True})
    greedy.backend_tokenizer.add_special_tokens([token])
    assert marks(ChatTokenizer.from_transformers(greedy)) == {}


def test_texts_are_not_taken_apart_where_their_beginning_is_tokenised_unlike_the_rest():
    tokenizer = byte_level(THINKING)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    assert marks(ChatTokenizer.from_transformers(tokenizer)) == {}


def test_tokens_that_are_found_in_what_normalising_made_of_a_text_take_none_apart():
    tokenizer = byte_level(THINKING)
    tokenizer.add_tokens([AddedToken("<|late|>", normalized=True), AddedToken("<|early|>", normalized=False)])
    found = marks(ChatTokenizer.from_transformers(tokenizer))
    assert ("<|early|>" in found, "<|late|>" in found) == (True, False)


def test_of_tokens_that_begin_alike_the_longest_is_found():
    assert mark_pattern(["<a>", "<a>b", "<a"]).findall("x<a>b<a>c<ad") == ["<a>b", "<a>", "<a"]


def test_a_tokenizer_that_breaks_the_rule_is_found_out_by_the_first_texts():
    tokenizer = ChatTokenizer.from_transformers(byte_level(THINKING))
    with patch("finetune_trainer.data.tokenizer.shared_parts.marks", lambda _: {"It": [1]}):
        parts = SharedParts(tokenizer)
    assert [parts.ids(["It is blue."]) for _ in range(2)] == [tokenizer.ids(["It is blue."])] * 2


def test_a_tokenizer_that_fails_on_a_text_is_told_as_the_models_fault():
    """As of words without one for those that it does not know; the library raises plain Exception."""
    chat = ChatTokenizer(Tokenizer(WordLevel({"a": 0}, unk_token="?")), "{{ messages[0].content }}", {})
    assert chat.ids(["a"]) == [[0]]
    with pytest.raises(TrainerError, match="of the base model fails on a text of the rows"):
        chat.ids(["b"])
