"""A job's data as its model sees it: stores of token ids and labels, and a few rows to display. Trains nothing."""

from array import array
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from finetune_api.trainer import TrainerJob
from finetune_api.verdict import DatasetVerdict, SplitName
from finetune_trainer.attempt import launch
from finetune_trainer.computing.ranks import World
from finetune_trainer.data import ChatTokenizer, Row, encode, encode_pairs, load_rows
from finetune_trainer.data.audit import Audited, audit
from finetune_trainer.training.pair_store import PairStore
from finetune_trainer.training.token_store import MappedTokens, TokenStore

if TYPE_CHECKING:
    from finetune_trainer.training.steps import Store

AUDITED_ROWS = 3


class Tokenised:
    """The splits of a job whose data passed the check; each method reads them again.

    A file that has changed since the verdict is refused; of the ranks in one pod only one tokenises.
    """

    def __init__(
        self, job: TrainerJob, chat: ChatTokenizer, verdict: DatasetVerdict, world: World, *, allow_local: bool
    ) -> None:
        self._job, self._chat, self._verdict, self._world = job, chat, verdict, world
        self._allow_local = allow_local
        self._pairs = job.spec.preference is not None
        self._max_length = chat.row_limit(job.spec.hyperparameters)

    def texts(self, split: SplitName) -> "Store | None":
        """The data to train or validate on, with both answers of pairs; None if the job has no such split.

        Raises:
            TrainerError: the file cannot be read, or has changed.
        """
        if getattr(self._job.spec.dataset, split) is None:
            return None
        path = launch.node_file(f"{split}.tokens") if self._world.per_node > 1 else None
        start = self._chat.decoder_start

        def written() -> TokenStore:
            return TokenStore(self._texts(split), decoder_start=start, path=path)

        if path is None:
            store = written()
        else:
            mapped = partial(MappedTokens, path, decoder_start=start)
            store = self._world.once_per_node(f"tokens of {split}", written, mapped)
        return PairStore(store) if self._pairs else store

    def answers(self, split: SplitName) -> TokenStore | None:
        """The expected answers, for pairs the chosen ones; None if the job has no such split.

        Raises:
            TrainerError: the file cannot be read, or has changed.
        """
        if getattr(self._job.spec.dataset, split) is None:
            return None
        return TokenStore(self._answers(split), decoder_start=self._chat.decoder_start)

    def _texts(self, split: SplitName) -> Iterator[tuple["array[int]", "array[int]"]]:
        """Ids and labels of the texts to train on: one for each row, or the two of each pair."""
        if not self._pairs:
            yield from self._answers(split)
            return
        for pair in encode_pairs(self._rows(split), self._chat, self._max_length):
            yield pair.chosen.input_ids, pair.chosen.labels
            yield pair.rejected.input_ids, pair.rejected.labels

    def _answers(self, split: SplitName) -> Iterator[tuple["array[int]", "array[int]"]]:
        for row in encode(self._rows(split), self._chat, self._max_length):
            yield row.input_ids, row.labels

    def audited(self) -> list[Audited]:
        """A few training rows with the tokens that carry loss."""
        return audit(self._rows("train"), self._chat, self._max_length, AUDITED_ROWS, pairs=self._pairs)

    def _rows(self, split: SplitName) -> Iterator[Row]:
        return load_rows(
            self._job.spec.data,
            split,
            allow_local=self._allow_local,
            air_gapped=self._job.air_gapped,
            expected_sha256=getattr(self._verdict, split).sha256,
        )
