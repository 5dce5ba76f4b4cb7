"""Answers to one question that people or judges have compared, as arenas and data sets of preferences export them.

Known by the names of their columns: the command makes of each row the question, the better answer and the worse one.
"""

from collections.abc import Collection

from finetune_trainer.data.jq import by_jq, by_jq_of_all

_BETTER_FIRST = "as [$better, $worse] | "
_PAIR = "{prompt: %s, chosen: $better, rejected: $worse}"

_OF_ARENA = (
    'select(.winner | IN("model_a", "model_b")) | (if .winner == "model_a" then [.conversation_a, .conversation_b] '
    f"else [.conversation_b, .conversation_a] end) {_BETTER_FIRST}select($better[:-1] == $worse[:-1]) "
    "| {prompt: $better[:-1], chosen: $better[-1].content, rejected: $worse[-1].content}"
)
_OF_TWO_MODELS = (
    'def one: if type == "string" and startswith("[\\"") then fromjson | if length == 1 then .[0] else null end '
    'else . end; (if (.winner_model_a | tostring) == "1" then "a" elif (.winner_model_b | tostring) == "1" then "b" '
    'else .winner // "" | ascii_downcase end) as $who | select($who | test("(^|_)[ab]$")) | '
    '(if $who | endswith("a") then [.response_a, .response_b] else [.response_b, .response_a] end | map(one)) '
    f"{_BETTER_FIRST}{_PAIR % '(.prompt | one)'} | select(all(. != null))"
)
"""Questions and answers may be lists of one text, as text."""
_OF_ULTRAFEEDBACK = (
    'def score: .overall_score // .["fine-grained_score"] // 0 | tonumber; (.completions | sort_by(score) '
    f"| [.[-1].response, .[0].response]) {_BETTER_FIRST}select($better != $worse) | {_PAIR % '.instruction'}"
)
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
    (frozenset({"prompt", "response_a", "response_b", "winner"}), _OF_TWO_MODELS, "which of two models won"),
    (frozenset({"prompt", "response_a", "response_b", "winner_model_a"}), _OF_TWO_MODELS, "which of two models won"),
    (frozenset({"instruction", "completions", "models"}), _OF_ULTRAFEEDBACK, "the scores of UltraFeedback"),
    (frozenset({"prompt", "answers", "num_responses"}), _OF_NECTAR, "the ranks of Nectar"),
    (frozenset({"history", "human_ref_A", "human_ref_B", "labels"}), _OF_SHP, "the votes of SHP"),
    (frozenset({"context", "response1", "response2", "overall_preference"}), _OF_HELPSTEER, "what HelpSteer3 prefers"),
)


def of_ranked(names: Collection[str], file_format: str, *, of_pairs: bool) -> str | None:
    """How rows come of a file with these columns; None of one in which nothing is known to be compared.

    Args:
        names: Of its columns.
        file_format: As which it was read.
        of_pairs: Whether two answers are asked for, and not the better one alone.
    """
    if of_pairs and _KTO.issubset(names):
        how = by_jq_of_all(file_format, _OF_KTO)
        return f"`{how}` puts what is labelled good and bad of one prompt together; other rows are left out."
    program, by = next(((program, by) for known, program, by in _KNOWN if known.issubset(names)), (None, ""))
    if program is None:
        return None
    if of_pairs:
        return f"`{by_jq(file_format, program)}` takes the better and the worse answer by {by}."
    how = by_jq(file_format, f"{program} | {{prompt, completion: .chosen}}")
    return f"`{how}` takes the better answer by {by}. With spec.preference: {{}} both are learnt from."
