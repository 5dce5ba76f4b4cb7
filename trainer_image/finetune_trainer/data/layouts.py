"""Which columns a row is read by: those that the job asks for, or those of a layout that is known by its names.

    the names that the job asks for                 always, where a row has all that it needs by them
    conversations                                   ShareGPT's word for messages
    contents, and perhaps systemInstruction         Gemini's
    instruction, output or response, and perhaps    Alpaca's and Dolly's: what is told to the instruction stands
    input or context                                below it

All of them in other letters too, Prompt and COMPLETION, where each is there once. The last three only where the job
maps neither prompt nor messages nor completion. A row that fits none of them is read by the names that the job asks
for, and found wanting.
"""

import string
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from finetune_api.dataset import Columns
from finetune_trainer.data.turns import called, is_blank, text

_MOST_NAMES = 256
_MOST_LAYOUTS = 8  # that are named in one verdict
_UNSEEN = f"{string.whitespace}\xa0\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""What may stand around a name and is not seen."""
_SHAREGPT = "conversations"
_GEMINI, _GEMINI_SYSTEM = "contents", ("systeminstruction", "system_instruction")
_OF_GEMINI = {_GEMINI, *_GEMINI_SYSTEM, "tools", "toolconfig", "generationconfig", "safetysettings", "labels"}
"""What a request has: a column of contents beside others may be anything."""
_INSTRUCTION, _HISTORY = "instruction", "history"
_ANSWERS = ("output", "response")
BELOW = ("input", "context")
"""What may stand below an instruction."""
_DEFAULT = Columns()


class Layout(NamedTuple):
    """Columns by the names that they have."""

    columns: Columns
    below: str | None = None
    """The column whose text stands below the prompt's, a blank line between them."""

    @property
    def names(self) -> list[str]:
        """Of all columns that are read."""
        return [*self.columns.named.values(), *([self.below] if self.below else ())]

    def fields(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row's, whose prompt is whole.

        Raises:
            UnusableError: what stands below the prompt is no text.
        """
        prompt, below = fields.get(self.columns.prompt), fields.get(self.below or "")
        if self.below is None or is_blank(below) or is_blank(prompt) or not isinstance(prompt, str):
            return fields
        return {**fields, self.columns.prompt: _together(prompt, text(below, called("prompt", self.below), self.below))}

    def prompts(self, prompts: Sequence[str], below: Sequence[str | None]) -> list[str]:
        """The whole prompts of many rows, all of them text."""
        pairs = zip(prompts, below, strict=True)
        return [prompt if one is None or is_blank(one) else _together(prompt, one) for prompt, one in pairs]


def _together(prompt: str, below: str) -> str:
    return f"{prompt}\n\n{below}"


class Layouts:
    """Which layout each row has, of a job that asks for some columns."""

    def __init__(self, columns: Columns) -> None:
        self.asked = Layout(columns)
        """What the job asks for."""
        self.others: list[Layout] = []
        """Which else were met."""
        self._needed = [columns.named[part] for part in columns.needed]
        self._last: tuple[frozenset[str], Layout] = (frozenset(), self.asked)

    def of(self, names: Collection[str]) -> Layout:
        """How a row with columns of these names is read."""
        asked = all(name in names for name in self._needed) or self.asked.columns.messages in names
        if asked or len(names) > _MOST_NAMES:
            return self.asked
        key = frozenset(names)
        if key != self._last[0]:
            found = next(_known(self.asked.columns, key), self.asked)
            self._last = key, found
            if found is not self.asked and found not in self.others and len(self.others) < _MOST_LAYOUTS:
                self.others.append(found)
        return self._last[1]


def _known(columns: Columns, names: frozenset[str]) -> Iterator[Layout]:
    """The layouts that a row with these names has, the likeliest first."""
    found = _in_other_letters(columns, names)
    if found is not None and found != columns:
        yield Layout(found)
    parts = ("prompt", "completion", "messages")
    if names & {columns.prompt, columns.completion} or any(
        getattr(columns, part) != getattr(_DEFAULT, part) for part in parts
    ):
        return
    called = _as_written(names)
    columns = columns.model_copy(update={"system": called.get(columns.system, columns.system)})
    if _SHAREGPT in called:
        yield Layout(columns.model_copy(update={"messages": called[_SHAREGPT]}))
    if _GEMINI in called and _OF_GEMINI.issuperset(map(_plain, names)):
        system = next((called[name] for name in _GEMINI_SYSTEM if name in called), columns.system)
        yield Layout(columns.model_copy(update={"messages": called[_GEMINI], "system": system}))
    if _INSTRUCTION in called and _HISTORY not in called:
        yield from _instructed(columns, called)


def _as_written(names: Collection[str]) -> dict[str, str]:
    """How each name is written: as it is, or in other letters where only one is like it."""
    plain = Counter(map(_plain, names))
    return {_plain(name): name for name in names if plain[_plain(name)] == 1} | {name: name for name in names}


def _instructed(columns: Columns, called: Mapping[str, str]) -> Iterator[Layout]:
    """How an instruction is read, where one column only can be its answer, and one at most can stand below it."""
    changed: dict[str, str] = {"prompt": called[_INSTRUCTION]}
    if columns.chosen is None:
        answers = [called[name] for name in _ANSWERS if name in called]
        if len(answers) != 1:
            return
        changed["completion"] = answers[0]
    elif columns.rejected is None or not called.keys() >= {columns.chosen, columns.rejected}:
        return
    else:
        changed |= {"chosen": called[columns.chosen], "rejected": called[columns.rejected]}
    below = [called[name] for name in BELOW if name in called]
    if len(below) < 2:
        yield Layout(columns.model_copy(update=changed), *below)


def _in_other_letters(columns: Columns, names: frozenset[str]) -> Columns | None:
    """The columns as they are written in the file; None where one is there twice, or neither prompt nor messages."""
    found: dict[str, str] = {}
    for part, asked in columns.named.items():
        like = [asked] if asked in names else [name for name in names if _plain(name) == _plain(asked)]
        if len(like) > 1:
            return None
        found[part] = like[0] if like else asked
    if not names & {found["prompt"], found["messages"]} or len(set(found.values())) < len(found):
        return None
    return columns.model_copy(update=found)


def _plain(name: str) -> str:
    return name.strip(_UNSEEN).casefold()
