"""Names that stand twice in an object of JSON are found by counting quotes, whatever stands in texts."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.data.files.duplicate_keys import has_unique_names, repeated_name

TEXT = st.sampled_from(["a", "b", "", '"', "\\", '\\"', '":', "{", "ä", "\n"])


class Pairs(list):
    """Names and values of an object, in which a name may stand twice."""


VALUE = st.recursive(
    TEXT | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(TEXT, inner), max_size=4).map(Pairs),
    max_leaves=12,
)


def written(value) -> str:
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(name)} : {written(inner)}" for name, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value)


def has_twice(value) -> bool:
    inner = [one for _, one in value] if isinstance(value, Pairs) else value if isinstance(value, list) else []
    names = [name for name, _ in value] if isinstance(value, Pairs) else []
    return len(set(names)) < len(names) or any(map(has_twice, inner))


@given(VALUE)
def test_a_name_that_stands_twice_is_found_however_deep(value):
    text = written(value).encode()
    assert has_unique_names(text, [msgspec.json.decode(text)]) is not has_twice(value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b'{"a":1,"b":2,"b":3}', "b"),
        (b'{"a":{"x":1},"a":{"x":1,"x":2}}', "a"),
        (b'{"a":{"x":1,"x":2}}', ""),
        (b'{"a":{},"n":%b,"a":1e999}' % (b"9" * 9000), "a"),
    ],
)
def test_only_what_stands_twice_in_the_outermost_object_is_told_by_its_name(text, name):
    assert repeated_name(text) == name
