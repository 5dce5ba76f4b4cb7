"""Finds identical rows, within a split and across splits, in bounded memory.

A row is stored as 8 bytes of hash and 8 of position, in one of 64 buckets chosen by the hash. Up to 4 MiB per split are
kept in memory, the rest in a temporary file, and buckets are compared one at a time. So memory is 12 MiB for three
splits and about 2 bytes per row for the current bucket (200 MB at 100 million rows), however many rows are equal: a
bucket is read in parts. On disk a row takes 16 bytes.
Two different rows have the same hash with a probability of 2^-64: of 3,700 files with 100 million rows, one has such a
pair. The hash is Python's own, with a random key per process: it means nothing to another process.

On request, questions are stored too, with the hash of their row, to find a question with several answers. That takes
another 32 bytes per row, on disk.

Also on request, rows of several splits are stored by their folded texts, in as many bytes. A test set that repeats
training rows with another case or white space measures memorization, and so does one with the same questions.
"""

import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate, combinations, repeat
from os import SEEK_END
from tempfile import SpooledTemporaryFile
from typing import NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc

from finetune_api.reasons import Reason
from finetune_trainer.data.rows import Position, Role, Row, Rows, Turn
from finetune_trainer.errors import TrainerError
from finetune_trainer.storage.durable import MORE_SCRATCH

_BUCKETS = 64
_MEMORY = 4 << 20
_RUN_ROWS = 1 << 16  # rows collected before they are sorted into buckets at once: runs are read bucket by bucket
_PAIR = 16  # bytes of a hash and a position
_EXAMPLES = 5
_OTHER_CASE = "also in {}, but for case, white space or Unicode form"
_OTHER_ANSWER = "with a question that {} answers otherwise"
_MAX_PART = 1 << 21
"""Rows of a bucket that are compared at once: if most rows are equal, or ask the same, one bucket has most of them."""


class Shared(NamedTuple):
    """Rows of a later split that are also in an earlier one."""

    earlier: int
    later: int
    """Indices of the two splits."""
    rows: int
    examples: list[Position]
    """The first of them in the later split, at most five."""


class Contradiction(NamedTuple):
    """Rows of a split whose question has a different answer in other rows of the split."""

    rows: int
    first: Position


class NearlyShared(NamedTuple):
    """Rows of a later split that are nearly the same as in an earlier one."""

    earlier: int
    later: int
    rows: int
    first: Position
    how: str
    """The finding for messages, with {} for the earlier split."""


class CommonRows(NamedTuple):
    """What each pair of splits has in common."""

    same: list[Shared]
    nearly_shared: list[NearlyShared]


