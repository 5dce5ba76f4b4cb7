"""The rows of tests that `make test` runs of those that are alike."""

import pytest

from tests.sampling import beyond_a_sample

NAMES = tuple(f"tests/unit/test_a.py::test_{number}" for number in range(200))


@pytest.mark.parametrize(
    ("rows", "runs"), [(1, {1}), (2, {1}), (4, {1}), (9, {1}), (10, {1, 2}), (27, {3}), (30, {3, 4})]
)
def test_of_each_test_one_row_runs_of_nine_and_one_of_fewer(rows: int, runs: set[int]) -> None:
    assert {rows - len(list(beyond_a_sample(rows_of(name, rows)))) for name in NAMES} == runs


def test_every_row_of_four_is_run_of_some_tests() -> None:
    left = {one for name in NAMES for one in beyond_a_sample(rows_of(name, 4))}
    run = [number for name in NAMES for number, row in enumerate(rows_of(name, 4)) if row not in left]
    assert all(run.count(number) > len(NAMES) / 8 for number in range(4))


def test_of_a_test_with_many_rows_each_of_four_providers_has_one() -> None:
    left = set(beyond_a_sample(rows_of(NAMES[0], 60)))
    assert {number % 4 for number, row in enumerate(rows_of(NAMES[0], 60)) if row not in left} == {0, 1, 2, 3}


def rows_of(test: str, rows: int) -> list[str]:
    return [f"{test}[{number}-a[0]]" for number in range(rows)]
