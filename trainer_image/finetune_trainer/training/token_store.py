"""Tokenised rows on disk, read through a memory map: a dataset of any size takes little memory.

A token is stored as itself if it carries loss, otherwise as -(token + 1). Independent of the tokenizer.
"""

import tempfile
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.data import IGNORED
from finetune_trainer.storage.durable import MORE_SCRATCH, write_errors

Tokens = NDArray[np.int64]


class TokenStore:
    """Rows of token ids and labels, by number."""

    def __init__(
        self,
        rows: Iterable[tuple[Sequence[int], Sequence[int]]],
        *,
        decoder_start: int | None = None,
        scratch: Path | None = None,
        path: Path | None = None,
    ) -> None:
        """Write (ids, labels) pairs to a temporary file in `scratch` (default: the system's), deleted with the store.

        With `path` they are written there, so that other processes can map them (`MappedTokens`).

        Rows for an encoder-decoder are the prompt, without loss, followed by the answer, with loss; `decoder_start`
        is the token that answers start after.
        """
        self.decoder_start = decoder_start
        folder = path.parent if path else scratch or Path(tempfile.gettempdir())
        offsets = array("q", [0])
        self.largest_id = -1
        """The largest token id of all rows: the model must have an embedding for it."""
        self.labelled = 0
        """Tokens that carry loss."""
        with write_errors(folder, MORE_SCRATCH):
            self._file: Any = path.open("w+b") if path else tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as the store
            for ids, labels in rows:
                signed = np.asarray(ids, dtype=np.int32)
                self.largest_id = max(self.largest_id, int(signed.max(initial=-1)))
                unlabelled = np.asarray(labels) == IGNORED
                self.labelled += len(signed) - int(unlabelled.sum())
                signed = np.where(unlabelled, -signed - 1, signed).astype(np.int32)
                self._file.write(signed.tobytes())
                offsets.append(offsets[-1] + len(signed))
            self._file.flush()
            if path:
                np.savez(_index(path), offsets=offsets, largest_id=self.largest_id, labelled=self.labelled)
        self._map(np.asarray(offsets))

    def _map(self, offsets: Tokens) -> None:
        self._offsets = offsets
        self._tokens = np.memmap(self._file, dtype=np.int32, mode="r") if offsets[-1] else np.empty(0, np.int32)
        self.lengths: NDArray[np.int64] = np.diff(offsets)

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, number: int) -> tuple[Tokens, Tokens]:
        """Ids and labels of one row."""
        signed = self._tokens[self._offsets[number] : self._offsets[number + 1]].astype(np.int64)
        carries_loss = signed >= 0
        return np.where(carries_loss, signed, -signed - 1), np.where(carries_loss, signed, IGNORED)

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return int(self._offsets[-1])

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(self.lengths.max(initial=0))


class MappedTokens(TokenStore):
    """Rows that another process wrote to a `path`."""

    def __init__(self, path: Path, *, decoder_start: int | None = None) -> None:
        self.decoder_start, self._file = decoder_start, path.open("rb")
        with np.load(_index(path)) as index:
            self.largest_id, self.labelled = int(index["largest_id"]), int(index["labelled"])
            self._map(index["offsets"])


def _index(path: Path) -> Path:
    """The file with row offsets and totals."""
    return path.with_suffix(".npz")
