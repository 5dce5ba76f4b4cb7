"""Values of a record → text and turns, or what is wrong with them. Never quotes a row; knows no row layouts.

Text may be a list of content parts, as in OpenAI's and Bedrock's APIs: `[{"type": "text", "text": "..."}]`. A message
may be ShareGPT's: `{"from": "human", "value": "..."}`, or Gemini's: `{"role": "model", "parts": [{"text": "..."}]}`.
"""

import re
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from operator import itemgetter
from typing import Any

import msgspec

from finetune_api.verdict import ProblemKind
from finetune_trainer.data.files.duplicate_keys import has_unique_names
from finetune_trainer.data.rows import ROLES, Role, Turn

_VISIBLE_ASCII = frozenset(map(chr, range(ord("!"), ord("~") + 1)))
"""ASCII letters, digits and punctuation."""
_first_character = itemgetter(0)

MESSAGES_LIMIT = 256
"""Maximum messages of one conversation: each answer in it is tokenized with everything before it."""

_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    Decimal: "a number",
    list: "a list",
    dict: "an object",
    bytes: "bytes",
    datetime: "a time",
    date: "a date",
    time: "a time of day",
    timedelta: "a duration",
}
_SPEAKERS = "(system|user|assistant|human|gpt)"
PYTHONS_LIST = re.compile(rf"\s*\[\s*(\{{\s*'(role|from|content|value)'|\(\s*'{_SPEAKERS}',)")
"""Start of a list of messages, or of pairs, as written by Python's str and by ClickHouse."""
_STRUCTS = re.compile(rf"\s*\[\s*\{{(\W?(role|from)\W{{1,3}})?{_SPEAKERS},")
"""Start of a list of messages in a database's struct notation: with field names before the values, or without."""
_TEXT_FIRST = re.compile(rf"(?s)\s*\[\s*\{{.*\W(role|from)\W{{1,3}}{_SPEAKERS}\}}")
"""The same with the speaker after the text, which cannot be parsed: nothing marks where the text ends."""
AS_STRUCTS = "is a list as databases show structs, not JSON"
"""Problem of messages that a query turned into text."""
NO_JSON = "is not a list of messages, nor one written as JSON (json.dumps writes it)"
"""Problem of other text in place of messages."""
AS_PYTHON_WRITES = "is a list as Python's str writes it, not JSON"
"""Problem of messages that Python's str or a pandas table turned into text."""
NO_ANSWER = "the last message is not the assistant's"
"""Problem of conversations that do not end with an answer; also the start of NEVER_ANSWERED."""
NEVER_ANSWERED = f"{NO_ANSWER}, nor is any before it"
OF_TOOLS = ", which cannot be learnt"
"""End of the problem of messages that call tools or come from tools."""
UNLEARNT_END = ", but the last answer is always learnt"
"""Part of the problem of conversations whose last answer has a weight of 0."""
NONE_LEARNT = ", or the row"
"""End of the same problem if no answer has loss."""
A_MAP = "a map of Parquet"
"""Name for a list of pairs that stands for an object."""
VISIBLE = re.compile(
    r"[^\s\x00-\x1f\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Matches a visible character: not white space, not a control character and not rendered as nothing."""

ROLE_OF: dict[Any, Role] = {
    "system": "system", "user": "user", "assistant": "assistant",
    "developer": "system", "human": "user", "prompter": "user",
    "gpt": "assistant", "model": "assistant", "chatbot": "assistant", "bot": "assistant", "ai": "assistant",
    "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
}  # fmt: skip
"""Role by name: OpenAI's newer name for system, and the names of ShareGPT, Gemini, Cohere and others."""
TOOLS = frozenset({"tool", "function", "function_call", "tool_call", "observation", "tool_response", "ipython"})
"""Roles of tool calls and tool results."""
_ROLES, _CONTENTS = ("role", "from"), ("content", "value", "parts")
"""Field names for the role and for the text of a message. Several may be present if they say the same."""
_REASONING = ("reasoning_content", "reasoning", "thinking")
"""Fields that some chat templates write before an answer, and others ignore."""
_OTHER_TEXT_FIELDS = frozenset({"text", "message", "content", "value", "utterance", "body"})
"""Other field names for the text of a message, in lower case."""
_WEIGHTS = ("weight", "train", "loss")
"""Fields that tell whether an answer carries loss: of OpenAI and Mistral, of Axolotl, of ms-swift."""
_TEXT_PARTS = (None, "text", "input_text", "output_text")
_OTHER_PARTS = (
    ("tool", "a tool's call or answer"), ("function", "a tool's call or answer"),
    ("thinking", "reasoning"), ("reasoning", "reasoning"), ("thought", "reasoning"),
    ("image", "an image"), ("audio", "audio"), ("video", "a video"), ("file", "a file"),
)  # fmt: skip
ONLY_TEXT = " in it: only text can be learnt"
"""End of the problem of content with parts other than text."""
NO_ROLE = "has no role"
"""End of the problem of messages without a role under a known name."""
OTHER_ROLE = "has a role other than"
"""Part of the problem of messages with an unknown role."""
NO_LIST = "is not a list of messages, but an object"
"""End of the problem of a conversation that is a single object."""
TEXT_NO_LIST = "is not a list of messages, but text"
"""End of the problem of a conversation that is JSON text within JSON text."""
NO_MESSAGE = "is not an object with role and content"
"""End of the problem of a list element that is not a message."""
OTHER_WEIGHT = "other than 0 and 1, or false and true"
"""End of the problem of weights that are neither 0 nor 1."""
BESIDE_CONTENT = " beside its content: write it into the content, or remove it"
"""End of the problem of messages with reasoning in a separate field."""
TEXT_ELSEWHERE = "has its text by another name than content"
"""End of the problem of messages whose text is in a field with another name."""


class UnusableError(Exception):
    """A value that cannot be used: the kind of problem, the problem in words, and the column."""

    def __init__(self, kind: ProblemKind, what: str, field: str) -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.field = field


def text(value: Any, what: str, column: str) -> str:
    """The value if it is text that is not blank; `what` is its name in messages."""
    value = _joined(value, what, column)
    if value is None:
        raise UnusableError("Missing", f"{what} is missing", column)
    if not isinstance(value, str):
        kind = A_MAP if _is_map(value) else _KINDS.get(type(value), "of another type")
        raise UnusableError("NotText", f"{what} is {kind}, not text", column)
    if is_blank(value):
        raise UnusableError("Empty", f"{what} is empty", column)
    return value


def _is_map(value: Any) -> bool:
    """Whether it is a Parquet map: a list of pairs."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, tuple) for one in value)


def _joined(value: Any, what: str, column: str) -> Any:
    """The text of a list of content parts, joined by line breaks as our servers do; any other value unchanged."""
    if isinstance(value, dict) and isinstance(value.get("parts"), list):
        value = value["parts"]
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        return value
    return "\n".join(_text_of(part, what, column) for part in value)


def _text_of(part: dict[str, Any], what: str, column: str) -> str:
    kind, value = part.get("type"), part.get("text")
    if kind == "text" and isinstance(other := part.get("content"), str):  # OpenTelemetry's name for it
        if value and other and value != other:
            raise UnusableError("Malformed", f"{what} has a part of type text that says two different things", column)
        value = value or other
    if kind in _TEXT_PARTS and isinstance(value, str) and not part.get("thought"):
        return value
    held = kind if isinstance(kind, str) else " ".join(name for name, inside in part.items() if inside is not None)
    if held in _TEXT_PARTS:
        raise UnusableError("NotText", f"{what} has a part of type text without text", column)
    other = next((words for mark, words in _OTHER_PARTS if mark in held), "something other than text")
    raise UnusableError("NotText", f"{what} has {other}{ONLY_TEXT}", column)


def is_blank(value: Any) -> bool:
    """Whether there is no value, or text without a visible character."""
    return value is None or (isinstance(value, str) and VISIBLE.search(value) is None)


def are_text(values: Sequence[Any]) -> bool:
    """Whether each is text that is not blank."""
    return joined_text(values) is not None


def joined_text(values: Sequence[Any]) -> str | None:
    """All values as one text; None if one of them is not text or is blank.

    Fast, because texts mostly start with a visible ASCII character, possibly after white space; others are searched.
    """
    try:
        whole = "".join(values)  # fails unless all are text
        if not _VISIBLE_ASCII.issuperset(map(_first_character, values)):
            others = [value for value in values if value[0] not in _VISIBLE_ASCII]
            if not _VISIBLE_ASCII.issuperset(map(_first_character, map(str.lstrip, others))) and None in map(
                VISIBLE.search, others
            ):
                return None
    except (TypeError, IndexError):  # not text, or empty text
        return None
    return whole


def called(what: str, column: str) -> str:
    """The name of a column's value in messages."""
    return what if what == column else f"{what} (column {column})"


def conversation(messages: Any, column: str) -> tuple[tuple[Turn, ...], tuple[int, ...]]:
    """The turns of a list of messages that ends with the assistant's, and which of them carry no loss.

    In a column of text the list may be written as JSON: text cannot be a conversation otherwise.

    Raises:
        UnusableError: it is not such a list.
    """
    if isinstance(messages, str):
        messages = _from_json(messages, column)
    turns = listed(messages, "messages", column)
    require_answer(turns, column)
    return turns, unlearnt(messages, column)


def messages_in(value: Any) -> list[Any] | None:
    """The list of messages in a value, which may be JSON text; None if it has none."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return None
    return value if isinstance(value, list) and any(map(is_message, value)) else None


def _from_json(messages: str, column: str) -> Any:
    if is_blank(messages):
        raise UnusableError("Empty", f"{called('messages', column)} is empty", column)
    try:
        found = msgspec.json.decode(messages)
    except (msgspec.DecodeError, RecursionError):
        known = ((_STRUCTS, AS_STRUCTS), (_TEXT_FIRST, NO_JSON), (PYTHONS_LIST, AS_PYTHON_WRITES))
        why = next((words for begins, words in known if begins.match(messages)), NO_JSON)
        raise UnusableError("Malformed", f"{called('messages', column)} {why}", column) from None
    if not has_unique_names(messages.encode(), [found]):
        what = f"{called('messages', column)} has a name twice in one object: write it once"
        raise UnusableError("Malformed", what, column)
    return found


def unlearnt(messages: Sequence[dict[str, Any]], column: str) -> tuple[int, ...]:
    """Indices of the turns that have a weight of 0, under any name for it: answers without loss.

    Raises:
        UnusableError: a weight is neither 0 nor 1, or the last answer's is 0.
    """
    if all(_weight(message)[1] == 1 for message in messages):
        return ()
    found = list[int]()
    kept = (one for one in enumerate(messages, 1) if _turn(one[1], one[0], column))
    for place, (index, message) in enumerate(kept):
        name, weight = _weight(message)
        if weight == 1 or _value(message, _ROLES, _as_role, index, column) != "assistant":
            continue  # weights of other roles are ignored: they never carry loss
        if weight != 0:
            what = f"message {index} has a {name} {OTHER_WEIGHT}"
            raise UnusableError("Malformed", what, column)
        if index == len(messages):
            shown = "false" if weight is False else "0"
            others = sum(_value(one, _ROLES, _as_role, 0, column) == "assistant" for one in messages) - 1
            rest = ", or what follows the last one that is learnt" if others > len(found) else NONE_LEARNT
            what = f"message {index} has {name} {shown}{UNLEARNT_END}: remove {name}{rest}"
            raise UnusableError("Malformed", what, column)
        found.append(place)
    return tuple(found)


def _weight(message: dict[str, Any]) -> tuple[str, Any]:
    """Name and value of a message's weight. If it has several, the first that is not 1."""
    weights = [(name, message[name]) for name in _WEIGHTS if message.get(name) is not None]
    return next((one for one in weights if one[1] != 1), ("", 1))


def listed(messages: Any, what: str, column: str) -> tuple[Turn, ...]:
    """The turns of a list of messages; `what` is its name in messages to users.

    Raises:
        UnusableError: it is not such a list.
    """
    if messages is None:
        raise UnusableError("Missing", f"{called(what, column)} is missing", column)
    if not isinstance(messages, list):
        known: dict[type, str] = {dict: NO_LIST, str: TEXT_NO_LIST}
        problem = known.get(type(messages), "is not a list of messages")
        raise UnusableError("Malformed", f"{called(what, column)} {problem}", column)
    if not messages:
        raise UnusableError("Empty", f"{called(what, column)} is empty", column)
    if len(messages) > MESSAGES_LIMIT:
        raise UnusableError("Malformed", f"more than {MESSAGES_LIMIT} messages in one row", column)
    return tuple(turn for index, message in enumerate(messages, 1) if (turn := _turn(message, index, column)))


def _turn(message: Any, index: int, column: str) -> Turn | None:
    """One message; None for a system message without text."""
    if not isinstance(message, dict):
        problem = f"is {A_MAP}, not an object with role and content" if _is_map(message) else NO_MESSAGE
        raise UnusableError("Malformed", f"message {index} {problem}", column)
    role, what = _value(message, _ROLES, _as_role, index, column), f"content of message {index}"
    if role is None:
        raise UnusableError("Malformed", f"message {index} {NO_ROLE}", column)
    if role in TOOLS:
        raise UnusableError("Malformed", f"message {index} is a tool's{OF_TOOLS}", column)
    if role not in ROLES:
        raise UnusableError("Malformed", f"message {index} {OTHER_ROLE} {', '.join(ROLES)}", column)
    content = _value(message, _CONTENTS, lambda value: _joined(value, what, column), index, column)
    if role == "system" and is_blank(content):
        return None
    if message.get("tool_calls") or message.get("function_call"):
        raise UnusableError("Malformed", f"message {index} calls a tool{OF_TOOLS}", column)
    if reasoning := next((name for name in _REASONING if not is_blank(message.get(name))), None):
        raise UnusableError("Malformed", f"message {index} has {reasoning}{BESIDE_CONTENT}", column)
    if content is None and any(name.lower() in _OTHER_TEXT_FIELDS and name not in _CONTENTS for name in message):
        raise UnusableError("Missing", f"message {index} {TEXT_ELSEWHERE}", column)
    return Turn(role, text(content, what, column))


def is_message(value: Any) -> bool:
    """Whether it is an object with a role, as opposed to a content part."""
    return isinstance(value, dict) and ("role" in value or "from" in value)


def _value(message: dict[str, Any], names: Sequence[str], read: Callable[[Any], Any], index: int, column: str) -> Any:
    """The message's value under any of the names; None if it has none of them.

    Raises:
        UnusableError: it has different values under two of the names: one of them would silently be dropped.
    """
    there = [name for name in names if message.get(name) is not None]
    found = [read(message[name]) for name in there]
    if any(other != found[0] for other in found):
        what = f"message {index} has {' and '.join(there)}, which say different things: leave one of them out"
        raise UnusableError("Malformed", what, column)
    return found[0] if found else None


def _as_role(value: Any) -> str:
    """The canonical role; unknown names are returned as they are, and "" if it is not text."""
    return ROLE_OF.get(value.strip().lower(), value) if isinstance(value, str) else ""


def with_system(turns: tuple[Turn, ...], system: Any, column: str) -> tuple[Turn, ...]:
    """The turns, preceded by the message of the system column unless that is blank.

    Raises:
        UnusableError: it is not text, or differs from the system message that the turns already have.
    """
    system = _joined(system, called("system", column), column)
    if is_blank(system):
        return turns
    first = Turn("system", text(system, called("system", column), column))
    if not turns or turns[0].role != "system":
        return (first, *turns)
    if turns[0] != first:
        what = f"{called('system', column)} is another one than that of the conversation"
        raise UnusableError("Malformed", what, column)
    return turns


def require_answer(turns: Sequence[Turn], column: str) -> None:
    """Refuse a conversation that does not end with the assistant's answer to a user.

    Raises:
        UnusableError: NoCompletion, Missing.
    """
    if not turns or turns[-1].role != "assistant":
        is_any = any(turn.role == "assistant" for turn in turns)
        raise UnusableError("NoCompletion", f"{NO_ANSWER if is_any else NEVER_ANSWERED}: nothing to learn", column)
    if all(turn.role != "user" for turn in turns):
        raise UnusableError("Missing", "no message of the user before the answer", column)
