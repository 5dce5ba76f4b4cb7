"""Long sequences that lie on a disk, or are made when they are asked for: they are what a list would be."""

import pytest

from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation import stored
from finetune_trainer.evaluation.kept import Answer, KeptAnswers
from finetune_trainer.evaluation.stored import Each, Lines

VALUES = [{"n": n, "text": text} for n, text in enumerate(["plain", "two\nlines", "\u2028", "half a pair: \ud83e", ""])]


def on_disk():
    lines = Lines(VALUES[:2], read=dict)
    lines.extend(VALUES[2:])
    return lines


def made():
    return Each(range(5), lambda number: VALUES[number])


@pytest.mark.parametrize("make", [on_disk, made])
@pytest.mark.parametrize("portion", [2, 1024])
def test_a_long_sequence_is_what_a_list_would_be(make, portion, monkeypatch):
    monkeypatch.setattr(stored, "PORTION", portion)
    found = make()
    assert (len(found), list(found), found[3], found[-1]) == (5, VALUES, VALUES[3], VALUES[-1])
    for part in (slice(1, 3), slice(4, 9), slice(9, 12), slice(None, None, -2), slice(0, 0)):
        assert found[part] == VALUES[part]
    with pytest.raises(IndexError):
        found[5]


def test_what_is_known_is_left_out():
    assert list(Each(range(6), lambda number: number * number).without({1, 4}.__contains__)) == [0, 4, 9, 25]


def test_a_full_scratch_disk_is_told(monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(TrainerError, match="No space left on device") as caught:
        on_disk()
    assert "ephemeralStorage" in caught.value.next_step


def test_answers_stand_in_the_order_of_their_questions_whatever_order_they_came_in(tmp_path):
    kept = KeptAnswers(tmp_path, "tuned")
    kept.add([Answer(3, "d", 7), Answer(0, "a")])
    kept.add([Answer(1, "b", 9)])
    for one in (kept, KeptAnswers(tmp_path, "tuned")):
        assert list(one.texts(5)) == ["a", "b", None, "d", None]
        assert one.texts(5)[1:4] == ["b", None, "d"]
        assert (one.prompt_tokens, len(one), [row in one for row in (2, 3, 9)]) == (8, 3, [False, True, False])
