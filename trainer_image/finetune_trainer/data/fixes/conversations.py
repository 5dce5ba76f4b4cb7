"""Next steps for conversations that cannot be used: a command for each kind of problem with messages.

Problems are recognized by their words, as written by `turns`.
"""

import json
from collections.abc import Callable, Collection, Iterable
from itertools import chain, zip_longest
from typing import Any

from finetune_trainer.data.fixes.jq import field, jq_rows
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
    TEXT_NO_LIST,
    TOOLS,
    UNLEARNT_END,
    is_message,
    messages_in,
)

Step = Callable[[str, str], str]
"""Makes the next step for a column and the format of its file."""


def by_command(text: str, *programs: str) -> Step:
    """A step with a command for each HOW in the text: a jq program, in which COLUMN stands for the column."""
    parts = text.split("HOW")

    def step(column: str, file_format: str) -> str:
        commands = (f"`{jq_rows(file_format, program.replace('COLUMN', field(column)))}`" for program in programs)
        return "".join(chain.from_iterable(zip_longest(parts, commands, fillvalue="")))

    return step


def constant(step: str) -> Step:
    """The same step for all columns and formats."""
    return lambda *_: step


def _is_in(words: Iterable[str]) -> str:
    return f"IN({', '.join(map(json.dumps, words))})"


_A_LIST = 'if type == "string" then fromjson else . end'


def _changed(how: str) -> str:
    """The program that changes the messages of each row; `how` is a jq expression from a list to a list."""
    return f"COLUMN |= ({_A_LIST} | {how})"


def _truncated_to(last: str) -> str:
    """The program that removes everything after the last message for which `last` holds, and rows without any."""
    return f"{_changed(f'until(. == [] or (.[-1] | {last}); .[:-1])')} | select(COLUMN != [])"


_OURS = _is_in(word for word, role in ROLE_OF.items() if role == "assistant")
_IS_ANSWER = f'.role // .from // "" | ascii_downcase | {_OURS}'
_IS_LEARNT = "([.weight, .train, .loss] | all(. == null or . == 1 or . == true))"
_CALLS = "([.tool_calls, .function_call] | map(length) | add > 0)"
_OF_TOOL = f'(.role // .from // "" | {_is_in(sorted(TOOLS))})'
_PARTS = '.. | arrays | .[] | objects | select((has("role") or has("from")) | not); .text | type == "string"'
_THOUGHTS = '(.type // "" | IN("thinking", "redacted_thinking")) or has("reasoningContent") or .thought == true'
_WHO = ".role // .from // .author // .sender // .sender_name // .speaker // .type"
_ROLE = f'({_WHO} | if type == "object" then .role // .name // .id else . end // error("a message names nobody"))'
_DATA = "(.data | .content? // .)"  # must not be empty, or the message would be dropped
_CONTENT = f"(.content // .value // .text // .message // .utterance // .body // {_DATA})"
_BY_OTHER_NAMES = (
    'if keys_unsorted | any(ascii_downcase | IN("user", "human", "assistant", "gpt", "bot")) then to_entries[] | '
    "select(.value != null) | {role: .key, content: .value} else with_entries(.key |= ascii_downcase) | . + "
    f"{{role: {_ROLE}, content: {_CONTENT}}} end"
)
_SPEAKER_AND_TEXT = (  # of Telegram, text has parts
    f'{{us: ({_WHO} | .role? // .name? // .id? // . | tostring == "ANSWERER"), '
    f'text: ({_CONTENT} | if type == "array" then map(.text? // .) | add else . end)}}'
)
_MESSAGES = "COLUMN | fromjson? // . | .[]"
_GROUP_CHAT_PROGRAM = (
    f'[{_MESSAGES} | {_SPEAKER_AND_TEXT} | select(.text | strings != "")] | reduce .[] as $one ([]; '
    r'if .[-1].us == $one.us then .[-1].text += "\n" + $one.text else . + [$one] end) | [., .[1:]] | transpose[] '
    "| select(.[1].us and (.[0].us | not)) | {prompt: .[0].text, completion: .[1].text}"
)
"""Makes rows of a group chat: the answerer's messages, each with the messages right before it."""
_PAIRS = f'type == "array" and length == 2 and (.[0] | tostring | ascii_downcase | {_is_in(ROLE_OF)})'
_ANSWER = "[.NAME, .completion, .answer, .response, .output, .reply, .choices[0]?.message?.content] | map(strings)[0]"

_CONTENTS = {
    "a number": ("tostring", "makes it of numbers"),
    "true or false": ("tostring", "makes it of true and false"),
    "a list": ('map(strings) | join("\\n")', "puts the texts of lists one below the other"),
    "an object": (".NAME", "takes what an object calls NAME"),
}
"""How content of one type becomes text: a jq expression, and what it does."""


def contents_step(kinds: Collection[str], column: str, file_format: str) -> str:
    """The step for contents that are not text; with a command if all of them have the same type."""
    known = _CONTENTS.get(next(iter(kinds))) if len(kinds) == 1 else None
    text = "Only text is learnt: write it as the content of messages"
    if known is None:
        return f"{text}."
    to_text = f'if type | IN("string", "null") then . else {known[0]} end'
    how = f'map(with_entries(if .key | IN("content", "value") then .value |= ({to_text}) else . end))'
    return by_command(f"{text}; HOW {known[1]}.", _changed(how))(column, file_format)


_TEXT_OF_CALLS = "write calls and what came of them as text: of the assistant, and of the user"

