"""Lines that are looked at ahead, many at once, are the same ones that reading them one by one gives."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.data.files.lines import Lines

NO_ENDS = bytes.maketrans(b"\n\x1a", b"  ")
TEXTS = st.lists(st.binary(max_size=40).map(lambda text: text.translate(NO_ENDS)), max_size=30)


def looked_at(data: bytes, buffer: int, turns: list[bool]) -> list[tuple[int, bytes]]:
    """All lines with their numbers: those ahead together where it is such a turn, otherwise one of them."""
    lines = Lines(io.BufferedReader(io.BytesIO(data), buffer))
    found: list[tuple[int, bytes]] = []
    turn = 0
    while lines.has_more():
        together = turns[turn % len(turns)]
        turn += 1
        ahead = lines.ahead()
        if together and ahead:
            several = [line + b"\n" for line in ahead.split(b"\n")[:-1]]
            taken = several if turn % 2 else several[: max(1, len(several) // 2)]
            first = lines.number + 1
            lines.skip(len(taken), are_all=len(taken) == len(several))
            found += enumerate(taken, first)
        elif (line := next(lines, None)) is not None:
            found.append((line.number, line.text or b""))
    return found


@given(
    texts=TEXTS, buffer=st.integers(4, 64), turns=st.lists(st.booleans(), min_size=1, max_size=6), ends=st.booleans()
)
def test_looking_ahead_leaves_out_and_repeats_no_line(texts, buffer, turns, ends):
    data = b"\n".join(texts) + (b"\n" if ends else b"")
    data = data.removeprefix(b"\xef\xbb\xbf")
    alone = [(number, line) for number, line in enumerate(io.BytesIO(data), 1)]
    assert looked_at(data, buffer, turns) == alone


@pytest.mark.parametrize("buffer", [16, 64])
def test_only_the_last_line_is_ever_alone(buffer):
    lines = Lines(io.BufferedReader(io.BytesIO(b"123456789\n" * 50), buffer))
    alone = 0
    while lines.has_more():
        ahead = lines.ahead()
        alone += not ahead
        if ahead:
            lines.skip(ahead.count(b"\n"), are_all=True)
        else:
            next(lines)
    assert alone == 0


@pytest.mark.parametrize("buffer", [4, 9, 16, 64])
@pytest.mark.parametrize("end", [b"", b"\x1a", b"\x1a\n", b"e\x1a\r\n"])
def test_of_ends_of_dos_only_the_last_is_none_of_a_line(buffer, end):
    data = b"a\x1a\nb\x1ac\n\x1a\n\x1ad\r\n" * 5
    expected = list(enumerate(io.BytesIO(data + (b"e" if end.startswith(b"e") else b"")), 1))
    assert looked_at(data + end, buffer, [True, False]) == expected
