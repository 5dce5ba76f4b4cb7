"""Conversations in one column as text with marks between the turns, recognized by the marks in the first row.

Training scripts without chat templates need that format. Here rows have no chat format of their own, so a command
turns the texts back into messages.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from finetune_trainer.data.fixes.column_names import may_be_shown
from finetune_trainer.data.fixes.jq import by_jq, field

_OURS = "Assistant|ASSISTANT|AI|Bot|Response|Answer|A"
_THEIRS = "Human|User|HUMAN|USER|Instruction|Question|Q"
_ENDS = r"<\\|im_end\\|>|<\\|eot_id\\|>|<end_of_turn>|<\\|end\\|>|</s>|(?=<\\|\\w+\\|>\\n)|$"
_LONG = 100_000
"""Maximum characters of a text to inspect."""

_OF_INST = (
    r'capture("\\[INST\\]\\s*(<<SYS>>\\s*(?<system>(?s:.*?))\\s*<</SYS>>\\s*)?(?<user>(?s:.*?))\\s*\\[/INST\\]\\s*'
    r'(?<assistant>(?s:.*?))\\s*(?=</s>|\\[INST\\]|$)"; "g") | to_entries[] | select(.value) '
    "| {role: .key, content: .value}"
)
_OF_TAGS = (
    r'capture("(<\\|im_start\\|>|<\\|start_header_id\\|>|<start_of_turn>|<\\|(?=\\w+\\|>\\n))(?<role>\\w+)'
    rf'(<\\|end_header_id\\|>|\\|>)?\\s*(?<content>(?s:.*?))\\s*({_ENDS})"; "g")'
)
_WHO = f'.role |= if test("^({_OURS})$") then "assistant" else "user" end'
_OF_HEADINGS = (
    rf'capture("#+ *(?<role>{_THEIRS}|{_OURS}):\\s*(?<content>(?s:.*?))\\s*(?=#+ *({_THEIRS}|{_OURS}):|$)"; "g") '
    rf'| {_WHO} | .content |= gsub("#+ *Input:\\s*"; "")'
)
_OF_NAMES = (
    rf'"\n" + . | capture("\\n(?<role>{_THEIRS}|{_OURS}): *(?<content>(?s:.*?))\\s*(?=\\n({_THEIRS}|{_OURS}):|$)"; '
    rf'"g") | {_WHO}'
)


class _Format(NamedTuple):
    """Marks of a conversation format: a text must have that of a question and, if required, that of an answer after it.

    The two are searched one after the other, so that a text is scanned only once: a pattern of both would start over at
    each question of a text without answers.
    """

    question: re.Pattern[str]
    answer: re.Pattern[str]
    marks: str
    """Their name in messages."""
    program: str
    """The jq program that turns a text into messages."""

    def is_of(self, text: str) -> bool:
        """Whether the text has the marks."""
        asked = self.question.search(text)
        return asked is not None and self.answer.search(text, asked.end()) is not None


_ANYTHING = re.compile("")
_FORMATS = (
    _Format(re.compile(r"\[INST\]"), re.compile(r"\[/INST\]"), "[INST]", _OF_INST),
    _Format(re.compile(r"<\|im_start\|>\w"), _ANYTHING, "<|im_start|>", _OF_TAGS),
    _Format(re.compile(r"<\|start_header_id\|>\w"), _ANYTHING, "<|start_header_id|>", _OF_TAGS),
    _Format(re.compile(r"<start_of_turn>\w"), _ANYTHING, "<start_of_turn>", _OF_TAGS),
    _Format(re.compile(r"<\|assistant\|>\n"), _ANYTHING, "<|assistant|>", _OF_TAGS),
    _Format(re.compile(rf"(?<!#)#++ *+({_THEIRS}):"), re.compile(rf"# *+({_OURS}):"), "###", _OF_HEADINGS),
    _Format(
        re.compile(rf"\A\s*+({_THEIRS}):"),
        re.compile(rf"\n({_OURS}):"),
        "names such as User: and Assistant:",
        _OF_NAMES,
    ),
)


class Marked(NamedTuple):
    """A column that holds whole conversations as text."""

    column: str
    marks: str
    """Their name in messages."""
    program: str
    """The jq program that turns a text into messages."""

    @property
    def said(self) -> str:
        """What was found, for messages."""
        return f"column {self.column} holds conversations as text, marked by {self.marks}"

    def step(self, file_format: str) -> str:
        """The next step."""
        how = by_jq(file_format, f"{{messages: [{field(self.column)} | {self.program}]}}")
        return f"Write messages, and no marks: `{how}` makes them of such texts."


def marked(fields: Mapping[str, Any]) -> Marked | None:
    """The column of a row that holds a conversation as text; None if there is none."""
    texts = ((name, text[:_LONG]) for name, text in fields.items() if isinstance(text, str) and may_be_shown(name))
    found = ((name, one) for name, text in texts for one in _FORMATS if one.is_of(text))
    return next((Marked(name, one.marks, one.program) for name, one in found), None)


def in_chat_format(texts: Iterable[str]) -> str | None:
    """The marks of a chat format in one of some texts; None if there are none."""
    return next((marks for text in texts for pattern, marks in _OF_MODELS if pattern.search(text[:_LONG])), None)


_OF_MODELS = (
    (re.compile(r"\[/?INST\]"), "[INST]"),
    *((re.compile(re.escape(mark)), mark) for mark in ("<|im_start|>", "<|start_header_id|>", "<start_of_turn>")),
    *((re.compile(rf"{re.escape(mark)}\s*\Z"), mark) for mark in ("<|endoftext|>", "</s>")),
    (re.compile(r"\n(#++ *Response|Assistant|ASSISTANT|AI|Bot):\s*\Z"), "Assistant: after its question"),
)
"""Marks that chat templates write themselves."""
