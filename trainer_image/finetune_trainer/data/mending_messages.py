"""What to do about conversations that cannot be used: the command that mends each kind of problem with messages.

Problems are known by their words, as `turns` has them.
"""

import json
from collections.abc import Callable, Collection, Iterable

from finetune_trainer.data.jq import by_jq, field
from finetune_trainer.data.turns import (
    BESIDE_CONTENT,
    NEVER_ANSWERED,
    NO_ANSWER,
    NO_LIST,
    NO_MESSAGE,
    NO_ROLE,
    NONE_LEARNT,
    OF_TOOLS,
    ONLY_TEXT,
    OTHER_ROLE,
    OTHER_WEIGHT,
    ROLE_OF,
    TEXT_ELSEWHERE,
    TOOLS,
    UNLEARNT_END,
)

Step = Callable[[str, str], str]
"""What to do, by a column and the format of its file."""

_A_LIST = 'if type == "string" then fromjson else . end'


def _in(words: Iterable[str]) -> str:
    return f"IN({', '.join(map(json.dumps, words))})"


_OF_US = _in(word for word, role in ROLE_OF.items() if role == "assistant")


def _changed(column: str, file_format: str, how: str) -> str:
    """The command that makes other messages of those of each row; `how` is jq's, from a list to a list."""
    return by_jq(file_format, f"{field(column)} |= ({_A_LIST} | {how})")


def _without_end(column: str, file_format: str) -> str:
    """How conversations end with an answer, which others end with a question or a word of thanks."""
    answers = f'.role // .from // "" | ascii_downcase | {_OF_US}'
    how = f"{field(column)} |= ({_A_LIST} | until(. == [] or (.[-1] | {answers}); .[:-1]))"
    command = by_jq(file_format, f"{how} | select({field(column)} != [])")
    return f"`{command}` takes away what follows the last answer, and rows without any."


def _without_unlearnt_end(column: str, file_format: str) -> str:
    """How conversations end with an answer that is learnt: what follows it would teach nothing."""
    is_answer = f'(.role // .from // "" | ascii_downcase | {_OF_US})'
    is_learnt = "([.weight, .train, .loss] | all(. == null or . == 1 or . == true))"
    how = f"{field(column)} |= ({_A_LIST} | until(. == [] or (.[-1] | {is_answer} and {is_learnt}); .[:-1]))"
    command = by_jq(file_format, f"{how} | select({field(column)} != [])")
    return f"`{command}` takes away what follows the last answer that is learnt, and rows without any."


def _with_all_learnt(column: str, file_format: str) -> str:
    """How answers are learnt, of which none is to be."""
    how = by_jq(file_format, f"{field(column)} |= ({_A_LIST} | map(del(.weight, .train, .loss)))")
    return f"Every answer has a weight of 0: `{how}` takes the weights away, so that answers are learnt."


def _without_tools(column: str, file_format: str) -> str:
    """How rows are left out in which tools are called, or kept as text."""
    calls = "([.tool_calls, .function_call] | map(length) | add > 0)"
    speaks = f'(.role // .from // "" | {_in(sorted(TOOLS))})'
    how = f"select({field(column)} | {_A_LIST} | all(.[]; ({calls} or {speaks}) | not))"
    as_text = "write calls and what came of them as text: of the assistant, and of the user"
    return _left_out("Calls of tools are not learnt", how, file_format, as_text)


def _without_parts(column: str, file_format: str) -> str:
    """How rows are left out that show something else than text."""
    parts = '.. | arrays | .[] | objects | select((has("role") or has("from")) | not); .text | type == "string"'
    how = f"select({field(column)} | {_A_LIST} | all({parts}))"
    return _left_out("Only text is learnt", how, file_format, "write what they show as text")


def _left_out(why: str, how: str, file_format: str, otherwise: str) -> str:
    """Both ways with rows that are not learnt as they are; `how` is jq's."""
    return f"{why}: `{by_jq(file_format, how)}` leaves such rows out; or {otherwise}."


def _without_reasoning(column: str, file_format: str) -> str:
    """How the answers are kept and what was thought before them is not."""
    thoughts = '(.type // "" | IN("thinking", "redacted_thinking")) or has("reasoningContent") or .thought == true'
    kept = f'if type == "array" then map(select((type == "object" and ({thoughts})) | not)) else . end'
    how = f"{field(column)} |= ({_A_LIST} | map(map_values({kept})))"
    return f"`{by_jq(file_format, how)}` takes the parts with reasoning away; or write them into the text."


def _with_role(column: str, file_format: str) -> str:
    """How messages get the names by which they are read."""
    said = "A message has its speaker as role and its text as content"
    who = ".role // .from // .author // .sender // .sender_name // .speaker // .type"
    role = f'({who} | if type == "object" then .role // .name // .id else . end // error("a message names nobody"))'
    data = '(.data | if type == "object" then .content else . end)'  # nothing at all would leave the message out
    content = f"(.content // .value // .text // .message // .utterance // .body // {data})"
    named = f"with_entries(.key |= ascii_downcase) | . + {{role: {role}, content: {content}}}"
    speakers = 'keys_unsorted | any(ascii_downcase | IN("user", "human", "assistant", "gpt", "bot"))'
    each = (
        f"if {speakers} then to_entries[] | select(.value != null) | {{role: .key, content: .value}} else {named} end"
    )
    return f"{said}: `{_changed(column, file_format, f'[.[] | {each}]')}` takes them by other usual names."


