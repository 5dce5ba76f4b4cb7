"""Tokenised rows with two answers, on disk: row i is documents 2i, which is chosen, and 2i + 1, which is rejected."""

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.training.token_store import TokenStore


class PairStore:
    """Rows of two documents, by number."""

    def __init__(self, documents: TokenStore) -> None:
        self.documents = documents
        self.tokens, self.labelled, self.largest_id = documents.tokens, documents.labelled, documents.largest_id
        """Tokens of all rows, those that carry loss, and the largest id."""
        both = documents.lengths.reshape(-1, 2)
        self.lengths: NDArray[np.int64] = both.sum(axis=1)
        """Tokens of each row, both documents together."""
        self.widths: NDArray[np.int64] = 2 * both.max(axis=1, initial=0)
        """The same with the shorter document padded to the length of the longer."""
        self.reference: NDArray[np.float32] = np.full(len(both), np.nan, dtype=np.float32)
        """How many nats likelier chosen is than rejected to the model before training, by row (`reference.py`)."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def longest(self) -> int:
        """Tokens of the widest row."""
        return int(self.widths.max(initial=0))
