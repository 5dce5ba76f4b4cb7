"""Means, intervals and verdicts: chance is told from difference, and what was not answered counts nowhere."""

import itertools
import math

import numpy as np
import pytest

from finetune_api.evaluation import Interval
from finetune_trainer.data.rows import Turn
from finetune_trainer.evaluation import compare
from finetune_trainer.evaluation.contest import (
    ACTIVE_VERSION,
    FEW_SHOT,
    TUNED,
    ZERO_SHOT,
    Contestant,
    contest,
    endpoint_key,
)
from finetune_trainer.evaluation.material import Material, Question


def of(right, metric="exactMatch"):
    return compare.Measured({metric: np.array(right, dtype=float)})


def against(tuned, baseline, decisive):
    standing = compare.Standing()
    standing.add(tuned, baseline)
    return standing.compared(decisive)


@pytest.mark.parametrize(
    ("tuned", "baseline", "verdict"),
    [
        ([1] * 80 + [0] * 20, [1] * 10 + [0] * 90, "Better"),
        ([1] * 10 + [0] * 90, [1] * 80 + [0] * 20, "Worse"),
        ([1] * 50 + [0] * 50, [1] * 50 + [0] * 50, "NoDifference"),
        ([1] * 52 + [0] * 48, [0] * 48 + [1] * 52, "NoDifference"),
        ([1] * 6, [0] * 6, "Better"),
        ([1] * 5, [0] * 5, "NoDifference"),
        ([0], [1], "NoDifference"),
        ([1] * 100, [1] * 95 + [0] * 5, "NoDifference"),
        ([1] * 100, [1] * 94 + [0] * 6, "Better"),
        ([1, 0], [0, 1], "NoDifference"),
        ([0.1 + 0.2] * 9, [0.3] * 9, "NoDifference"),
        ([0.504] * 9, [0.5] * 9, "Better"),
        ([1] * 6 + [math.nan], [0] * 6 + [1], "Better"),
        ([], [], None),
        ([1, 1], [math.nan, math.nan], None),
    ],
)
def test_the_verdict_is_that_of_a_paired_bootstrap(tuned, baseline, verdict):
    assert against(of(tuned), of(baseline), "exactMatch").verdict == verdict


def test_the_interval_is_that_of_drawing_rows():
    chance = np.random.default_rng(7)
    differences = chance.normal(0.1, 0.4, size=120)
    means = [chance.choice(differences, size=120).mean() for _ in range(10_000)]
    low, high = np.percentile(means, [2.5, 97.5])
    found = compare.interval(differences)
    assert found.low == pytest.approx(low, abs=0.005)
    assert found.high == pytest.approx(high, abs=0.005)
    assert found == compare.interval(differences)


def test_values_that_are_near_each_other_are_not_taken_for_one():
    found = compare.interval(np.array([0.05, 0.1] * 50))
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.025 / 10, abs=0.001)


def test_an_empty_answer_is_a_wrong_one_and_none_is_no_answer():
    found = compare.measured(["exactMatch"], ["", None], ["red", "red"])
    assert (found.of_row(0), found.of_row(1)) == ({"exactMatch": 0.0}, {})


@pytest.mark.parametrize(("rows", "most"), [(1, 0), (5, 0), (8, 0.05), (20, 0.08), (100, 0.08)])
def test_models_that_are_alike_are_seldom_told_apart(rows, most):
    """The part of test sets that tell two models apart which are right as often: 5 % are meant, whatever their size."""
    chance = np.random.default_rng(rows)
    seen = (compare.interval(chance.choice([-1.0, 0, 1], p=[0.25, 0.5, 0.25], size=rows)) for _ in range(200))
    told = sum(compare.verdict(one) != "NoDifference" for one in seen)
    assert told / 200 <= most


@pytest.mark.parametrize("rows", [6, 7, 10])
def test_what_chance_does_in_more_than_5_percent_is_no_difference(rows):
    """By a metric like ROUGE-L, of which each row differs a little, the bootstrap alone tells too many rows apart."""
    chance = np.random.default_rng(rows)
    signs = np.array(list(itertools.product([-1, 1], repeat=rows)))
    told = 0
    for _ in range(100):
        differences = chance.normal(0.15, 0.2, size=rows)
        if compare.verdict(compare.interval(differences)) != "NoDifference":
            told += 1
            assert (abs(signs @ differences) >= abs(differences.sum()) - 1e-9).mean() <= 0.05
    assert told > 10


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        # Of all 64 choices of signs four, or 6.3 %, lie as far from zero; of 128 two, or 1.6 %.
        ([0.3, 0.2, 0.2, 0.1, 0.1, -0.1], "NoDifference"),
        ([0.3, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1], "Better"),
        ([-0.3, -0.2, -0.2, -0.1, -0.1, -0.1, -0.1], "Worse"),
        # One outlier is one row, however far it lies.
        ([1.0, *[0.01] * 4], "NoDifference"),
        ([1.0, *[0.0] * 99], "NoDifference"),
        ([0.0] * 30, "NoDifference"),
        ([1e-5] * 30, "NoDifference"),
    ],
)
def test_a_verdict_needs_more_than_signs_drawn_at_random_give(differences, verdict):
    assert compare.verdict(compare.interval(np.array(differences))) == verdict


