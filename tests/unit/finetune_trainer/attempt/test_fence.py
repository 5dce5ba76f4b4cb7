"""A trainer that was given up does not write beside its successor."""

from pathlib import Path

import pytest

from finetune_trainer.attempt.fence import FILE, HOLDER, Fence
from finetune_trainer.attempt.interruption import Interrupted, Interruption


@pytest.mark.parametrize(
    ("before", "attempt", "begins"),
    [(None, 1, True), ("1", 1, True), ("1", 2, True), ("2", 1, False), ("10", 9, False), ("", 1, True)],
)
def test_the_higher_attempt_has_the_folder(tmp_path: Path, before: str | None, attempt: int, begins: bool) -> None:
    if before is not None:
        (tmp_path / FILE).write_text(before)
    assert Fence(tmp_path, attempt).take() is begins
    kept = (tmp_path / FILE).read_text().strip()
    assert kept == (str(attempt) if begins else before)


def test_the_first_attempt_makes_the_folder_and_leaves_no_rubbish(tmp_path: Path) -> None:
    Fence(tmp_path / "job", 1).take()
    assert {path.name for path in (tmp_path / "job").iterdir()} == {FILE, HOLDER}


def test_what_is_no_text_in_place_of_the_number_is_none(tmp_path: Path) -> None:
    for name in (FILE, HOLDER):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00")
    fence = Fence(tmp_path, 1)
    assert fence.take()
    assert not fence.is_superseded()


def test_an_attempt_that_was_passed_stops_before_it_writes(tmp_path: Path) -> None:
    interruption = Interruption()
    interruption.before_writing()
    interruption.stop_when_superseded(Fence(tmp_path, 1))
    interruption.before_writing()
    Fence(tmp_path, 2).take()
    with pytest.raises(Interrupted):
        interruption.before_writing()


def test_an_attempt_that_comes_too_late_does_not_begin(tmp_path: Path) -> None:
    Fence(tmp_path, 2).take()
    with pytest.raises(Interrupted):
        Interruption().stop_when_superseded(Fence(tmp_path, 1))


def test_of_two_pods_of_one_attempt_the_later_has_the_folder(tmp_path: Path) -> None:
    first, second = Fence(tmp_path, 1), Fence(tmp_path, 1)
    assert first.take()
    assert not first.is_superseded()
    assert second.take()
    assert (first.is_superseded(), second.is_superseded()) == (True, False)


def test_a_folder_of_an_earlier_release_tells_its_number_alone(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("2\n")
    assert [Fence(tmp_path, number).is_superseded() for number in (1, 2, 3)] == [True, False, False]
    assert Fence(tmp_path, 3).take()
    assert (tmp_path / FILE).read_text() == "3\n", "that is what it reads"