class Fingerprints:
    """Fingerprints of the rows of several splits. A context manager, which deletes its temporary files.

    Args:
        splits: number of splits.
        questions: whether to find questions with several answers: takes a third of the time of checking a row.
        folded: whether to find rows that splits share apart from case and white space: takes as long as checking a row.
    """

    def __init__(self, splits: int, *, questions: bool = False, folded: bool = False) -> None:
        self._files = ExitStack()
        self._splits = [_Buckets(self._files) for _ in range(splits)]
        self._questions = [_Keyed(self._files) for _ in range(splits if questions else 0)]
        self._folded = [_Keyed(self._files) for _ in range(splits if folded and splits > 1 else 0)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def add(self, split: int, found: Row | Rows) -> None:
        """Store one row or a batch."""
        hashes = [fingerprint(found)] if isinstance(found, Row) else list(fingerprints(found))
        places = [found.position.packed()] if isinstance(found, Row) else found.places
        self._splits[split].add(hashes, places)
        if self._questions:
            self._questions[split].add(_question_hashes(found), hashes, places)
        if self._folded:
            self._folded[split].add(_folded_hashes(found), hashes, places)

    def contradictions(self) -> list[Contradiction | None]:
        """Contradictions of each split, if questions were stored."""
        return [questions.contradiction() for questions in self._questions]

    def nearly_shared(self) -> list[NearlyShared]:
        """What each pair of splits nearly has in common, by texts and by questions; identical rows are excluded."""
        return [
            NearlyShared(earlier, later, *found_rows, how)
            for how, splits in ((_OTHER_CASE, self._folded), (_OTHER_ANSWER, self._questions))
            for earlier, later in combinations(range(len(splits)), 2)
            if (found_rows := splits[later].with_key_of(splits[earlier])) is not None
        ]

    def compare(self) -> tuple[list[int], list[Shared]]:
        """Duplicates of each split (rows equal to an earlier one of it), and what each pair of splits shares."""
        duplicates = [0] * len(self._splits)
        pairs = list(combinations(range(len(self._splits)), 2))
        shared = dict.fromkeys(pairs, 0)
        examples: dict[tuple[int, int], list[int]] = {pair: [] for pair in pairs}
        for split in self._splits:
            split.sort()
        for bucket in range(_BUCKETS):
            known = list[pa.Array]()
            for index, split in enumerate(self._splits):
                own = _integers(array("q"))
                for hashes, places in split.parts(bucket, _MAX_PART):
                    duplicates[index] += len(hashes)
                    own = pc.unique(pa.concat_arrays([own, pc.unique(hashes)]) if len(own) else hashes)
                    for earlier, of_earlier in enumerate(known):
                        pair, found = (earlier, index), places.filter(pc.is_in(hashes, value_set=of_earlier))
                        shared[pair] += len(found)
                        first = found.take(pc.bottom_k_unstable(found, _EXAMPLES)).to_pylist()
                        examples[pair] = sorted([*examples[pair], *first])[:_EXAMPLES]
                duplicates[index] -= len(own)
                known.append(own)
        return duplicates, [
            Shared(*pair, shared[pair], [Position.unpacked(one) for one in examples[pair]])
            for pair in pairs
            if shared[pair]
        ]


def fingerprint(row: Row) -> int:
    """64-bit hash of the conversation: roles, texts, and where each text ends. Valid in this process only.

    Both answers of a preference pair count.
    """
    return hash((*_hashable(row.turns), *(() if row.rejected is None else (row.rejected,))))


def fingerprints(rows: Rows) -> Iterator[int]:
    """The same for many rows."""
    return _hashes(rows.roles, rows.contents)


def _hashable(turns: Sequence[Turn]) -> tuple[int | str, ...]:
    """The hash of the roles, and the texts."""
    return hash(tuple(turn.role for turn in turns)), *(turn.content for turn in turns)


def _hashes(roles: tuple[Role, ...], contents: tuple[Sequence[str], ...]) -> Iterator[int]:
    """Hashes of many rows' texts. The hash of the roles repeats endlessly; zip ends with the texts."""
    return map(hash, zip(repeat(hash(roles)), *contents, strict=False))


def _question_hashes(found: Row | Rows) -> list[int]:
    """Hashes of each row's question."""
    if isinstance(found, Row):
        return [hash(_hashable(found.prompt))]
    return list(_hashes(found.roles[:-1], found.contents[:-1]))


def _folded_hashes(found: Row | Rows) -> list[int]:
    """Hashes of each row's folded texts."""
    if isinstance(found, Rows):
        return list(map(hash, zip(repeat(hash(found.roles)), *map(_folded, found.contents), strict=False)))
    texts = [turn.content for turn in found.turns] + ([] if found.rejected is None else [found.rejected])
    return [hash((hash(tuple(turn.role for turn in found.turns)), *_folded(texts)))]


def _folded(texts: Sequence[str]) -> list[bytes]:
    """Texts without case, white space and Unicode form, in one pass: one by one takes three times as long."""
    found = _fold(_SPLIT.join(texts)).split(_SPLIT.encode())
    return found if len(found) == len(texts) else list(map(_fold, texts))


def _fold(text: str) -> bytes:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return text.encode(errors="surrogatepass").translate(_LOWER, b" \t\n\r\v\f")


_SPLIT = "\N{UNIT SEPARATOR}"
_LOWER = bytes(range(256)).lower()


class _Keyed:
    """Rows of one split by a key that several may share: for each row its hash and its position."""

    def __init__(self, files: ExitStack) -> None:
        self._rows, self._places = _Buckets(files), _Buckets(files)

    def add(self, keys: Sequence[int], hashes: Sequence[int], places: Sequence[int]) -> None:
        self._rows.add(keys, hashes)
        self._places.add(keys, places)

    def sort(self) -> None:
        self._rows.sort()
        self._places.sort()

    def rows(self, bucket: int) -> tuple[pa.Array, pa.Array]:
        """Keys and row hashes of a bucket."""
        return self._rows.entries(bucket, _MAX_PART)

    def places(self, bucket: int) -> pa.Array:
        """Packed positions of the same rows, in the same order."""
        return self._places.entries(bucket, _MAX_PART)[1]

    def with_key_of(self, earlier: "_Keyed") -> tuple[int, Position] | None:
        """Number and first position of rows whose key, but not the row itself, is in an earlier split."""
        self.sort()
        earlier.sort()
        rows, first = 0, list[int]()
        for bucket in range(_BUCKETS):
            keys, row_hashes = self.rows(bucket)
            known, known_rows = earlier.rows(bucket)
            if len(known) == _MAX_PART:
                continue  # the row itself may be among those that were not read
            other = pc.and_(pc.is_in(keys, value_set=known), pc.invert(pc.is_in(row_hashes, value_set=known_rows)))
            if count := other.true_count:
                found = self.places(bucket).filter(other)
                rows += count
                first.append(pc.min(found).as_py())
        return (rows, Position.unpacked(min(first))) if first else None

    def contradiction(self) -> Contradiction | None:
        """Rows whose key, a question, has several answers, with the first of them; both lists have the same order."""
        self.sort()
        rows, first = 0, list[int]()
        for bucket in range(_BUCKETS):
            questions, row_hashes = self.rows(bucket)
            if len(pc.unique(questions)) == len(pc.unique(row_hashes)):
                continue  # as many questions as distinct rows: each has one answer
            known = pa.table({"asked": questions, "row": row_hashes}).group_by(["asked", "row"]).aggregate([])
            answers = known.group_by("asked").aggregate([([], "count_all")])
            several = answers["asked"].filter(pc.greater(answers["count_all"], 1))
            if len(several):
                found = self.places(bucket).filter(pc.is_in(questions, value_set=several.combine_chunks()))
                rows += len(found)
                first.append(pc.min(found).as_py())
        return Contradiction(rows, Position.unpacked(min(first))) if first else None


class _Buckets:
    """One split's fingerprints, in buckets by the low bits of the hash.

    They are written in runs, each sorted by bucket: one file per bucket would mean hundreds of open files.
    """

    def __init__(self, files: ExitStack) -> None:
        self._file = files.enter_context(SpooledTemporaryFile(_MEMORY, prefix="fingerprints-"))  # noqa: SIM115 - the stack
        self._starts = array("q")
        """Per run the file offsets of its buckets, and of its end: _BUCKETS + 1 integers."""
        self._hashes, self._places = array("q"), array("q")
        """The rows that are not in a run yet."""

    def add(self, hashes: Iterable[int], places: Iterable[int]) -> None:
        self._hashes.fromlist(hashes if isinstance(hashes, list) else list(hashes))  # takes half the time of extend
        if isinstance(places, range):
            self._places.frombytes(pa.arange(places.start, places.stop, places.step).buffers()[1])
        else:
            self._places.fromlist(list(places))
        if len(self._hashes) >= _RUN_ROWS:
            self.sort()

    def sort(self) -> None:
        """Write the rows collected so far as a run.

        Raises:
            TrainerError: ArtifactFailed, the disk is full.
        """
        if not self._hashes:
            return
        pairs = array("q", bytes(_PAIR * len(self._hashes)))
        pairs[::2], pairs[1::2] = self._hashes, self._places
        numbers = pc.bit_wise_and(_integers(self._hashes), _LOW_BITS).cast(pa.uint8())
        stored = pa.FixedSizeBinaryArray.from_buffers(pa.binary(_PAIR), len(numbers), [None, pa.py_buffer(pairs)])
        counts = {one["values"]: one["counts"] for one in pc.value_counts(numbers).to_pylist()}
        sizes = (_PAIR * counts.get(bucket, 0) for bucket in range(_BUCKETS))
        with _disk_errors():
            self._starts.extend(accumulate(sizes, initial=self._file.seek(0, SEEK_END)))
            self._file.write(stored.take(pc.array_sort_indices(numbers)).buffers()[1])
        self._hashes, self._places = array("q"), array("q")

    def entries(self, bucket: int, max_rows: int) -> tuple[pa.Array, pa.Array]:
        """Hashes and packed positions of one bucket, at most `most` rows."""
        return next(self.parts(bucket, max_rows), (_integers(array("q")), _integers(array("q"))))

    def parts(self, bucket: int, max_rows: int) -> Iterator[tuple[pa.Array, pa.Array]]:
        """All of them, `most` at a time: if most rows are equal, one bucket has most of the file."""
        both = array("q")
        for run in range(bucket, len(self._starts), _BUCKETS + 1):
            start, end = self._starts[run], self._starts[run + 1]
            while start < end:
                with _disk_errors():  # a read first flushes the buffered writes
                    self._file.seek(start)
                    part = self._file.read(min(_PAIR * max_rows - both.itemsize * len(both), end - start))
                both.frombytes(part)
                start += len(part)
                if both.itemsize * len(both) == _PAIR * max_rows:
                    yield _integers(both[::2]), _integers(both[1::2])
                    both = array("q")
        if both:
            yield _integers(both[::2]), _integers(both[1::2])


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"a temporary file of the rows' hashes could not be written: {error.strerror}"
        raise TrainerError(Reason.ARTIFACT_FAILED, what, MORE_SCRATCH) from error


def _integers(values: "array[int]") -> pa.Array:
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values)])


_LOW_BITS = _integers(array("q", [_BUCKETS - 1]))[0]
"""The bits that select a bucket. As a pyarrow value: for a Python int pyarrow would import pandas, if installed."""
