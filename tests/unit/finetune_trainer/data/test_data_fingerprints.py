"""Rows that are exactly alike are found within a split and across splits, however many there are."""

import errno
import os
import random
from pathlib import Path
from tempfile import SpooledTemporaryFile

import pytest

from finetune_trainer.data import fingerprints as fingerprints_module
from finetune_trainer.data.fingerprints import Fingerprints, fingerprint
from finetune_trainer.data.rows import Position, Row, Rows, Turn


def row(text: str, position: Position, *, system: str | None = None) -> Row:
    turns = (Turn("user", text), Turn("assistant", "x"))
    return Row(position, ((Turn("system", system), *turns) if system else turns))


def line(number: int) -> Position:
    return Position(line=number)


@pytest.mark.parametrize(("part", "unlike"), [(1 << 21, 3000), (7, 3000), (7, 3)])
def test_duplicates_and_shared_rows_are_those_of_a_plain_count(monkeypatch, part, unlike):
    """However much of a bucket is in memory at once: where most rows are alike, one has most of them."""
    monkeypatch.setattr(fingerprints_module, "_MAX_PART", part)
    random.seed(0)
    texts = [[str(random.randrange(unlike)) for _ in range(size)] for size in (4000, 1000, 500)]
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


def test_a_bucket_is_read_in_parts_and_all_of_it():
    with Fingerprints(1) as fingerprints:
        for number in range(25):
            fingerprints.add(0, row("a", line(number)))
            fingerprints._splits[0].sort()
        buckets = fingerprints._splits[0]
        parts = [len(hashes) for bucket in range(64) for hashes, _ in buckets.parts(bucket, 10)]
    assert parts == [10, 10, 5]


def test_many_rows_go_to_disk_and_are_still_counted():
    with Fingerprints(1) as fingerprints:
        for start in range(0, 300_000, 1000):  # 4 MiB hold 262,144 rows
            texts = [str(number % 299_990) for number in range(start, start + 1000)]
            places = [line(number).packed() for number in range(start, start + 1000)]
            fingerprints.add(0, Rows(places, ("user", "assistant"), (texts, ["x"] * 1000)))
        assert fingerprints._splits[0]._file._rolled
        assert fingerprints.compare()[0] == [10]


def test_questions_with_several_answers_are_those_of_a_plain_count():
    chance = random.Random(0)
    asked = [(str(chance.randrange(3000)), chance.choice("ab")) for _ in range(5000)]
    rows = [Row(line(n), (Turn("user", one), Turn("assistant", said))) for n, (one, said) in enumerate(asked, 1)]
    answers: dict[str, set[str]] = {}
    for one, said in asked:
        answers.setdefault(one, set()).add(said)
    several = [n for n, (one, _) in enumerate(asked, 1) if len(answers[one]) > 1]
    with Fingerprints(2, questions=True) as fingerprints:
        for found in rows[:2000]:
            fingerprints.add(0, found)
        texts = tuple(zip(*asked[2000:], strict=True))
        fingerprints.add(0, Rows([line(n).packed() for n in range(2001, 5001)], ("user", "assistant"), texts))
        fingerprints.add(1, rows[several[0]])
        found, none = fingerprints.contradictions()
    assert (found.rows, found.first, none) == (len(several), line(several[0]), None)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param((Turn("user", "a"), Turn("assistant", "x")), id="the same row"),
        pytest.param((Turn("system", "s"), Turn("user", "a"), Turn("assistant", "y")), id="in another role"),
        pytest.param((Turn("user", "b"), Turn("assistant", "y")), id="something else"),
    ],
)
def test_what_is_no_contradiction(other):
    with Fingerprints(1, questions=True) as fingerprints:
        fingerprints.add(0, row("a", line(1)))
        fingerprints.add(0, Row(line(2), other))
        assert fingerprints.contradictions() == [None]


