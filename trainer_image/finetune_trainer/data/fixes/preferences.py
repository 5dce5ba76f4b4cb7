"""Answers to one question that people or judges have compared, as arenas and data sets of preferences export them.

Known by the names of their columns: the command makes of each row the question, the better answer and the worse one.
Those of data sets that many have are known one by one; others by two answers beside who has won, or by a list of
answers with their scores.
"""

from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Any

from finetune_trainer.data.fixes.column_names import may_be_shown
from finetune_trainer.data.fixes.jq import by_jq, by_jq_of_all, field

_BETTER_FIRST = "as [$better, $worse] | "
_PAIR = "{prompt: %s, chosen: $better, rejected: $worse}"

_OF_ARENA = (
    'select(.winner | IN("model_a", "model_b")) | (if .winner == "model_a" then [.conversation_a, .conversation_b] '
    f"else [.conversation_b, .conversation_a] end) {_BETTER_FIRST}select($better[:-1] == $worse[:-1]) "
    "| {prompt: $better[:-1], chosen: $better[-1].content, rejected: $worse[-1].content}"
)
_OF_TWO_MODELS = (
    'def one: if type == "string" and startswith("[\\"") then fromjson | if length == 1 then .[0] else null end '
    'else . end; def is_1: tostring == "1"; select(.winner_model_a, .winner_model_b | is_1) | '
    "(if .winner_model_a | is_1 then [.response_a, .response_b] else [.response_b, .response_a] end | map(one)) "
    f"{_BETTER_FIRST}{_PAIR % '(.prompt | one)'} | select(all(. != null))"
)
"""Questions and answers may be lists of one text, as text."""
_OF_NECTAR = (
    r'def turns: [splits("\n\n(?=(?:Human|Assistant):)") | select(. != "") '
    r'| capture("^(?<from>Human|Assistant): ?(?<value>(?s:.*))$") | .from |= ascii_downcase | select(.value != "")]; '
    f"(.answers | sort_by(.rank) | [.[0].answer, .[-1].answer]) {_BETTER_FIRST}select($better != $worse) "
    f"| {_PAIR % '(.prompt | turns)'}"
)
_OF_SHP = (
    '(if (.labels | tostring) == "1" then [.human_ref_A, .human_ref_B] else [.human_ref_B, .human_ref_A] end) '
    f"{_BETTER_FIRST}{_PAIR % '.history'}"
)
_OF_HELPSTEER = (
    "select(.overall_preference != 0) | (if .overall_preference < 0 then [.response1, .response2] "
    f"else [.response2, .response1] end) {_BETTER_FIRST}{_PAIR % '.context'}"
)
_OF_KTO = (
    'def is_good: .label | tostring | ascii_downcase | IN("true", "1"); group_by(.prompt)[] '
    "| [map(select(is_good)), map(select(is_good | not))] as [$good, $bad] | range([$good, $bad | length] | min) "
    "as $at | {prompt: .[0].prompt, chosen: $good[$at].completion, rejected: $bad[$at].completion}"
)
_KTO = frozenset({"prompt", "completion", "label"})
_KNOWN: tuple[tuple[frozenset[str], str, str], ...] = (
    (frozenset({"conversation_a", "conversation_b", "winner"}), _OF_ARENA, "which of two models won"),
    (frozenset({"prompt", "response_a", "response_b", "winner_model_a"}), _OF_TWO_MODELS, "which of two models won"),
    (frozenset({"prompt", "answers", "num_responses"}), _OF_NECTAR, "the ranks of Nectar"),
    (frozenset({"history", "human_ref_A", "human_ref_B", "labels"}), _OF_SHP, "the votes of SHP"),
    (frozenset({"context", "response1", "response2", "overall_preference"}), _OF_HELPSTEER, "what HelpSteer3 prefers"),
)


_QUESTIONS = ("prompt", "question", "instruction", "query", "input")
_TEXTS = ("response", "answer", "completion", "output", "text", "content")
_WINNERS = ("winner", "preferred", "preference", "better", "choice", "label")
_SCORES = ("overall_score", "score", "rating", "reward", "pm_score", "rank", "fine-grained_score")