IF_ALL_ROWS: tuple[tuple[str, Step | None], ...] = (
    (OF_TOOLS, constant(f"Calls of tools are not learnt, and every row has some: {_TEXT_OF_CALLS}.")),
    (f"has reasoning{ONLY_TEXT}", None),
    (ONLY_TEXT, constant("Only text is learnt, and every row has something else in it: write what it shows as text.")),
    (NONE_LEARNT, by_command(
        "Every answer has a weight of 0: HOW takes the weights away, so that answers are learnt.",
        _changed("map(del(.weight, .train, .loss))"),
    )),
    (NEVER_ANSWERED, by_command(
        "No conversation has an answer: write it as its last message: HOW takes it from where NAME leads, or else a "
        "usual name, choices[0].message.content too.",
        f'COLUMN = (COLUMN | {_A_LIST}) + [{{role: "assistant", content: ({_ANSWER})}}]',
    )),
)  # fmt: skip
"""Steps if dropping the rows with a problem would leave none; None for a problem that can be fixed in place."""

_COLUMNS_PROGRAM = (
    'if all(.[]; type == "array" and all(.[]; type != "object")) then keys_unsorted as $names | [.[]] | transpose | '
    "map([$names, .] | transpose | map({key: .[0], value: .[1]}) | from_entries) else [.[]] | flatten(1) end"
)
"""jq: a list of an object's values, and of what lists among them hold; or of messages, if it has a list of all roles
and one of all texts, which is how datasets stores a Sequence."""
_GROUP_CHAT_STEP = by_command(
    "The file is one conversation, and not of user and assistant. With the name of who answers for ANSWERER HOW makes "
    "a row of each question and its answer.", _GROUP_CHAT_PROGRAM,
)  # fmt: skip
_PARTS_STEP = by_command(" HOW takes the parts out where each is a conversation of its own.", _MESSAGES)


def group_chat_step(problem: str, messages: Any, column: str, file_format: str) -> str | None:
    """The step for a file with a single row, if its messages have no roles, or more than two that are not known."""
    speakers = {str(one.get("role") or one.get("from")) for one in messages_in(messages) or () if is_message(one)}
    is_group = NO_ROLE in problem or (OTHER_ROLE in problem and len(speakers - ROLE_OF.keys()) > 2)
    parts = _PARTS_STEP(column, file_format) if file_format.startswith("JSON") else ""  # too long
    return _GROUP_CHAT_STEP(column, file_format) + parts if is_group else None


_COLUMN_STEPS = (
    (NO_LIST, "Write a list of messages: HOW makes one of the object's values, or of its columns.",
     _changed(_COLUMNS_PROGRAM)),
    (TEXT_NO_LIST, "Write messages as JSON once, and not as text within text: HOW takes them out.",
     'COLUMN |= until(type != "string"; fromjson)'),
    (NO_ANSWER, "HOW removes what follows the last answer, and rows without any.", _truncated_to(_IS_ANSWER)),
    (UNLEARNT_END, "HOW removes what follows the last answer that is learnt, and rows without any.",
     _truncated_to(f"({_IS_ANSWER}) and {_IS_LEARNT}")),
    (OF_TOOLS, f"Calls of tools are not learnt: HOW leaves such rows out; or {_TEXT_OF_CALLS}.",
     f"select(COLUMN | {_A_LIST} | all(.[]; ({_CALLS} or {_OF_TOOL}) | not))"),
    (f"has reasoning{ONLY_TEXT}", "HOW takes the parts with reasoning away; or write them into the text.",
     _changed('map(map_values(if type == "array" then map(select((type == "object" and '
              f"({_THOUGHTS})) | not)) else . end))")),
    (ONLY_TEXT, "Only text is learnt: HOW leaves such rows out; or write what they show as text.",
     f"select(COLUMN | {_A_LIST} | all({_PARTS}))"),
    *((what, "A message has its speaker as role and its text as content: HOW takes them by other usual names.",
       _changed(f"[.[] | {_BY_OTHER_NAMES}]")) for what in (NO_ROLE, TEXT_ELSEWHERE)),
    (OTHER_ROLE, "Who speaks is user or assistant: HOW writes it, with the file's own words for ASKER and ANSWERER.",
     _changed('map(.role = ((.role // .from) as $who | {"ASKER": "user", "ANSWERER": "assistant"}[$who | tostring] '
              "// $who) | del(.from))")),
    (NO_MESSAGE, "A message is an object with role and content: HOW makes them of pairs of role and text, or else of "
     "texts that take turns, the user's first.",
     _changed(f"if all(.[]; {_PAIRS}) then map({{role: .[0], content: .[1]}}) else flatten | "
              'if all(.[]; type == "object") then . else '
              '[to_entries[] | {role: ["user", "assistant"][.key % 2], content: .value}] end end')),
    (OTHER_WEIGHT, "An answer is learnt or not, and none in part: a weight is 0 or 1: HOW rounds them.",
     _changed('map(if has("weight") then .weight |= '
              '(if type | IN("number", "string") then tonumber | round else . end) else . end)')),
    (BESIDE_CONTENT, "Reasoning is learnt only if it is part of the content: write it there; or HOW removes it.",
     _changed("map(del(.reasoning_content, .reasoning, .thinking))")),
)  # fmt: skip
COLUMN_STEPS = tuple((what, by_command(text, program)) for what, text, program in _COLUMN_STEPS)
"""Steps by the words of a problem, each for a column."""
