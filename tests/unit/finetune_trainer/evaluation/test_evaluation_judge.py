"""A judge that favours a place decides nothing, and one that says nothing clear is counted."""

import pytest

from finetune_api.evaluation import Judged
from finetune_trainer.data.rows import Turn
from finetune_trainer.evaluation.contest import TUNED, ZERO_SHOT, Contestant, contest
from finetune_trainer.evaluation.judge import doubts, pairs, rulings, tally, undecided
from finetune_trainer.evaluation.material import Material, Question

ASKED = [Question(f"line {n}", (Turn("system", "s"), Turn("user", f"q{n}")), f"right {n}") for n in range(4)]


def test_each_pair_is_asked_in_both_orders_and_what_is_alike_not_at_all():
    mine, theirs = ["mine", "same", "mine", "mine", None], ["theirs", "same", None, "theirs", "theirs"]
    asked = dict(pairs([*ASKED, ASKED[0]], mine, theirs, "it is polite"))
    assert sorted(asked) == [0, 1, 6, 7]
    first, second = asked[0][1].content, asked[1][1].content
    assert first.index("mine") < first.index("theirs")
    assert second.index("theirs") < second.index("mine")
    for text in (first, second):
        assert "right 0" in text
        assert "user: q0" in text
    assert "it is polite" in asked[0][0].content
    assert ["user: q3" in asked[number][1].content for number in (6, 7)] == [True, True]
    ((_, (by_default, _)), _) = pairs(ASKED[:1], ["mine"], ["theirs"], None)
    assert "this holds more: it is right, complete and to the point." in by_default.content
    ((_, (_, of_half_an_emoji)), _) = pairs(ASKED[:1], ["\ud83d"], ["theirs"], None)
    assert of_half_an_emoji.content.encode()


@pytest.mark.parametrize(
    ("found", "said", "rows"),
    [
        (["win", "tie"], ["A", "B", "Tie", "Tie"], None),
        ([None, None], [None, None, "A", None], None),  # not asked, or without an answer: no words that cannot be read
        ([None, "tie"], ["?", "B", "Tie", "Tie"], "1 row"),
        ([None, None], ["?", "B", "A", "!"], "2 rows"),
    ],
)
def test_only_words_that_were_said_count_as_not_readable(found, said, rows):
    told = f"on {rows} it did not begin with A, B or Tie: another model may do as it is asked"
    assert doubts(found, said) == (told if rows else None)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (["A", "A", "b", "B", "A", "B"], "on 2 of 3 rows it chose the same place in both orders"),
        (["A", "A", "Tie", "Tie", "A", "B"], None),  # a place decided no more than one of three
        (["A", "A", "?", "B", "Tie", None],
         "on 1 row it did not begin with A, B or Tie, and on 1 of 1 row it chose the same place in both orders"),
        (["<think>", "A", "A", "B", "A", "B"],
         "1 reply ended in a thought, and on 1 row it did not begin with A, B or Tie"),
    ],
)  # fmt: skip
def test_a_judge_that_goes_by_places_is_told_of_and_none_that_finds_answers_alike(said, told):
    found = rulings(["mine"] * 3, ["theirs"] * 3, said)
    assert doubts(found, said) == (told and f"{told}: another model may do as it is asked")


