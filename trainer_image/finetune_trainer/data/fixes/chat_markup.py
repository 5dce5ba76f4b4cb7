"""Conversations that stand in one column as text, their turns told apart by marks: known by the marks of the first.

As training scripts want them that know no chat template: rows need no chat format of their own here, so that they are
made messages again by a command.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from finetune_trainer.data.fixes.column_names import may_be_shown
from finetune_trainer.data.fixes.jq import by_jq, field

_OURS = "Assistant|ASSISTANT|AI|Bot|Response|Answer|A"
_THEIRS = "Human|User|HUMAN|USER|Instruction|Question|Q"
_ENDS = r"<\\|(im_end|eot_id|eot|end_of_text)\\|>|<end_of_turn>|<\\|end\\|>|</s>|(?=<\\|\\w+\\|>\\n)|$"
_LONG = 100_000
"""Letters of a text that are looked at."""

_OF_INST = (
    r'capture("\\[INST\\]\\s*(<<SYS>>\\s*(?<system>(?s:.*?))\\s*<</SYS>>\\s*)?(?<user>(?s:.*?))\\s*\\[/INST\\]\\s*'
    r'(?<assistant>(?s:.*?))\\s*(?=</s>|\\[INST\\]|$)"; "g") | to_entries[] | select(.value) '
    "| {role: .key, content: .value}"
)
_OF_TAGS = (
    r'capture("(<\\|(im_start|start_header_id|header_start|start_of_role)\\|>|<start_of_turn>|<\\|(?=\\w+\\|>\\n))'
    rf'(?<role>\\w+)(<\\|(end_header_id|header_end|end_of_role)\\|>|\\|>)?\\s*(?<content>(?s:.*?))\\s*({_ENDS})"; "g")'
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
    """Marks of conversations: a text has a question's, and behind it, where that is asked for, an answer's.

    They are looked for one after the other, so that no text takes more than one look: the pattern of both would begin
    anew at each question of a text without answers.
    """

    question: re.Pattern[str]
    answer: re.Pattern[str]
    marks: str
    """As messages call them."""
    program: str
    """Of jq: a text to messages."""

    def is_of(self, text: str) -> bool:
        """Whether the text has them."""
        asked = self.question.search(text)
        return asked is not None and self.answer.search(text, asked.end()) is not None


_ANYTHING = re.compile("")
_FORMATS = (
    _Format(re.compile(r"\[INST\]"), re.compile(r"\[/INST\]"), "[INST]", _OF_INST),
    _Format(re.compile(r"<\|im_start\|>\w"), _ANYTHING, "<|im_start|>", _OF_TAGS),
    *(
        _Format(re.compile(rf"{re.escape(mark)}\w"), _ANYTHING, mark, _OF_TAGS)
        for mark in ("<|start_header_id|>", "<|header_start|>", "<|start_of_role|>")
    ),
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
    """As messages call them."""
    program: str
    """Of jq: a text to messages."""

    @property
    def said(self) -> str:
        """What is there, for messages."""
        return f"column {self.column} holds conversations as text, marked by {self.marks}"

    def step(self, file_format: str) -> str:
        """How rows come of it."""
        how = by_jq(file_format, f"{{messages: [{field(self.column)} | {self.program}]}}")
        return f"Write messages, and no marks: `{how}` makes them of such texts."


def marked(fields: Mapping[str, Any]) -> Marked | None:
    """The column of a row that holds a conversation as text; None where none does."""
    texts = ((name, text[:_LONG]) for name, text in fields.items() if isinstance(text, str) and may_be_shown(name))
    found = ((name, one) for name, text in texts for one in _FORMATS if one.is_of(text))
    return next((Marked(name, one.marks, one.program) for name, one in found), None)


def in_chat_format(texts: Iterable[str]) -> str | None:
    """The marks of a chat that stand in one of some texts already; None where there are none."""
    return next((marks for text in texts for pattern, marks in _OF_MODELS if pattern.search(text[:_LONG])), None)


_OF_MODELS = (
    (re.compile(r"\[/?INST\]"), "[INST]"),
    *(
        (re.compile(re.escape(mark)), mark)
        for mark in ("<|im_start|>", "<|start_header_id|>", "<|header_start|>", "<|start_of_role|>", "<start_of_turn>")
    ),
    *((re.compile(rf"{re.escape(mark)}\s*\Z"), mark) for mark in ("<|endoftext|>", "</s>")),
    (re.compile(r"\n(#++ *Response|Assistant|ASSISTANT|AI|Bot):\s*\Z"), "Assistant: after its question"),
)
"""Marks of chat formats, which chat templates write."""
