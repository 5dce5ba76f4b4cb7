"""Rows → the file that a provider receives: JSON Lines, one row each. Also estimates its number of tokens.

Written to the pod's scratch folder, so that a failed upload can be repeated without reading the source again.
"""

import hashlib
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from finetune_api.job_status import PartName
from finetune_api.verdict import SplitName
from finetune_api.words import counted
from finetune_trainer.data.provider.rules import ProviderRules, require_rows_as_wanted, require_size
from finetune_trainer.data.provider.token_estimate import estimated_tokens, longest_tokens
from finetune_trainer.data.row_warnings import RowCheck, RowWarning
from finetune_trainer.data.rows import Row

NAMED_ROWS = 5


@dataclass(frozen=True)
class ConvertedFile:
    """A split, or the job's own code, as the provider receives it."""

    split: PartName
    path: Path
    bytes: int
    sha256: str
    tokens: int
    """Estimated tokens of one epoch."""
    warnings: Sequence[str] = ()
    """What the provider does to some of the rows, if that may be unexpected."""


def convert(rows: Iterable[Row], split: SplitName, name: str, rules: ProviderRules, folder: Path) -> ConvertedFile:
    """Write a split as JSON Lines in the provider's format.

    Raises:
        TrainerError: the provider would not accept all rows, or such a large file; or reading them raises it.
        OSError: the scratch folder is full.
    """
    path = folder / f"{split}.jsonl"
    digest, size, tokens = hashlib.sha256(), 0, 0
    bad, long_rows = _BadRows(rules), RowWarning(_longer_than(rules.max_tokens), "so many tokens")
    with path.open("wb") as file:
        for part, count in _parts(_checked(bad.accepted(rows), long_rows), rules):
            size += len(part)
            require_size(rules, name, size)
            digest.update(part)
            file.write(part)
            tokens += count
    require_rows_as_wanted(rules, name, bad.named, bad.count)
    warnings = [_long_rows(name, rules, long_rows)] if long_rows.rows else []
    return ConvertedFile(split, path, size, digest.hexdigest(), tokens, warnings)


def _checked(rows: Iterable[Row], warning: RowWarning) -> Iterator[Row]:
    for row in rows:
        warning.add(row)
        yield row


def _longer_than(limit: int | None) -> RowCheck:
    return lambda row: [row.position.packed()] if limit and isinstance(row, Row) and longest_tokens(row) > limit else ()


def _long_rows(name: str, rules: ProviderRules, long_rows: RowWarning) -> str:
    which = f"{counted(long_rows.rows, 'row')} (the first: {long_rows.first})"
    described = f"{name}: {which} longer than about {rules.max_tokens:,} tokens"
    if rules.cuts_longer:
        return f"{described}, beyond which {rules.title} cuts the end"
    return f"{described}, and {rules.title} takes no longer ones: the whole job fails there if they are"


def _parts(rows: Iterable[Row], rules: ProviderRules) -> Iterable[tuple[bytes, int]]:
    if rules.byte_order_mark:
        yield BOM_UTF8, 0
    for row in rows:
        yield orjson.dumps(rules.form(row)) + b"\n", estimated_tokens(row)


class _BadRows:
    """Rows that the provider would not accept: all are counted, the first are named."""

    def __init__(self, rules: ProviderRules) -> None:
        self._problems = rules.problems
        self.named: list[str] = []
        self.count = 0

    def accepted(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows without problems."""
        for row in rows:
            what = next((found for problem in self._problems if (found := problem(row))), None)
            if what is None:
                yield row
                continue
            self.count += 1
            if len(self.named) < NAMED_ROWS:
                self.named.append(f"{row.position}: {what}")
