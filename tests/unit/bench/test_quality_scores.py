"""Scores of the quality bench, by hand-made tables."""

import pytest

from bench.quality.scores import Scores, scores, spread

CLASSES = ("a", "b", "c")


@pytest.mark.parametrize(
    ("answers", "labels", "expected"),
    [
        ("abc", "abc", Scores(1, 1, 1)),
        ("bca", "abc", Scores(0, 0, 0)),
        ("aaaa", "aabc", Scores(0.5, 2 / 9, 1 / 3)),  # a: 2·2/(4+2) = 2/3
        ("xabb", "aabb", Scores(0.75, (2 / 3 + 1) / 3, (2 / 3 + 1) / 2)),  # x is no class
    ],
)
def test_scores_are_those_of_the_textbook(answers: str, labels: str, expected: Scores) -> None:
    assert vars(scores(answers, labels, CLASSES)) == pytest.approx(vars(expected))


def test_the_spread_of_one_seed_is_not_made_up() -> None:
    assert spread([0.5]) == "0.500"
    assert spread([0.4, 0.6]) == "0.500 ± 0.141"
