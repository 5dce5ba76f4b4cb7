"""Rows with two answers: what makes one usable, what is said of one that is not, and which tokens carry loss."""

from array import array

import pytest

from finetune_api.dataset import Columns
from finetune_trainer.data import IGNORED, ChatTokenizer, Position, Row, Tally, Turn, encode, encode_pairs
from finetune_trainer.data.audit import as_text, audit
from finetune_trainer.data.columns import Unusable
from finetune_trainer.data.encode import Encoded, EncodedPair, Refused, common_prefix, encode_all_pairs
from finetune_trainer.data.fingerprints import fingerprint
from finetune_trainer.data.rows import Record
from tests.assets.tiny_model import NAME
from tests.unit.finetune_trainer.data.chat_templates import byte_level
from tests.unit.finetune_trainer.data.files import to_row

LINE = Position(line=17)
SYSTEM, USER = {"role": "system", "content": "s"}, {"role": "user", "content": "a"}
GOOD, BAD = {"role": "assistant", "content": "b"}, {"role": "assistant", "content": "c"}


def row_of(fields, **columns):
    return to_row(Record(LINE, fields), Columns(**columns).of_pairs())


@pytest.mark.parametrize(
    ("fields", "turns"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "user:a"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "system": "s"}, "system:s user:a"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "completion": 3, "system": ""}, "user:a"),
        ({"prompt": [SYSTEM, USER], "chosen": "b", "rejected": "c"}, "system:s user:a"),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, "user:a"),
        ({"prompt": "a", "chosen": [GOOD], "rejected": "c"}, "user:a"),
        ({"prompt": [USER, GOOD, USER], "chosen": [GOOD], "rejected": [BAD]}, "user:a assistant:b user:a"),
        ({"messages": [SYSTEM, USER], "chosen": "b", "rejected": "c"}, "system:s user:a"),
        ({"prompt": {"messages": [USER], "tools": []}, "chosen": [GOOD], "rejected": [BAD]}, "user:a"),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, "user:a"),
        ({"prompt": "a", "messages": [USER, GOOD], "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "user:a"),
        ({"prompt": "a", "messages": [USER], "chosen": "b", "rejected": "c"}, "user:a"),
        ({"prompt": "a", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "user:a"),
        ({"chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]}, "system:s user:a"),
        ({"system": "s", "prompt": [USER], "chosen": "b", "rejected": "c"}, "system:s user:a"),
        ({"system": "s", "messages": [USER], "chosen": "b", "rejected": "c"}, "system:s user:a"),
        ({"system": "s", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "system:s user:a"),
        ({"system": "s", "prompt": [SYSTEM, USER], "chosen": "b", "rejected": "c"}, "system:s user:a"),
        ({"system": "s", "chosen": [SYSTEM, USER, GOOD], "rejected": [USER, BAD]}, "system:s user:a"),
        ({"prompt": [SYSTEM, USER], "chosen": [SYSTEM, USER, GOOD], "rejected": [BAD]}, "system:s user:a"),
        ({"prompt": " a\n", "chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]}, "system:s user:a"),
        ({"prompt": "", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "user:a"),
        ({"prompt": "a", "chosen": GOOD, "rejected": BAD}, "user:a"),
        ({"prompt": "a", "chosen": [BAD, GOOD], "rejected": [BAD, BAD]}, "user:a assistant:c"),
        ({"chosen": [USER, BAD, USER, GOOD], "rejected": [USER, BAD, USER, BAD]}, "user:a assistant:c user:a"),
    ],
)
def test_usable_rows(fields, turns):
    row = row_of(fields)
    assert isinstance(row, Row), row
    assert " ".join(f"{turn.role}:{turn.content}" for turn in row.prompt) == turns
    assert (row.completion, row.rejected) == ("b", "c")
    assert (row.swapped.prompt, row.swapped.completion, row.swapped.rejected) == (row.prompt, "c", "b")


@pytest.mark.parametrize(
    ("fields", "kind", "column", "said"),
    [
        ({}, "Missing", "prompt", "prompt is missing"),
        ({"chosen": "b", "rejected": "c"}, "Missing", "prompt", "prompt is missing"),
        ({"prompt": "a", "rejected": "c"}, "Missing", "chosen", "chosen is missing"),
        ({"prompt": "a", "chosen": "b"}, "Missing", "rejected", "rejected is missing"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "Missing", "rejected", "rejected is missing"),
        ({"prompt": "a", "chosen": " ", "rejected": "c"}, "Empty", "chosen", "chosen is empty"),
        ({"prompt": "a", "chosen": "b", "rejected": "\u200b"}, "Empty", "rejected", "rejected is empty"),
        ({"prompt": "", "chosen": "b", "rejected": "c"}, "Empty", "prompt", "prompt is empty"),
        (
            {"prompt": "other", "messages": [USER], "chosen": "b", "rejected": "c"},
            "Malformed",
            "messages",
            "messages says something else than prompt and chosen",
        ),
        ({"prompt": "a", "chosen": 1, "rejected": "c"}, "NotText", "chosen", "chosen is a number, not text"),
        ({"prompt": {"a": 1}, "chosen": "b", "rejected": "c"}, "NotText", "prompt", "prompt is an object"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "system": 1}, "NotText", "system", "system is a number"),
        ({"prompt": "a", "chosen": [], "rejected": "c"}, "Empty", "chosen", "chosen is empty"),
        ({"prompt": [], "chosen": "b", "rejected": "c"}, "Empty", "prompt", "prompt is empty"),
        ({"prompt": [GOOD], "chosen": "b", "rejected": "c"}, "Malformed", "prompt", "the last message of the prompt"),
        (
            {"messages": 3, "chosen": "b", "rejected": "c"},
            "Malformed",
            "messages",
            "prompt (column messages) is",
        ),
        ({"prompt": "a", "chosen": [USER], "rejected": "c"}, "NoCompletion", "chosen", "the last message is not"),
        ({"prompt": "z", "chosen": [USER], "rejected": "c"}, "NoCompletion", "chosen", "the last message is not"),
        ({"chosen": [USER, GOOD], "rejected": [BAD]}, "Missing", "prompt", "prompt is missing"),
        ({"chosen": [{"role": "tool"}], "rejected": "c"}, "Malformed", "chosen", "message 1 is a tool's"),
        (
            {"prompt": "a", "chosen": "b", "rejected": "b"},
            "SameAnswers",
            "rejected",
            "chosen and rejected are the",
        ),
        ({"prompt": "a", "chosen": [GOOD], "rejected": "b"}, "SameAnswers", "rejected", "chosen and rejected are"),
        ({"prompt": "a", "chosen": {"text": "b"}, "rejected": "c"}, "NotText", "chosen", "chosen is an object, not"),
        ({"prompt": "a", "chosen": [GOOD, GOOD], "rejected": [BAD]}, "Malformed", "rejected", "chosen and rejected di"),
        (
            {"system": "t", "prompt": [SYSTEM, USER], "chosen": "b", "rejected": "c"},
            "Malformed",
            "system",
            "system is another one than that of the conversation",
        ),
        (
            {"system": 1, "chosen": [USER, GOOD], "rejected": [USER, BAD]},
            "NotText",
            "system",
            "system is a number, not text",
        ),
        (
            {"prompt": "z", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
            "Malformed",
            "prompt",
            "chosen is a conversation of its own, and prompt is not in it",
        ),
        (
            {"prompt": [SYSTEM, USER], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
            "Malformed",
            "prompt",
            "chosen is a conversation of its own, and prompt is not in it",
        ),
        (
            {"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, BAD, USER, BAD]},
            "Malformed",
            "rejected",
            "chosen and rejected differ before their last message",
        ),
    ],
)
def test_unusable_rows(fields, kind, column, said):
    found = row_of(fields)
    assert isinstance(found, Unusable)
    assert (found.kind, found.field, found.position) == (kind, column, LINE)
    assert found.what.startswith(said)


def test_columns_are_mapped():
    row = row_of({"q": "a", "yes": "b", "no": "c"}, prompt="q", chosen="yes", rejected="no")
    assert (row.completion, row.rejected) == ("b", "c")
    found = row_of({"q": "a", "yes": "b", "no": ""}, prompt="q", chosen="yes", rejected="no")
    assert (found.what, found.field) == ("rejected (column no) is empty", "no")


def test_a_job_that_learns_from_one_answer_knows_no_columns_of_two():
    assert Columns().named == {name: name for name in ("prompt", "completion", "system", "messages")}
    assert Columns().of_pairs().named == {name: name for name in ("prompt", "system", "messages", "chosen", "rejected")}
    assert to_row(Record(LINE, {"prompt": "a", "completion": "b", "rejected": "c"}), Columns()).rejected is None


def test_rows_are_alike_only_where_both_answers_are():
    rows = [row_of({"prompt": "a", "chosen": chosen, "rejected": rejected}) for chosen, rejected in ("bc", "bd", "bc")]
    first, other, again = map(fingerprint, rows)
    assert first == again != other


@pytest.fixture(scope="module")
def chat(tiny_model):
    return ChatTokenizer.from_folder(tiny_model / NAME)


def pair(chosen, rejected, line=1, before=()):
    turns = (*before, Turn("user", "What colour?"), Turn("assistant", chosen))
    return Row(Position(line=line), turns, rejected)


def test_each_answer_is_encoded_as_it_would_be_alone(chat):
    (found,) = encode_pairs([pair("green", "it is blue")], chat, 512)
    alone = [Row(Position(line=1), pair(answer, None).turns) for answer in ("green", "it is blue")]
    assert list(found) == list(encode(alone, chat, 512))


def test_only_the_answers_carry_loss_and_not_what_they_have_in_common(chat):
    (found,) = encode_pairs([pair("green", "blue", before=(Turn("user", "a"), Turn("assistant", "b")))], chat, 512)
    for one, answer in ((found.chosen, "green"), (found.rejected, "blue")):
        learnt = [token for token in one.labels if token != IGNORED]
        assert chat.backend.decode(learnt, skip_special_tokens=False) == f"{answer}<|im_end|>"


def test_rows_whose_answers_are_the_same_or_gone_once_they_are_cut_are_left_out(chat):
    rows = [
        pair("green", "blue"),
        pair("yes yes yes no", "yes yes yes yes", line=2),
        pair("one", "two", line=3),
    ]
    whole = list(encode_pairs(rows, chat, 512))
    assert len(whole) == 3
    shared = next(
        place for place, (a, b) in enumerate(zip(whole[1].chosen.input_ids, whole[1].rejected.input_ids, strict=False))
        if a != b
    )  # fmt: skip
    tally = Tally()
    assert [one.position.line for one in encode_pairs(rows, chat, shared, tally)] == [1, 3]
    assert (tally.rows, tally.unlabelled, tally.first_unlabelled) == (3, 1, Position(line=2))
    head = whole[0].chosen.labels.count(IGNORED)
    assert not list(encode_pairs(rows, chat, head, tally := Tally()))
    assert (tally.unlabelled, tally.truncated) == (3, 3)
    assert tally.longest == max(one.longest for one in whole)


def test_the_audit_shows_both_answers_with_the_tokens_that_carry_loss(chat):
    shown = [as_text(one, colour=False) for one in audit([pair("green", "blue")] * 3, chat, 512, 2, pairs=True)]
    assert len(shown) == 4
    assert shown[0].startswith("line 1, chosen: ")
    assert "⟦green<|im_end|>⟧" in shown[0]
    assert shown[1].startswith("line 1, rejected: ")
    assert "⟦blue<|im_end|>⟧" in shown[1]


def encoded(ids, learnt, tokens=None):
    labels = [IGNORED] * (len(ids) - learnt) + ids[len(ids) - learnt :]
    return Encoded(LINE, array("i", ids), array("i", labels), tokens or len(ids))


@pytest.mark.parametrize(
    ("chosen", "rejected", "learnable", "truncated", "longest"),
    [
        (encoded([1, 2, 3], 1), encoded([1, 2, 4], 1), True, False, 3),
        (encoded([1, 2, 3], 0), encoded([1, 2, 4], 1), False, False, 3),
        (encoded([1, 2, 3], 1), encoded([1, 2, 4], 0), False, False, 3),
        (encoded([1, 2, 3], 1, tokens=5), encoded([1, 2, 3], 1, tokens=4), False, True, 5),
        (encoded([1, 2, 3], 1, tokens=5), encoded([1, 2, 4], 1), True, True, 5),
        (encoded([1, 2, 3], 1), encoded([1, 2, 4], 1, tokens=6), True, True, 6),
    ],
)
def test_a_pair_is_learnt_where_both_answers_are_there_and_differ_and_is_cut_where_one_is(
    chosen, rejected, learnable, truncated, longest
):
    pair, tally = EncodedPair(chosen, rejected), Tally()
    assert (pair.learnable, pair.truncated, pair.longest) == (learnable, truncated, longest)
    assert tally.add(pair) == learnable
    assert (tally.rows, tally.truncated, tally.longest) == (1, truncated, longest)
    assert tally.first_unlabelled == (None if learnable else LINE)


@pytest.mark.parametrize("answers", [("a bad one", "b"), ("b", "a bad one")], ids=["chosen", "rejected"])
def test_a_pair_is_refused_where_the_template_takes_one_of_its_answers_only(answers):
    refusing = "{% for m in messages %}{% if 'bad' in m.content %}{{ raise_exception('no') }}{% endif %}{{ m.content }}"
    chat = ChatTokenizer.from_transformers(byte_level(refusing + "{% endfor %}"))
    (first, second) = encode_all_pairs([pair(*answers, line=17), pair("c", "d", line=18)], chat, 64, set())
    assert first == Refused(LINE, "no")
    assert isinstance(second, EncodedPair)


def test_the_first_row_that_cannot_be_learnt_is_the_first_of_the_file_in_whatever_order_they_come():
    tally = Tally()
    for line in (5, 3, 9):
        tally.leave_out(Position(line=line))
    assert (tally.unlabelled, tally.first_unlabelled) == (3, Position(line=3))


def test_only_rows_beyond_the_limit_are_cut():
    tally = Tally()
    tally.count_all([4, 5, 6], [1, 1, 1], 5)
    assert (tally.rows, tally.truncated, tally.longest) == (3, 1, 6)


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 2], 2), ([1, 2, 3], [1, 9, 3], 1), ([], [1], 0), ([2], [1], 0)],
)
def test_what_two_texts_begin_with_in_common(first, second, shared):
    assert common_prefix(first, second) == shared