def test_one_question_of_all_rows_is_looked_at_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(fingerprints_module, "_MAX_PART", 1000)
    with Fingerprints(1, questions=True) as fingerprints:
        answers = [str(number) for number in range(30_000)]
        places = [line(number).packed() for number in range(1, 30_001)]
        fingerprints.add(0, Rows(places, ("user", "assistant"), (["a"] * 30_000, answers)))
        (found,) = fingerprints.contradictions()
    assert (found.rows, found.first) == (1000, line(1))


@pytest.mark.parametrize(
    ("learnt", "measured", "rows"),
    [
        (["How tall?"], ["how  TALL? "], 1),
        (["Wie groß\tist das?"], ["wie gro\u00df ist das?", "WIE GROSS IST DAS?", "Wie gro ist das?"], 2),
        (["caf\u00e9"], ["cafe\u0301", "cafe"], 1),
        (["one", "two"], ["one", "Two", "two", "three"], 1),
        (["unit\x1fseparator", "b"], ["UNIT\x1fseparator", "B"], 2),
        (["a\x1f", "b"], ["\x1fa"], 0),
        (["a"], ["a"], 0),
        (["a.", "x"], ["a"], 0),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_rows_of_a_later_split_that_are_only_written_otherwise(learnt, measured, rows, together):
    with Fingerprints(3, folded=True) as fingerprints:
        for split, texts in ((0, learnt), (2, measured)):
            places = [line(number).packed() for number in range(1, len(texts) + 1)]
            if together:
                fingerprints.add(split, Rows(places, ("user", "assistant"), (texts, ["x"] * len(texts))))
            else:
                for place, text in zip(places, texts, strict=True):
                    fingerprints.add(split, row(text, Position.unpacked(place)))
        fingerprints.compare()
        found = fingerprints.nearly_shared()
    assert [one[:3] for one in found] == [(0, 2, rows)] * bool(rows)
    assert all(measured[one.first.line - 1] not in learnt for one in found)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Row(line(1), (Turn("user", "a"), Turn("assistant", "b")), "c"), (Turn("user", "A"), Turn("assistant", "b"))),
        (Row(line(1), (Turn("user", "a"), Turn("assistant", "b"))), (Turn("user", "aB"), Turn("assistant", ""))),
        (Row(line(1), (Turn("user", "a"), Turn("assistant", "b"))), (Turn("assistant", "A"), Turn("user", "b"))),
    ],
)
def test_rows_of_another_form_are_not_alike_however_they_are_written(one, other):
    with Fingerprints(2, folded=True) as fingerprints:
        fingerprints.add(0, one)
        fingerprints.add(1, Row(line(1), other))
        assert fingerprints.nearly_shared() == []


def test_most_rows_of_one_key_are_looked_at_in_bounded_memory_and_then_nothing_is_said(monkeypatch):
    monkeypatch.setattr(fingerprints_module, "_MAX_PART", 2)
    with Fingerprints(2, folded=True) as fingerprints:
        for number, text in enumerate(["A", "A ", "a"], 1):
            fingerprints.add(0, row(text, line(number)))
        fingerprints.add(1, row("a", line(1)))
        assert fingerprints.nearly_shared() == []


def test_however_many_rows_and_splits_few_files_are_open(monkeypatch):
    monkeypatch.setattr(fingerprints_module, "_MEMORY", 1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Fingerprints(3, questions=True, folded=True) as fingerprints:
        for split in range(3):
            for number in range(200):
                fingerprints.add(split, row(str(number), line(number)))
        fingerprints.compare()
        fingerprints.nearly_shared()
        fingerprints.contradictions()
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3 * 5


@pytest.mark.parametrize("rows", [1, fingerprints_module._RUN_ROWS])
def test_no_room_for_temporary_files_is_said_in_words(check, monkeypatch, rows):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fingerprints_module, "_MEMORY", 1)
    monkeypatch.setattr(SpooledTemporaryFile, "rollover", full)
    verdict = check(train=("t.jsonl", '{"prompt": "a", "completion": "b"}\n' * rows)).verdict
    assert verdict.reason == "ArtifactFailed"
    assert verdict.message == "a temporary file of the rows' hashes could not be written: No space left on device"
    assert "TMPDIR" in verdict.next_step
