"""Tokenised rows with two answers, on disk: row i is document 2i (chosen) and document 2i + 1 (rejected)."""

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.training.token_store import TokenStore


class PairStore:
    """Rows of two documents each."""

    def __init__(self, documents: TokenStore) -> None:
        self.documents = documents
        self.tokens, self.labelled, self.largest_id = documents.tokens, documents.labelled, documents.largest_id
        """Tokens of all rows, tokens that carry loss, and the largest token id."""
        both = documents.lengths.reshape(-1, 2)
        self.lengths: NDArray[np.int64] = both.sum(axis=1)
        """Tokens of each row, of both documents."""
        self.widths: NDArray[np.int64] = 2 * both.max(axis=1, initial=0)
        """The same, with the shorter document padded to the longer one's length."""
        self.reference: NDArray[np.float32] = np.full(len(both), np.nan, dtype=np.float32)
        """For each row, log likelihood of chosen minus rejected in nats, under the untrained model (`reference.py`)."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def longest(self) -> int:
        """Tokens of the widest row."""
        return int(self.widths.max(initial=0))
