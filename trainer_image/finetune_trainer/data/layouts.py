"""Which columns a row is read from: those that the job names, or those of a well-known layout.

    the names in the job                            always, if a row has all required columns under them
    conversations                                   ShareGPT's name for messages
    contents, and optionally systemInstruction      Gemini's
    instruction, output or response, and optionally Alpaca's and Dolly's: the input is appended to the instruction,
    input or context                                after a blank line

Case is ignored (Prompt, COMPLETION) if the name is unambiguous. The last three apply only if the job maps none of
prompt, messages and completion. A row that fits none of them is read by the names in the job, and reported as invalid.
"""

import string
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from finetune_api.dataset import Columns
from finetune_trainer.data.turns import called, is_blank, text

_MOST_NAMES = 256
_MOST_LAYOUTS = 8  # named in one verdict
_INVISIBLE = f"{string.whitespace}\xa0\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""Invisible characters around a name."""
_SHAREGPT = "conversations"
_GEMINI, _GEMINI_SYSTEM = "contents", ("systeminstruction", "system_instruction")
_GEMINI_FIELDS = {_GEMINI, *_GEMINI_SYSTEM, "tools", "toolconfig", "generationconfig", "safetysettings", "labels"}
"""Fields of a Gemini request: with other columns beside it, `contents` may be anything."""
_INSTRUCTION, _HISTORY = "instruction", "history"
_ANSWERS = ("output", "response")
BELOW = ("input", "context")
"""Columns appended to an instruction."""
_DEFAULT = Columns()


class Layout(NamedTuple):
    """Columns under the names that the file has for them."""

    columns: Columns
    below: str | None = None
    """The column whose text is appended to the prompt, after a blank line."""

    @property
    def names(self) -> list[str]:
        """Names of all columns that are read."""
        return [*self.columns.named.values(), *([self.below] if self.below else ())]

    def fields(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row's fields, with the complete prompt.

        Raises:
            UnusableError: the appended column is not text.
        """
        prompt, below = fields.get(self.columns.prompt), fields.get(self.below or "")
        if self.below is None or is_blank(below) or is_blank(prompt) or not isinstance(prompt, str):
            return fields
        return {**fields, self.columns.prompt: _appended(prompt, text(below, called("prompt", self.below), self.below))}

    def prompts(self, prompts: Sequence[str], below: Sequence[str | None]) -> list[str]:
        """The complete prompts of many rows, all of them text."""
        pairs = zip(prompts, below, strict=True)
        return [prompt if one is None or is_blank(one) else _appended(prompt, one) for prompt, one in pairs]


def _appended(prompt: str, below: str) -> str:
    return f"{prompt}\n\n{below}"


class Layouts:
    """Finds the layout of each row, for a job that asks for some columns."""

    def __init__(self, columns: Columns) -> None:
        self.requested = Layout(columns)
        """The names in the job."""
        self.others: list[Layout] = []
        """Other layouts met so far."""
        self._needed = [columns.named[part] for part in columns.needed]
        self._last: tuple[frozenset[str], Layout] = (frozenset(), self.requested)

    def of(self, names: Collection[str]) -> Layout:
        """The layout for a row with these column names."""
        requested = all(name in names for name in self._needed) or self.requested.columns.messages in names
        if requested or len(names) > _MOST_NAMES:
            return self.requested
        key = frozenset(names)
        if key != self._last[0]:
            found = next(_matching(self.requested.columns, key), self.requested)
            self._last = key, found
            if found is not self.requested and found not in self.others and len(self.others) < _MOST_LAYOUTS:
                self.others.append(found)
        return self._last[1]


def _matching(columns: Columns, names: frozenset[str]) -> Iterator[Layout]:
    """The layouts that match a row with these names, the most likely first."""
    found = _ignoring_case(columns, names)
    if found is not None and found != columns:
        yield Layout(found)
    parts = ("prompt", "completion", "messages")
    if names & {columns.prompt, columns.completion} or any(
        getattr(columns, part) != getattr(_DEFAULT, part) for part in parts
    ):
        return
    called = _spellings(names)
    columns = columns.model_copy(update={"system": called.get(columns.system, columns.system)})
    if _SHAREGPT in called:
        yield Layout(columns.model_copy(update={"messages": called[_SHAREGPT]}))
    if _GEMINI in called and _GEMINI_FIELDS.issuperset(map(_plain, names)):
        system = next((called[name] for name in _GEMINI_SYSTEM if name in called), columns.system)
        yield Layout(columns.model_copy(update={"messages": called[_GEMINI], "system": system}))
    if _INSTRUCTION in called and _HISTORY not in called:
        yield from _instruction_layout(columns, called)


def _spellings(names: Collection[str]) -> dict[str, str]:
    """The spelling of each name: exact, or ignoring case if that is unambiguous."""
    plain = Counter(map(_plain, names))
    return {_plain(name): name for name in names if plain[_plain(name)] == 1} | {name: name for name in names}


def _instruction_layout(columns: Columns, called: Mapping[str, str]) -> Iterator[Layout]:
    """The layout of an instruction, if exactly one column can be its answer and at most one its input."""
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


def _ignoring_case(columns: Columns, names: frozenset[str]) -> Columns | None:
    """The columns as spelled in the file; None if one is ambiguous, or there is neither prompt nor messages."""
    found: dict[str, str] = {}
    for part, requested in columns.named.items():
        like = [requested] if requested in names else [name for name in names if _plain(name) == _plain(requested)]
        if len(like) > 1:
            return None
        found[part] = like[0] if like else requested
    if not names & {found["prompt"], found["messages"]} or len(set(found.values())) < len(found):
        return None
    return columns.model_copy(update=found)


def _plain(name: str) -> str:
    return name.strip(_INVISIBLE).casefold()
