"""Random edits of a file's bytes."""

from hypothesis import strategies as st

SPLINTERS = [
    b"",
    b"\0",
    b";",
    b"\t",
    b"\xff\xfe",
    b'"',
    b"\n",
    b"\r",
    b",",
    b"[",
    b"]",
    b"{",
    b"}",
    b"\\",
    b"\xff",
    b"9" * 400,
    b"PAR1",
    b"NaN",
]
EDIT = st.tuples(st.floats(0, 1), st.floats(0, 0.2), st.sampled_from(SPLINTERS) | st.binary(max_size=8))
EDITS = st.lists(EDIT, max_size=4)


def edited(data: bytes, edits: list[tuple[float, float, bytes]]) -> bytes:
    """The data with parts replaced; each edit has a position, a length and the new bytes."""
    for place, length, put in edits:
        start = int(place * len(data))
        data = data[:start] + put + data[start + int(length * len(data)) :]
    return data