@pytest.mark.parametrize(
    ("first", "second", "ruling"),
    [
        ("A", "B", "win"),
        ("B", "A", "loss"),
        ("A", "A", "tie"),
        ("B", "B", "tie"),
        ("Tie", "B", "tie"),
        ("**A**", " b.", "win"),
        ("A is better", "B, because", "win"),
        ("TIE", "tie", "tie"),
        ("A tie.", "B", "tie"),
        ("Answer A", "B", "win"),
        ("**Verdict:** B", '{"winner": "A"}', "loss"),
        ("The better answer is: Answer A.", "\\boxed{B}", "win"),
        ("My judgment is a tie.", "B", "tie"),
        ("Answer A is worse", "B", None),
        ("The answer is not A", "B", None),
        ("A thorough look at both shows that B is better", "B", None),  # an article
        ("A good answer names the colour. B", "B", None),
        ("A\nIt names the colour.", "B: it names the colour", "win"),
        ("A (it names the colour)", "B has more of it", "win"),
        ("a", "b", "win"),
        ("Answer A is better", "The answer B wins", "win"),
        ("A is better, as B is wrong", "B because A is not", "win"),
        ('```json\n{"winner": "A", "reason": "it is right"}\n```', '{"reason": "A is long", "verdict": "b"}', "win"),
        ('{"first": "A", "second": "B"}', "B", None),
        ('{"A": 3, "B": 5}', "B", None),
        ("A: 3/10, B: 8/10", "B", None),
        ("A\n1. It names the colour.", "B", "win"),
        ('Both were read.\n```json\n{"why": "it is right", "winner": "A"}\n```', 'Thus: {"verdict": "B"}', "win"),
        ('Of these one says {"answer": "A"}', "B", None),
        ("A is wrong. B", "A", None),
        ("A has an error, so B is better", "A", None),
        ("A does not answer it", "B", None),
        ("A isn\u2019t right", "B", None),
        ("A is worse than B", "B", None),
        ("A < B", "B", None),
        ("Absolutely", "B", None),
        ("", "B", None),
        ("A", None, None),
        ("<think>\nB is short. A is right.\n</think>\n\nA", "<think></think>B", "win"),
        ("<think>\nA is right, and", "B", None),
    ],
)
def test_an_answer_wins_only_where_it_wins_in_both_orders(first, second, ruling):
    assert rulings(["mine"], ["theirs"], [first, second]) == [ruling]


def test_rows_that_need_no_judge_are_none_of_its_errors():
    found = rulings(["x", "x", "x"], ["<think>?</think>x", None, "y"], [None] * 4 + ["A", "?"])
    assert found == ["tie", None, None]
    judged = tally(found, answered=2)
    assert (judged.wins, judged.ties, judged.losses, judged.errors) == (0, 1, 0, 1)


def test_a_row_that_the_tuned_model_did_not_answer_is_none_of_the_judges_errors():
    asked = Material([Question(f"line {row}", (Turn("user", "?"),), "x") for row in range(3)], 8)
    found = {
        TUNED: Contestant(["x", None, "y"]),
        ZERO_SHOT: Contestant(
            ["x", "z", "w"], rulings=rulings(["x", None, "y"], ["x", "z", "w"], [None] * 4 + ["A", "?"])
        ),
    }
    judged = contest(asked, ["exactMatch"], found, {}).result.baselines.zero_shot.judged
    assert (judged.wins, judged.ties, judged.losses, judged.errors) == (0, 1, 0, 1)


@pytest.mark.parametrize(
    ("wins", "ties", "losses", "verdict"),
    [(30, 10, 5, "Better"), (5, 10, 30, "Worse"), (10, 10, 9, "NoDifference"), (0, 0, 0, None)],
)
def test_wins_and_losses_make_a_verdict(wins, ties, losses, verdict):
    assert tally(["win"] * wins + ["tie"] * ties + ["loss"] * losses, wins + ties + losses).verdict == verdict


@pytest.mark.parametrize(
    ("ruled", "errors", "verdict"),
    [(1, 11, None), (99, 100, None), (100, 100, "Better"), (1, 1, "NoDifference"), (1, 0, "NoDifference")],
)
def test_of_fewer_than_half_of_the_rows_there_is_no_verdict(ruled, errors, verdict):
    judged = tally(["win"] * ruled + [None] * errors, ruled + errors)
    assert judged.verdict == verdict
    if not verdict:  # whoever won, all of them were ruled on
        of_each = Judged(wins=ruled - 2 * (ruled // 3), ties=ruled // 3, losses=ruled // 3, errors=errors)
        assert undecided(of_each) == undecided(judged)
    said = f"judge: no verdict by rulings on {ruled} of {ruled + errors} rows"
    assert undecided(judged) == (None if verdict else said)


def test_a_missing_verdict_is_told_beside_what_else_went_wrong():
    asked = Material([Question(f"line {row}", (Turn("user", "?"),), "x") for row in range(3)], 8)
    other = Contestant(["a", "b", "c"], problem="judge: why", rulings=[None, "win", None])
    scores = contest(asked, ["exactMatch"], {TUNED: Contestant(["x", "y", "z"]), ZERO_SHOT: other}, {}).result.baselines
    assert scores.zero_shot.problem == "judge: why; judge: no verdict by rulings on 1 of 3 rows"
