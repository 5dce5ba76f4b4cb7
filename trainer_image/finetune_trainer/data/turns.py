"""Values of a record → text and turns, or what is wrong with them. Never quotes a row; knows no layout of rows.

Text may be a list of parts, as OpenAI and Bedrock have it: `[{"type": "text", "text": "..."}]`. A message may be
ShareGPT's: `{"from": "human", "value": "..."}`, or Gemini's: `{"role": "model", "parts": [{"text": "..."}]}`.
"""

import re
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from operator import itemgetter
from typing import Any

import msgspec

from finetune_api.verdict import ProblemKind
from finetune_trainer.data.files.duplicate_keys import are_told_apart
from finetune_trainer.data.rows import ROLES, Role, Turn

_SEEN = frozenset(map(chr, range(ord("!"), ord("~") + 1)))
"""Letters, digits and marks of ASCII."""
_first = itemgetter(0)

MESSAGES_LIMIT = 256
"""Most messages of one conversation: each answer in it is tokenised with all that comes before."""

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
"""Beginning of a list of messages, or of pairs, as str writes it, and ClickHouse."""
_STRUCTS = re.compile(rf"\s*\[\s*\{{(\W?(role|from)\W{{1,3}})?{_SPEAKERS},")
"""Beginning of a list of messages as databases show structs: with names before the values, or without."""
_TEXT_FIRST = re.compile(rf"(?s)\s*\[\s*\{{.*\W(role|from)\W{{1,3}}{_SPEAKERS}\}}")
"""The same where the speaker stands behind the text: nothing tells where that ends."""
AS_STRUCTS = "is a list as databases show structs, not JSON"
"""Problem of messages that a query has made text of."""
NO_JSON = "is not a list of messages, nor one written as JSON (json.dumps writes it)"
"""Problem of other text where messages should be."""
AS_PYTHON_WRITES = "is a list as Python's str writes it, not JSON"
"""Problem of messages that str or a table of pandas has made text of."""
NO_ANSWER = "the last message is not the assistant's"
"""Of conversations that do not end with an answer, and of those that have none."""
NEVER_ANSWERED = f"{NO_ANSWER}, nor is any before it"
OF_TOOLS = ", which cannot be learnt"
"""End of what is said of messages that call tools, and of those of tools."""
UNLEARNT_END = ", but the last answer is always learnt"
"""Of what is said of conversations whose last answer is not to be learnt."""
NONE_LEARNT = ", or the row"
"""End of the same where no answer is to be learnt."""
A_MAP = "a map of Parquet"
"""What pairs of names and values are that stand for an object."""
VISIBLE = re.compile(
    r"[^\s\x00-\x1f\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Text has something in it where one character is neither white space, nor a control, nor shown as nothing at all."""

ROLE_OF: dict[Any, Role] = {
    "system": "system", "user": "user", "assistant": "assistant",
    "developer": "system", "human": "user", "prompter": "user",
    "gpt": "assistant", "model": "assistant", "chatbot": "assistant", "bot": "assistant", "ai": "assistant",
    "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
}  # fmt: skip
"""Who speaks, by every word for it: OpenAI's later one for system, and those of ShareGPT, Gemini, Cohere and others."""
TOOLS = frozenset({"tool", "function", "function_call", "tool_call", "observation", "tool_response", "ipython"})
"""Who speaks where tools are called, and where they answer."""
_ROLES, _CONTENTS = ("role", "from"), ("content", "value", "parts")
"""What a message has its speaker and its text by: one of each, or several that say the same."""
_REASONING = ("reasoning_content", "reasoning", "thinking")
"""What some chat templates put before an answer, and others leave out."""
_ELSEWHERE = frozenset({"text", "message", "content", "value", "utterance", "body"})
"""What others call the text of a message, in lower case."""
_WEIGHTS = ("weight", "train", "loss")
"""What says whether an answer is learnt: OpenAI's and Mistral's word, Axolotl's, and ms-swift's."""
_TEXT_PARTS = (None, "text", "input_text", "output_text")
_OTHER_PARTS = (
    ("tool", "a tool's call or answer"), ("function", "a tool's call or answer"),
    ("thinking", "reasoning"), ("reasoning", "reasoning"), ("thought", "reasoning"),
    ("image", "an image"), ("audio", "audio"), ("video", "a video"), ("file", "a file"),
)  # fmt: skip
ONLY_TEXT = " in it: only text can be learnt"
"""End of what is said of content with parts that are none of text."""
NO_ROLE = "has no role"
"""End of what is said of messages whose speaker stands by no name that is known."""
OTHER_ROLE = "has a role other than"
"""Within what is said of messages whose speaker is called by no word that is known."""
NO_LIST = "is not a list of messages, but an object"
"""End of what is said of conversations that are one object."""
NO_MESSAGE = "is not an object with role and content"
"""End of what is said of what stands where a message should."""
OTHER_WEIGHT = "other than 0 and 1, or false and true"
"""End of what is said of weights that say neither yes nor no."""
BESIDE_CONTENT = " beside its content: write it into the content, or remove it"
"""End of what is said of messages with reasoning in a field of its own."""
TEXT_ELSEWHERE = "has its text by another name than content"
"""End of what is said of messages without content, but with what others call so."""


class UnusableError(Exception):
    """A value that cannot be used: of which kind, in words, and the column."""

    def __init__(self, kind: ProblemKind, what: str, field: str) -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.field = field


def text(value: Any, what: str, column: str) -> str:
    """The value, where it is text with something in it; `what` is what messages call it."""
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
    """Whether it is an object as Parquet's maps have it: a list of pairs."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, tuple) for one in value)


def _joined(value: Any, what: str, column: str) -> Any:
    """The text of a list of parts, one under the other, as our servers read it; any other value as it is."""
    if isinstance(value, dict) and isinstance(value.get("parts"), list):
        value = value["parts"]
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        return value
    return "\n".join(_text_of(part, what, column) for part in value)


def _text_of(part: dict[str, Any], what: str, column: str) -> str:
    kind, said = part.get("type"), part.get("text")
    if kind == "text" and said is None:
        said = part.get("content")  # as OpenTelemetry has it
    if kind in _TEXT_PARTS and isinstance(said, str) and not part.get("thought"):
        return said
    held = kind if isinstance(kind, str) else " ".join(name for name, inside in part.items() if inside is not None)
    if held in _TEXT_PARTS:
        raise UnusableError("NotText", f"{what} has a part of type text without text", column)
    other = next((words for mark, words in _OTHER_PARTS if mark in held), "something other than text")
    raise UnusableError("NotText", f"{what} has {other}{ONLY_TEXT}", column)


def is_blank(value: Any) -> bool:
    """Whether there is nothing, or text without anything to see."""
    return value is None or (isinstance(value, str) and VISIBLE.search(value) is None)


def are_text(values: Sequence[Any]) -> bool:
    """Whether each is text with something in it."""
    return put_together(values) is not None


def put_together(values: Sequence[Any]) -> str | None:
    """All of them as one text; None where one is no text, or has nothing in it. With the first look that is soon told.

    Of those that begin with white space only the first look is lost.
    """
    try:
        whole = "".join(values)  # what is no text cannot be put together
        if not _SEEN.issuperset(map(_first, values)):
            others = [value for value in values if value[0] not in _SEEN]
            if not _SEEN.issuperset(map(_first, map(str.lstrip, others))) and None in map(VISIBLE.search, others):
                return None
    except (TypeError, IndexError):  # no text, or text without a first character
        return None
    return whole


def called(what: str, column: str) -> str:
    """What messages call a column's value."""
    return what if what == column else f"{what} (column {column})"


def conversation(messages: Any, column: str) -> tuple[tuple[Turn, ...], tuple[int, ...]]:
    """The turns of a list of messages that ends with the assistant's, and which of them are not to be learnt.

    The list may be written as JSON, in a column that holds text: a conversation cannot be anything else.

    Raises:
        UnusableError: it is none.
    """
    if isinstance(messages, str):
        messages = _decoded(messages, column)
    turns = listed(messages, "messages", column)
    require_answer(turns, column)
    return turns, unlearnt(messages, column)


def messages_in(value: Any) -> list[Any] | None:
    """A list with messages, written as JSON perhaps; nothing where it is none."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return None
    return value if isinstance(value, list) and any(map(is_message, value)) else None


def _decoded(messages: str, column: str) -> Any:
    if is_blank(messages):
        raise UnusableError("Empty", f"{called('messages', column)} is empty", column)
    try:
        found = msgspec.json.decode(messages)
    except (msgspec.DecodeError, RecursionError):
        known = ((_STRUCTS, AS_STRUCTS), (_TEXT_FIRST, NO_JSON), (PYTHONS_LIST, AS_PYTHON_WRITES))
        why = next((words for begins, words in known if begins.match(messages)), NO_JSON)
        raise UnusableError("Malformed", f"{called('messages', column)} {why}", column) from None
    if not are_told_apart(messages.encode(), [found]):
        what = f"{called('messages', column)} has a name twice in one object: write it once"
        raise UnusableError("Malformed", what, column)
    return found


def unlearnt(messages: Sequence[dict[str, Any]], column: str) -> tuple[int, ...]:
    """Which turns of a list of messages have a weight of 0, by any word for it: answers that are not to be learnt.

    Raises:
        UnusableError: a weight is something else than 0 and 1, or the last answer's is 0.
    """
    if all(_weight(message)[1] == 1 for message in messages):
        return ()
    found = list[int]()
    kept = (one for one in enumerate(messages, 1) if _turn(one[1], one[0], column))
    for place, (index, message) in enumerate(kept):
        name, weight = _weight(message)
        if weight == 1 or _said(message, _ROLES, _as_role, index, column) != "assistant":
            continue  # of others it says nothing: they are never learnt
        if weight != 0:
            what = f"message {index} has a {name} {OTHER_WEIGHT}"
            raise UnusableError("Malformed", what, column)
        if index == len(messages):
            said = "false" if weight is False else "0"
            others = sum(_said(one, _ROLES, _as_role, 0, column) == "assistant" for one in messages) - 1
            rest = ", or what follows the last one that is learnt" if others > len(found) else NONE_LEARNT
            what = f"message {index} has {name} {said}{UNLEARNT_END}: remove {name}{rest}"
            raise UnusableError("Malformed", what, column)
        found.append(place)
    return tuple(found)


def _weight(message: dict[str, Any]) -> tuple[str, Any]:
    """By which name a message says how much it is learnt, and what it says: the least where it does so twice."""
    said = [(name, message[name]) for name in _WEIGHTS if message.get(name) is not None]
    return next((one for one in said if one[1] != 1), ("", 1))


def listed(messages: Any, what: str, column: str) -> tuple[Turn, ...]:
    """The turns of a list of messages; `what` is what messages of ours call it.

    Raises:
        UnusableError: it is none.
    """
    if messages is None:
        raise UnusableError("Missing", f"{called(what, column)} is missing", column)
    if not isinstance(messages, list):
        said = NO_LIST if isinstance(messages, dict) else "is not a list of messages"
        raise UnusableError("Malformed", f"{called(what, column)} {said}", column)
    if not messages:
        raise UnusableError("Empty", f"{called(what, column)} is empty", column)
    if len(messages) > MESSAGES_LIMIT:
        raise UnusableError("Malformed", f"more than {MESSAGES_LIMIT} messages in one row", column)
    return tuple(turn for index, message in enumerate(messages, 1) if (turn := _turn(message, index, column)))


def _turn(message: Any, index: int, column: str) -> Turn | None:
    """One message; None for a system message without text."""
    if not isinstance(message, dict):
        said = f"is {A_MAP}, not an object with role and content" if _is_map(message) else NO_MESSAGE
        raise UnusableError("Malformed", f"message {index} {said}", column)
    role, what = _said(message, _ROLES, _as_role, index, column), f"content of message {index}"
    if role is None:
        raise UnusableError("Malformed", f"message {index} {NO_ROLE}", column)
    if role in TOOLS:
        raise UnusableError("Malformed", f"message {index} is a tool's{OF_TOOLS}", column)
    if role not in ROLES:
        raise UnusableError("Malformed", f"message {index} {OTHER_ROLE} {', '.join(ROLES)}", column)
    content = _said(message, _CONTENTS, lambda said: _joined(said, what, column), index, column)
    if role == "system" and is_blank(content):
        return None
    if message.get("tool_calls") or message.get("function_call"):
        raise UnusableError("Malformed", f"message {index} calls a tool{OF_TOOLS}", column)
    if reasoning := next((name for name in _REASONING if not is_blank(message.get(name))), None):
        raise UnusableError("Malformed", f"message {index} has {reasoning}{BESIDE_CONTENT}", column)
    if content is None and any(name.lower() in _ELSEWHERE and name not in _CONTENTS for name in message):
        raise UnusableError("Missing", f"message {index} {TEXT_ELSEWHERE}", column)
    return Turn(role, text(content, what, column))


def is_message(value: Any) -> bool:
    """Whether it is an object that somebody says: no part of a text."""
    return isinstance(value, dict) and ("role" in value or "from" in value)


def _said(message: dict[str, Any], names: Sequence[str], read: Callable[[Any], Any], index: int, column: str) -> Any:
    """What the message has by one of the names, None where by none.

    Raises:
        UnusableError: it has something else by another of them, which would be left out unsaid.
    """
    there = [name for name in names if message.get(name) is not None]
    found = [read(message[name]) for name in there]
    if any(other != found[0] for other in found):
        what = f"message {index} has {' and '.join(there)}, which say different things: leave one of them out"
        raise UnusableError("Malformed", what, column)
    return found[0] if found else None


def _as_role(said: Any) -> str:
    """The role by its own word; none that is known for what is no text."""
    return ROLE_OF.get(said.strip().lower(), said) if isinstance(said, str) else ""


def after_system(turns: tuple[Turn, ...], system: Any, column: str) -> tuple[Turn, ...]:
    """The turns behind the message of a system column, where there is something in it.

    Raises:
        UnusableError: it is no text, or another message than the one with which they begin already.
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