_CONTENTS = {
    "a number": ("tostring", "makes it of numbers"),
    "true or false": ("tostring", "makes it of true and false"),
    "a list": ('map(strings) | join("\\n")', "puts the texts of lists one below the other"),
    "an object": (".NAME", "takes what an object calls NAME"),
}
"""How content of one kind becomes text: jq's program, and what it does."""


def of_contents(kinds: Collection[str], column: str, file_format: str) -> str:
    """How the contents of messages become text; by a command where all that are none are of one kind."""
    known = _CONTENTS.get(next(iter(kinds))) if len(kinds) == 1 else None
    said = "Only text is learnt: write it as the content of messages"
    if known is None:
        return f"{said}."
    to_text = f'if type | IN("string", "null") then . else {known[0]} end'
    how = f'map(with_entries(if .key | IN("content", "value") then .value |= ({to_text}) else . end))'
    return f"{said}; `{_changed(column, file_format, how)}` {known[1]}."


def _with_words_for_roles(column: str, file_format: str) -> str:
    """How speakers get the words by which they are known."""
    said = "Who speaks is user or assistant"
    words = '{"ASKER": "user", "ANSWERER": "assistant"}'
    how = _changed(
        column, file_format, f"map(.role = ((.role // .from) as $who | {words}[$who | tostring] // $who) | del(.from))"
    )
    return f"{said}: `{how}` writes it, with the file's own words for ASKER and ANSWERER."


def _in_turns(column: str, file_format: str) -> str:
    """How messages come of texts, or of pairs of them."""
    said = "A message is an object with role and content"
    speaks = f'type == "array" and length == 2 and (.[0] | tostring | ascii_downcase | {_in(ROLE_OF)})'
    how = (
        f"if all(.[]; {speaks}) then map({{role: .[0], content: .[1]}}) else flatten | "
        'if all(.[]; type == "object") then . else '
        '[to_entries[] | {role: ["user", "assistant"][.key % 2], content: .value}] end end'
    )
    made = "of pairs of role and text, or else of texts that take turns, the user's first"
    return f"{said}: `{_changed(column, file_format, how)}` makes them {made}."


def _with_an_answer(column: str, file_format: str) -> str:
    """How conversations get an answer, of which none has one."""
    said = "No conversation has an answer: write it as its last message"
    answer = (
        "[.NAME, .completion, .answer, .response, .output, .reply, .choices[0]?.message?.content] | map(strings)[0]"
    )
    longer = f'({field(column)} | {_A_LIST}) + [{{role: "assistant", content: ({answer})}}]'
    how = by_jq(file_format, f"{field(column)} = {longer}")
    return f"{said}: `{how}` takes it from where NAME leads, or else a usual name, choices[0].message.content too."


def _with_whole_weights(column: str, file_format: str) -> str:
    """How answers are learnt or not, and none in part."""
    said = "An answer is learnt or not, and none in part: a weight is 0 or 1"
    whole = 'if type | IN("number", "string") then tonumber | round else . end'
    how = _changed(column, file_format, f'map(if has("weight") then .weight |= ({whole}) else . end)')
    return f"{said}: `{how}` rounds them."


def _without_thoughts(column: str, file_format: str) -> str:
    """How answers are learnt without the reasoning that stands in a field of its own."""
    said = "Reasoning is learnt only where it stands in the content: write it there"
    how = _changed(column, file_format, "map(del(.reasoning_content, .reasoning, .thinking))")
    return f"{said}; or `{how}` takes it away."


def anyway(step: str) -> Step:
    """One step for all columns and formats."""
    return lambda *_: step


OF_ALL: tuple[tuple[str, Step | None], ...] = (
    (
        OF_TOOLS,
        anyway(
            "Calls of tools are not learnt, and every row has some: write calls and what came of them as text: of the "
            "assistant, and of the user."
        ),
    ),
    (f"has reasoning{ONLY_TEXT}", None),
    (ONLY_TEXT, anyway("Only text is learnt, and every row has something else in it: write what it shows as text.")),
    (NONE_LEARNT, _with_all_learnt),
    (NEVER_ANSWERED, _with_an_answer),
)
"""Where no row would be left without those that have a problem; None where one is mended without that."""


def _as_list(column: str, file_format: str) -> str:
    """How an object with messages for values becomes a list, as PHP and Firebase write lists."""
    return f"Write a list of messages: `{_changed(column, file_format, '[.[]]')}` makes one of the object's values."


OF_COLUMN: tuple[tuple[str, Step], ...] = (
    (NO_LIST, _as_list),
    (NO_ANSWER, _without_end),
    (UNLEARNT_END, _without_unlearnt_end),
    (OF_TOOLS, _without_tools),
    (f"has reasoning{ONLY_TEXT}", _without_reasoning),
    (ONLY_TEXT, _without_parts),
    (NO_ROLE, _with_role),
    (TEXT_ELSEWHERE, _with_role),
    (OTHER_ROLE, _with_words_for_roles),
    (NO_MESSAGE, _in_turns),
    (OTHER_WEIGHT, _with_whole_weights),
    (BESIDE_CONTENT, _without_thoughts),
)
"""By what is said of a column, and how that is mended there."""
