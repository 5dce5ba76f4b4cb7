"""Versions that are named before the jobs that make them have ended."""

import pytest

from finetune_operator.decide.pending_versions import version_to_come

CASES = {
    "the next": ((2, 1, ["a"]), "it is made when FineTuneJob a succeeds"),
    "the next, of several jobs": ((2, 1, ["a", "b"]), "it is made when FineTuneJob a, or another of 2, succeeds"),
    "the next but one": ((3, 1, ["a", "b"]), "it is made when 2 of 2 FineTuneJobs succeed"),
    "more than there are jobs": ((4, 1, ["a", "b"]), ""),
    "no job": ((2, 1, []), ""),
    "an earlier one, which has gone": ((1, 2, ["a"]), ""),
    "the newest, which has gone": ((2, 2, ["a"]), ""),
}


@pytest.mark.parametrize("name", CASES)
def test_a_version_comes_where_jobs_that_are_under_way_can_make_it(name: str) -> None:
    given, told = CASES[name]
    assert version_to_come(*given) == told
