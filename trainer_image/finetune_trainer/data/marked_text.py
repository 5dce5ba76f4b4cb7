"""Conversations that stand in one column as text, their turns told apart by marks: known by the marks of the first.

As training scripts want them that know no chat template: rows need no chat format of their own here, so that they are
made messages again by a command.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from finetune_trainer.data.column_names import may_be_shown
from finetune_trainer.data.jq import by_jq

_OURS = "Assistant|AI|Bot|Response|Answer|A"
_THEIRS = "Human|User|Instruction|Question|Q"
_ENDS = r"<\\|im_end\\|>|<\\|eot_id\\|>|<end_of_turn>|<\\|end\\|>|</s>|(?=<\\|\\w+\\|>\\n)|$"
_LONG = 100_000
"""Letters of a text that are looked at."""

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

_FORMATS: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"\[INST\].*?\[/INST\]", re.DOTALL), "[INST]", _OF_INST),
    (re.compile(r"<\|im_start\|>\w"), "<|im_start|>", _OF_TAGS),
    (re.compile(r"<\|start_header_id\|>\w"), "<|start_header_id|>", _OF_TAGS),
    (re.compile(r"<start_of_turn>\w"), "<start_of_turn>", _OF_TAGS),
    (re.compile(r"<\|assistant\|>\n"), "<|assistant|>", _OF_TAGS),
    (re.compile(rf"#+ *({_THEIRS}):.*?#+ *({_OURS}):", re.DOTALL), "###", _OF_HEADINGS),
    (re.compile(rf"\s*({_THEIRS}):.*?\n({_OURS}):", re.DOTALL), "names such as User: and Assistant:", _OF_NAMES),
)
"""What such a text has in it, how its marks are called, and how jq makes messages of it. The last begins with it."""


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
        if not file_format.startswith("JSON"):
            opened = "parquet" if file_format.startswith("Parquet") else "csv"
            how = f"pandas.read_{opened}('FILE').to_json('ROWS.jsonl', orient='records', lines=True)"
            return f"Write messages, and no marks. Make JSON Lines of it first by {how}, and check that for a command."
        how = by_jq(file_format, f'{{messages: [.["{self.column}"] | {self.program}]}}')
        return f"Write messages, and no marks: `{how}` makes them of such texts."


def marked(fields: Mapping[str, Any]) -> Marked | None:
    """The column of a row that holds a conversation as text; None where none does."""
    texts = ((name, text[:_LONG]) for name, text in fields.items() if isinstance(text, str) and may_be_shown(name))
    return next((Marked(name, *how) for name, text in texts for how in _found(text)), None)


def in_chat_format(texts: Iterable[str]) -> str | None:
    """The marks of a chat that stand in one of some texts already; None where there are none."""
    return next((marks for text in texts for pattern, marks in _OF_MODELS if pattern.search(text[:_LONG])), None)


_OF_MODELS = (
    (re.compile(r"\[/?INST\]"), "[INST]"),
    *((re.compile(re.escape(mark)), mark) for mark in ("<|im_start|>", "<|start_header_id|>", "<start_of_turn>")),
    *((re.compile(rf"{re.escape(mark)}\s*\Z"), mark) for mark in ("<|endoftext|>", "</s>")),
)
"""Marks of chat formats, which chat templates write."""


def _found(text: str) -> Iterable[tuple[str, str]]:
    *within, last = _FORMATS
    yield from ((marks, program) for pattern, marks, program in within if pattern.search(text))
    if last[0].match(text):
        yield last[1:]
