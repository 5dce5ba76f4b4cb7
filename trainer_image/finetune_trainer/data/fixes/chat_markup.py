"""Conversations in one column as text with marks between the turns, recognized by the marks in the first row.

Training scripts without chat templates need that format. Here rows have no chat format of their own, so a command
turns the texts back into messages.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from finetune_trainer.data.fixes.column_names import may_be_shown
from finetune_trainer.data.fixes.jq import field, jq_rows

_BOTS = "Assistant|ASSISTANT|AI|Bot|Response|Answer|A"
_USERS = "Human|User|HUMAN|USER|Instruction|Question|Q"
_ENDS = r"<\\|(im_end|eot_id|eot|end_of_text)\\|>|<end_of_turn>|<\\|end\\|>|</s>|(?=<\\|\\w+\\|>\\n)|$"
_MAX_INSPECTED = 100_000
"""Maximum characters of a text to inspect."""

_INST_PROGRAM = (
    r'capture("\\[INST\\]\\s*(<<SYS>>\\s*(?<system>(?s:.*?))\\s*<</SYS>>\\s*)?(?<user>(?s:.*?))\\s*\\[/INST\\]\\s*'
    r'(?<assistant>(?s:.*?))\\s*(?=</s>|\\[INST\\]|$)"; "g") | to_entries[] | select(.value) '
    "| {role: .key, content: .value}"
)
_TAGS_PROGRAM = (
    r'capture("(<\\|(im_start|start_header_id|header_start|start_of_role)\\|>|<start_of_turn>|<\\|(?=\\w+\\|>\\n))'
    rf'(?<role>\\w+)(<\\|(end_header_id|header_end|end_of_role)\\|>|\\|>)?\\s*(?<content>(?s:.*?))\\s*({_ENDS})"; "g")'
)
_WHO = f'.role |= if test("^({_BOTS})$") then "assistant" else "user" end'
_HEADINGS_PROGRAM = (
    rf'capture("#+ *(?<role>{_USERS}|{_BOTS}):\\s*(?<content>(?s:.*?))\\s*(?=#+ *({_USERS}|{_BOTS}):|$)"; "g") '
    rf'| {_WHO} | .content |= gsub("#+ *Input:\\s*"; "")'
)
_NAMES_PROGRAM = (
    rf'"\n" + . | capture("\\n(?<role>{_USERS}|{_BOTS}): *(?<content>(?s:.*?))\\s*(?=\\n({_USERS}|{_BOTS}):|$)"; '
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

    def matches(self, text: str) -> bool:
        """Whether the text has the marks."""
        question_found = self.question.search(text)
        return question_found is not None and self.answer.search(text, question_found.end()) is not None


_ANYTHING = re.compile("")
_FORMATS = (
    _Format(re.compile(r"\[INST\]"), re.compile(r"\[/INST\]"), "[INST]", _INST_PROGRAM),
    _Format(re.compile(r"<\|im_start\|>\w"), _ANYTHING, "<|im_start|>", _TAGS_PROGRAM),
    *(
        _Format(re.compile(rf"{re.escape(mark)}\w"), _ANYTHING, mark, _TAGS_PROGRAM)
        for mark in ("<|start_header_id|>", "<|header_start|>", "<|start_of_role|>")
    ),
    _Format(re.compile(r"<start_of_turn>\w"), _ANYTHING, "<start_of_turn>", _TAGS_PROGRAM),
    _Format(re.compile(r"<\|assistant\|>\n"), _ANYTHING, "<|assistant|>", _TAGS_PROGRAM),
    _Format(re.compile(rf"(?<!#)#++ *+({_USERS}):"), re.compile(rf"# *+({_BOTS}):"), "###", _HEADINGS_PROGRAM),
    _Format(
        re.compile(rf"\A\s*+({_USERS}):"),
        re.compile(rf"\n({_BOTS}):"),
        "names such as User: and Assistant:",
        _NAMES_PROGRAM,
    ),
)


class MarkupColumn(NamedTuple):
    """A column that holds whole conversations as text."""

    column: str
    marks: str
    """Their name in messages."""
    program: str
    """The jq program that turns a text into messages."""

    @property
    def description(self) -> str:
        """What was found, for messages."""
        return f"column {self.column} holds conversations as text, marked by {self.marks}"

    def step(self, file_format: str) -> str:
        """The next step."""
        how = jq_rows(file_format, f"{{messages: [{field(self.column)} | {self.program}]}}")
        return f"Write messages, and no marks: `{how}` makes them of such texts."


def markup_column(fields: Mapping[str, Any]) -> MarkupColumn | None:
    """The column of a row that holds a conversation as text; None if there is none."""
    texts = (
        (name, text[:_MAX_INSPECTED]) for name, text in fields.items() if isinstance(text, str) and may_be_shown(name)
    )
    found = ((name, one) for name, text in texts for one in _FORMATS if one.matches(text))
    return next((MarkupColumn(name, one.marks, one.program) for name, one in found), None)


def in_chat_format(texts: Iterable[str]) -> str | None:
    """The marks of a chat format in one of some texts; None if there are none."""
    return next(
        (marks for text in texts for pattern, marks in _TEMPLATE_MARKS if pattern.search(text[:_MAX_INSPECTED])), None
    )


_TEMPLATE_MARKS = (
    (re.compile(r"\[/?INST\]"), "[INST]"),
    *(
        (re.compile(re.escape(mark)), mark)
        for mark in ("<|im_start|>", "<|start_header_id|>", "<|header_start|>", "<|start_of_role|>", "<start_of_turn>")
    ),
    *((re.compile(rf"{re.escape(mark)}\s*\Z"), mark) for mark in ("<|endoftext|>", "</s>")),
    (re.compile(r"\n(#++ *Response|Assistant|ASSISTANT|AI|Bot):\s*\Z"), "Assistant: after its question"),
)
"""Marks that chat templates write themselves."""