def _of_two(names: Collection[str], first: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The program for two answers, which end with a and b or 1 and 2, beside a column that says which of them won.

    It gets all rows at once: where any says 0, another may say 1 and mean the second answer.
    """
    asked, winner = (next((name for name in known if name in names), None) for known in (_QUESTIONS, _WINNERS))
    if asked is None or winner is None:
        return
    for one, two in ((f"{word}{mark}", f"{word}{other}") for word in _TEXTS for mark, other in _MARKS):
        if one in names and two in names:
            marks = f"{one[-1]}{two[-1]}".lower()
            if (said := str(first.get(winner)).lower()) in _NUMBERS and said not in marks:
                yield (
                    f'.[] | ({field(winner)} | tostring) as $who | ({{"ONE": [{field(one)}, {field(two)}], "TWO": '
                    f"[{field(two)}, {field(one)}]}}[$who] // empty) {_BETTER_FIRST}{_PAIR % field(asked)}",
                    f"what {winner} says, with its own words where {one} is better for ONE, and {two} for TWO",
                )
                return
            yield (
                f'if any({field(winner)} == (0, "0")) then error("0 is not an answer") else .[] end | '
                f"({field(winner)} | tostring | ascii_downcase) as $who | "
                f'select($who | test("(^|[^a-z0-9])[{marks}]$")) | (if $who | endswith("{marks[0]}") then '
                f"[{field(one)}, {field(two)}] else [{field(two)}, {field(one)}] end) "
                f"{_BETTER_FIRST}{_PAIR % field(asked)}",
                f"what {winner} says",
            )


_NUMBERS = ("0", "1", "true", "false")
"""What says which of two is better only to who knows how they are counted."""
_MARKS = (("_a", "_b"), ("_A", "_B"), ("_1", "_2"), ("A", "B"), ("1", "2"))


def _of_scored(names: Collection[str], first: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The program for a list of answers, each with its score or its rank, or with a list of those beside it."""
    asked = next((name for name in _QUESTIONS if name in names), "")
    lists = {name: value for name, value in first.items() if isinstance(value, list) and value and may_be_shown(name)}
    for name, answers in lists.items() if asked else ():
        within = answers[0] if isinstance(answers[0], dict) else {}
        text, score = (next((key for key in known if key in within), None) for known in (_TEXTS, _SCORES))
        if text and score:
            yield _by_score(asked, f"{field(name)} | map([{field(text)}, {field(score)}])", score)
        for other, numbers in lists.items():
            if isinstance(answers[0], str) and isinstance(numbers[0], int | float):
                yield _by_score(asked, f"[{field(name)}, {field(other)}] | transpose", other)


def _by_score(asked: str, scored: str, called: str) -> tuple[str, str]:
    """The program for pairs of text and score, of which the least rank, or else the highest score, is the best."""
    best, worst = (0, -1) if "rank" in called else (-1, 0)
    return (
        f"({scored} | map([.[0], (.[1] | tonumber? // null)] | select(all(. != null))) | sort_by(.[1]) "
        "| select(.[0][1] != .[-1][1]) "
        f"| [.[{best}][0], .[{worst}][0]]) {_BETTER_FIRST}{_PAIR % field(asked)}",
        f"their {called}",
    )


def of_ranked(names: Collection[str], first: Mapping[str, Any], file_format: str, *, of_pairs: bool) -> str | None:
    """How rows come of a file with these columns; None of one in which nothing is known to be compared.

    `of_pairs`: two answers are asked for, and not the better one alone.
    """
    if of_pairs and _KTO.issubset(names):
        how = by_jq_of_all(file_format, _OF_KTO)
        return f"`{how}` puts what is labelled good and bad of one prompt together; other rows are left out."
    known = ((by_jq, program, by) for columns, program, by in _KNOWN if columns.issubset(names))
    others = ((by_jq, program, by) for program, by in _of_scored(names, first))
    found = next(chain(known, ((by_jq_of_all, program, by) for program, by in _of_two(names, first)), others), None)
    if found is None:
        return None
    command, program, by = found
    if of_pairs:
        return f"`{command(file_format, program)}` takes the better and the worse answer by {by}."
    how = command(file_format, f"{program} | {{prompt, completion: .chosen}}")
    return f"`{how}` takes the better answer by {by}. With spec.preference: {{}} both are learnt from."
