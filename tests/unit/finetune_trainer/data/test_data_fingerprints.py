"""Rows that are exactly alike are found within a split and across splits, however many there are."""

import random

import pytest

from finetune_trainer.data.fingerprints import Fingerprints, fingerprint
from finetune_trainer.data.rows import Position, Row, Turn


def row(text: str, position: Position, *, system: str | None = None) -> Row:
    turns = (Turn("user", text), Turn("assistant", "x"))
    return Row(position, ((Turn("system", system), *turns) if system else turns))


def line(number: int) -> Position:
    return Position(line=number)


def test_duplicates_and_shared_rows_are_those_of_a_plain_count():
    random.seed(0)
    texts = [[str(random.randrange(3000)) for _ in range(size)] for size in (4000, 1000, 500)]
    with Fingerprints(3) as fingerprints:
        for split, found in enumerate(texts):
            for number, text in enumerate(found, 1):
                fingerprints.add(split, row(text, line(number)))
        duplicates, shared = fingerprints.compare()
    assert duplicates == [len(found) - len(set(found)) for found in texts]
    assert [(one.earlier, one.later) for one in shared] == [(0, 1), (0, 2), (1, 2)]
    for one in shared:
        places = [n for n, text in enumerate(texts[one.later], 1) if text in set(texts[one.earlier])]
        assert one.rows == len(places)
        assert one.examples == [line(n) for n in places[:5]]


def test_splits_with_nothing_in_common_share_nothing():
    with Fingerprints(2) as fingerprints:
        fingerprints.add(0, row("a", line(1)))
        fingerprints.add(1, row("b", line(1)))
        assert fingerprints.compare() == ([0, 0], [])


@pytest.mark.parametrize(
    "position",
    [Position(line=1), Position(line=2**40), Position(row=0), Position(row=7), Position(row_group=3, row=123_456)],
)
def test_positions_come_back_as_they_were(position):
    with Fingerprints(2) as fingerprints:
        fingerprints.add(0, row("a", line(1)))
        fingerprints.add(1, row("a", position))
        (shared,) = fingerprints.compare()[1]
    assert shared.examples == [position]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((Turn("user", "ab"), Turn("assistant", "c")), (Turn("user", "a"), Turn("assistant", "bc"))),
        ((Turn("user", "a"), Turn("assistant", "b")), (Turn("assistant", "a"), Turn("user", "b"))),
        ((Turn("user", "a"),), (Turn("user", "a "),)),
        ((Turn("system", "s"), Turn("user", "a")), (Turn("user", "a"),)),
    ],
)
def test_rows_that_differ_in_where_texts_end_or_who_speaks_are_not_alike(one, other):
    assert fingerprint(Row(line(1), one)) != fingerprint(Row(line(1), other))


def test_many_rows_go_to_disk_and_are_still_counted():
    with Fingerprints(1) as fingerprints:
        for number in range(300_000):  # 64 KiB a bucket hold 4,096 rows
            fingerprints.add(0, row(str(number % 299_990), line(number)))
        buckets = fingerprints._splits[0]._buckets
        assert all(bucket._rolled for bucket in buckets)
        assert fingerprints.compare()[0] == [10]