def test_the_first_metric_decides_and_all_have_intervals():
    tuned = compare.Measured({"exactMatch": np.zeros(30), "rougeL": np.full(30, 0.9)})
    base = compare.Measured({"exactMatch": np.zeros(30), "rougeL": np.full(30, 0.2)})
    by_match, by_rouge = (against(tuned, base, one) for one in ("exactMatch", "rougeL"))
    assert (by_match.verdict, by_rouge.verdict) == ("NoDifference", "Better")
    assert by_match.difference == by_rouge.difference
    assert by_match.difference.rouge_l == Interval(low=0.7, high=0.7)


def test_rows_without_an_answer_count_nowhere():
    found = compare.measured(["exactMatch", "jsonFields"], ["red", None, "blue"], ["red", "red", "red"])
    standing = compare.Standing()
    standing.add(found, found)
    assert standing.means() == {"exact_match": 0.5, "json_fields": None}
    assert found.of_row(1) == {}


def test_an_answer_is_what_was_said_behind_a_thought_in_whatever_form_of_unicode():
    said = ["<think>\n\n</think>\n\nred", "red", "<think>\nIt is red", '<think>a</think>{"a": 1}', "caf\u00e9"]
    wanted = ["red", "<think>It is.</think>red", "red", '{"a": 1}', "cafe\u0301"]
    found = compare.measured(["exactMatch", "jsonFields"], said, wanted)
    assert found.values["exactMatch"].tolist() == [1, 1, 0, 1, 1]
    assert found.of_row(3)["jsonFields"] == 1


def test_rows_in_portions_are_the_same_rows_and_many_of_them_take_no_more_memory():
    chance = np.random.default_rng(3)
    tuned, base = (chance.random(6_000) for _ in range(2))
    whole, parts = compare.Standing(), compare.Standing()
    whole.add(of(tuned), of(base))
    for start in range(0, 6_000, 700):
        parts.add(of(tuned[start : start + 700]), of(base[start : start + 700]))
    assert parts.compared("exactMatch") == whole.compared("exactMatch")
    assert parts.means() == {"exact_match": round(float(base.mean()), 6)}
    assert max(len(one.cells) for one in (*parts.own.values(), *parts.lead.values())) <= 4097


@pytest.mark.parametrize(
    ("verdicts", "overall"),
    [
        (["Better"], "Better"),
        (["Better", "NoDifference"], "NoDifference"),
        (["Better", None, "Worse", "NoDifference"], "Worse"),
        ([None], None),
        ([], None),
    ],
)
def test_tuning_was_worth_it_only_if_nothing_does_as_well(verdicts, overall):
    assert compare.overall(verdicts) == overall


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (0.0, {"loss": 0.0, "perplexity": 1.0}),
        (2.0, {"loss": 2.0, "perplexity": 7.389056}),
        (800.0, {"loss": 800.0, "perplexity": None}),
        (math.nan, {}),
        (None, {}),
    ],
)
def test_perplexity_is_the_exponential_of_the_loss(loss, told):
    assert compare.losses(loss) == told


@pytest.mark.parametrize(
    ("tuned", "other", "verdict", "problem"),
    [
        (["right"] * 12, ["right"] + [None] * 11, None, "no verdict by answers on 1 of 12 rows; away"),
        (["right"] * 12, ["wrong"] * 5 + [None] * 7, None, "no verdict by answers on 5 of 12 rows; away"),
        (["right"] * 12, ["wrong"] * 6 + [None] * 6, "Better", "away"),
        ([None] * 7 + ["right"] * 5, ["wrong"] * 12, None, "no verdict by answers on 5 of 12 rows; away"),
        ([None] * 6 + ["right"] * 6, ["wrong"] * 6 + [None] * 6, None, "away"),
    ],
)
@pytest.mark.parametrize("who", [ZERO_SHOT, FEW_SHOT, ACTIVE_VERSION, endpoint_key("rag")])
def test_of_fewer_than_half_of_the_rows_there_are_scores_and_no_verdict(who, tuned, other, verdict, problem):
    asked = Material([Question(f"line {n}", (Turn("user", "q"),), "right") for n in range(12)], 8)
    notes = {"name": "rag", "rows": 12 - other.count(None)} if who == endpoint_key("rag") else {}
    found = {TUNED: Contestant(tuned), who: Contestant(other, problem="away", notes=notes)}
    result = contest(asked, ["exactMatch"], found, {}).result
    (scores,) = result.baselines.all()
    assert (scores.verdict, result.verdict, scores.problem) == (verdict, verdict, problem)
    assert scores.exact_match == float(other[0] == "right")


def test_metrics_that_looked_at_the_beginnings_of_texts_alone_are_told_with_what_else_is_missing():
    long = "天" * 20_001
    asked = Material([Question(f"line {row}", (Turn("user", "?"),), "天") for row in range(2)], 8)
    found = {TUNED: Contestant(["天", f"<think>{long}</think>天"]), ZERO_SHOT: Contestant([long, None])}
    result = contest(asked, ["exactMatch", "rougeL"], found, {}, missing="loss").result
    assert result.missing == "loss; rougeL of 1 answer looks at the first 20,000 words of very long texts"
