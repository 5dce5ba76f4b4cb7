"""Text comes piece by piece, whole characters only, and never shows a stop sequence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_trainer.serving.text import Detokenizer, StopSequences, TextStream


def decode_bytes(tokens):
    """A tokenizer with one token per byte."""
    return bytes(tokens).decode(errors="replace")


@given(st.text(max_size=30))
def test_pieces_put_together_are_the_whole_text(text):
    stream = Detokenizer(decode_bytes)
    pieces = [stream.add(byte) for byte in text.encode()]
    assert "".join(pieces) + stream.end() == text


def test_a_character_is_shown_only_when_all_its_bytes_are_there():
    stream = Detokenizer(decode_bytes)
    assert [stream.add(byte) for byte in "é€".encode()] == ["", "é", "", "", "€"]


def test_bytes_that_never_become_a_character_are_shown_at_the_end():
    stream = Detokenizer(decode_bytes)
    assert stream.add("é".encode()[0]) == ""
    assert stream.end() == "\N{REPLACEMENT CHARACTER}"


def test_a_completion_keeps_the_space_before_its_first_word():
    def decode(tokens):  # as SentencePiece does: no space at the start of a text
        return "".join(f" {word}" for word in tokens).lstrip(" ")

    assert Detokenizer(decode).add("sky") == "sky"
    assert Detokenizer(decode, ["the"]).add("sky") == " sky"


STOPS = [
    pytest.param(["one END two"], ["END"], "one ", True, id="inside a piece"),
    pytest.param(["one E", "N", "D two"], ["END"], "one ", True, id="over three pieces"),
    pytest.param(["one EN"], ["END"], "one EN", False, id="only its beginning"),
    pytest.param(["E", "EEN", "D"], ["END"], "EE", True, id="a beginning that begins again"),
    pytest.param(["abc"], ["bc", "ab"], "", True, id="the first in the text, not in the list"),
    pytest.param(["ab", "c"], ["abcd", "b"], "a", True, id="a short one inside a long one's beginning"),
    pytest.param(["END"], [], "END", False, id="none asked for"),
]


@pytest.mark.parametrize(("pieces", "stops", "shown", "hit"), STOPS)
def test_stop_sequences_cut_the_text(pieces, stops, shown, hit):
    stop = StopSequences(stops)
    text = "".join(stop.add(piece) for piece in pieces)
    assert (text if stop.hit else text + stop.end(), stop.hit) == (shown, hit)


@settings(max_examples=300)
@given(st.lists(st.text("ab", max_size=3), max_size=8), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3))
def test_pieces_make_no_difference_to_where_a_text_is_cut(pieces, stops):
    whole = "".join(pieces)
    places = [whole.find(stop) for stop in stops if stop in whole]
    stop = StopSequences(stops)
    shown = ""
    for piece in pieces:
        shown += stop.add(piece)
    shown += stop.end()
    if not places:
        assert shown == whole
    else:  # a stop that ends earlier may win over one that starts earlier, as it is seen first
        assert stop.hit
        assert not any(other in shown for other in stops)
        assert shown in {whole[:place] for place in range(len(whole)) if any(whole.startswith(s, place) for s in stops)}


def test_a_stop_sequence_may_span_the_bytes_of_a_character():
    stream = TextStream(decode_bytes, (), ("€!",))
    shown = "".join(stream.add(byte) for byte in "5€!7".encode())
    assert (shown, stream.stopped) == ("5", True)


OPENING = tuple(b"<t></t>")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("<t></t>\n\nred \n", "red \n"),
        ("<t></t>", ""),
        ("<t></t> \n", ""),
        ("<t></t>!", ""),
        ("<t></t><t></t>", "<t></t>"),
        (" <t></t>red", " <t></t>red"),
        ("<t>why</t>red", "<t>why</t>red"),
        ("<t></", "<t></"),
        ("red", "red"),
    ],
)
def test_what_the_chat_template_writes_before_an_answer_is_not_shown(written, shown):
    stream = TextStream(decode_bytes, (), ("!",), OPENING)
    pieces = [stream.add(byte) for byte in written.encode()]
    assert "".join(pieces) + ("" if stream.stopped else stream.end()) == shown
    assert stream.in_opening is (not shown and not stream.stopped)
