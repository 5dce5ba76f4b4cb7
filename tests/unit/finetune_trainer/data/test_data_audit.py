"""The label audit: the pieces are exactly the row, and what is marked is exactly what carries loss."""

import pytest

from finetune_trainer.data import IGNORED, ChatTokenizer, Position, Row, Turn, encode
from finetune_trainer.data.audit import as_text, audit
from tests.assets.tiny_model import NAME


@pytest.fixture(scope="module")
def chat(tiny_model):
    return ChatTokenizer.from_folder(tiny_model / NAME)


def row(number, *contents):
    roles = ("user", "assistant") * (len(contents) // 2)
    return Row(Position(line=number), tuple(Turn(role, text) for role, text in zip(roles, contents, strict=True)))


ROWS = [row(1, "What colour?", "green"), row(2, "Größe? 猫", "🦙 é"), row(3, "a", "b", "c", "d")]


def test_pieces_are_the_row_and_marks_are_its_labels(chat):
    for encoded, audited in zip(encode(ROWS, chat, 512), audit(ROWS, chat, 512, 9), strict=True):
        whole = chat.backend.decode(encoded.input_ids.tolist(), skip_special_tokens=False)
        assert "".join(piece.text for piece in audited.pieces) == whole
        markup_column = [
            token for token, label in zip(encoded.input_ids, encoded.labels, strict=True) if label != IGNORED
        ]
        learnt = "".join(piece.text for piece in audited.pieces if piece.carries_loss)
        assert learnt == chat.backend.decode(markup_column, skip_special_tokens=False)
        assert audited.loss_tokens == len(markup_column)


def test_every_answer_of_a_conversation_is_marked_with_its_end(chat):
    (found,) = audit(ROWS[2:], chat, 512, 1)
    assert as_text(found, colour=False).count("⟦") == 2
    assert "⟦b<|im_end|>⟧" in as_text(found, colour=False)
    assert "⟦d<|im_end|>⟧" in as_text(found, colour=False)


def test_only_as_many_rows_as_were_asked_for_are_read(chat):
    def rows():
        yield from ROWS[:2]
        yield from (row(number, "x", "y") for number in range(3, 2000))
        pytest.fail("it read to the end")

    assert [one.position.line for one in audit(rows(), chat, 512, 2)] == [1, 2]


def test_a_cut_row_says_so_and_a_long_one_has_an_end(chat, monkeypatch):
    monkeypatch.setattr("finetune_trainer.data.audit.SHOWN_TOKENS", 20)
    (found,) = audit([row(1, "Why?", "very " * 90)], chat, 60, 1)
    said = as_text(found, colour=False)
    assert "its end is cut" in said
    assert said.endswith("… 40 tokens more")


def test_what_a_terminal_would_obey_is_written_out(chat):
    (found,) = audit([row(1, "\x1b]0;title\x07\u202e", "red\x1b[2J")], chat, 512, 1)
    said = as_text(found, colour=False)
    assert not {"\x1b", "\x07", "\u202e"} & set(said)
    assert r"\x1b]0;title\x07\u202e" in said
    assert "\x1b[1;32m" in as_text(found, colour=True)
