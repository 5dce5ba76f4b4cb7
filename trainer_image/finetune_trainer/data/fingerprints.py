"""Which rows are exactly alike, within a split and across splits, in bounded memory.

A row is remembered as 8 bytes of hash and 8 of position, spread over 64 buckets by its hash. A bucket is kept in memory
up to 64 KiB and in a temporary file beyond, and buckets are compared one at a time. So memory is 12 MiB for three
splits and about 2 bytes a row for the bucket at hand (200 MB at 100 million rows); the disk takes 16 bytes a row.
Two unlike rows share a hash with a chance of one in 2^64: of 3,700 files with 100 million rows, one has such a pair.
The hash is Python's own, keyed anew in each process: it says nothing to another one.
"""

from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain, combinations, repeat
from tempfile import SpooledTemporaryFile
from typing import NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc

from finetune_trainer.data.rows import Position, Row, Rows

_BUCKETS = 64
_BUCKET_MEMORY = 64 * 1024
_UNSORTED = 1 << 14  # rows that wait until many can be put into their buckets at once
_PAIR = 16  # bytes of a hash and a position
_EXAMPLES = 5


class Shared(NamedTuple):
    """Rows of a later split that stand in an earlier one too."""

    earlier: int
    later: int
    """Indices of the two splits."""
    rows: int
    examples: list[Position]
    """The first of them in the later split, at most five."""


class Fingerprints:
    """Fingerprints of the rows of several splits. A context manager: temporary files go with it."""

    def __init__(self, splits: int) -> None:
        self._files = ExitStack()
        self._splits = [_Buckets(self._files) for _ in range(splits)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def add(self, split: int, found: Row | Rows) -> None:
        """Remember one row, or many."""
        if isinstance(found, Row):
            self._splits[split].add([fingerprint(found)], [found.position.packed()])
        else:
            self._splits[split].add(fingerprints(found), found.places)

    def compare(self) -> tuple[list[int], list[Shared]]:
        """Duplicates of each split (rows like an earlier one of the same), and what each pair of splits shares."""
        duplicates = [0] * len(self._splits)
        pairs = list(combinations(range(len(self._splits)), 2))
        shared = dict.fromkeys(pairs, 0)
        examples: dict[tuple[int, int], list[int]] = {pair: [] for pair in pairs}
        for split in self._splits:
            split.sort()
        for bucket in range(_BUCKETS):
            entries = [split.entries(bucket) for split in self._splits]
            known = [pc.unique(hashes) for hashes, _ in entries]
            for index, (hashes, _) in enumerate(entries):
                duplicates[index] += len(hashes) - len(known[index])
            for pair in pairs:
                found = _standing_in(entries[pair[1]], known[pair[0]])
                shared[pair] += len(found)
                first = found.take(pc.bottom_k_unstable(found, _EXAMPLES)).to_pylist()
                examples[pair] = sorted([*examples[pair], *first])[:_EXAMPLES]
        return duplicates, [
            Shared(*pair, shared[pair], [Position.unpacked(one) for one in examples[pair]])
            for pair in pairs
            if shared[pair]
        ]


def _standing_in(later: tuple[pa.Array, pa.Array], earlier: pa.Array) -> pa.Array:
    hashes, places = later
    return places.filter(pc.is_in(hashes, value_set=earlier))


def fingerprint(row: Row) -> int:
    """64 bits of the conversation: roles, texts, and where each text ends. Good for this process only.

    Of a row with two answers both count.
    """
    return hash((*chain.from_iterable(row.turns), *(() if row.rejected is None else (row.rejected,))))


def fingerprints(rows: Rows) -> Iterator[int]:
    """The same of many rows."""
    roles = map(repeat, rows.roles)  # without end: what the roles say ends them
    return map(hash, zip(*chain.from_iterable(zip(roles, rows.contents, strict=True)), strict=False))


class _Buckets:
    """One split's fingerprints, by the low bits of the hash."""

    def __init__(self, files: ExitStack) -> None:
        self._files = files
        self._buckets: list[SpooledTemporaryFile[bytes] | None] = [None] * _BUCKETS
        self._hashes, self._places = array("q"), array("q")
        """Of the last rows, which no bucket has yet."""

    def add(self, hashes: Iterable[int], places: Iterable[int]) -> None:
        self._hashes.fromlist(list(hashes))  # in half the time of extend
        if isinstance(places, range):
            self._places.frombytes(pa.arange(places.start, places.stop, places.step).buffers()[1])
        else:
            self._places.fromlist(list(places))
        if len(self._hashes) >= _UNSORTED:
            self.sort()

    def sort(self) -> None:
        """Put all rows into their buckets."""
        pairs = array("q", bytes(_PAIR * len(self._hashes)))
        pairs[::2], pairs[1::2] = self._hashes, self._places
        numbers = pc.bit_wise_and(_integers(self._hashes), _LOW_BITS).cast(pa.uint8())
        stored = pa.FixedSizeBinaryArray.from_buffers(pa.binary(_PAIR), len(numbers), [None, pa.py_buffer(pairs)])
        ordered = memoryview(stored.take(pc.array_sort_indices(numbers)).buffers()[1])
        start = 0
        for number, count in sorted((one["values"], one["counts"]) for one in pc.value_counts(numbers).to_pylist()):
            self._bucket(number).write(ordered[start : start + _PAIR * count])
            start += _PAIR * count
        self._hashes, self._places = array("q"), array("q")

    def _bucket(self, number: int) -> SpooledTemporaryFile[bytes]:
        bucket = self._buckets[number]
        if bucket is None:
            bucket = SpooledTemporaryFile(_BUCKET_MEMORY, prefix="fingerprints-")  # noqa: SIM115 - the stack closes it
            self._files.enter_context(bucket)
            self._buckets[number] = bucket
        return bucket

    def entries(self, bucket: int) -> tuple[pa.Array, pa.Array]:
        """Hashes and packed positions of one bucket."""
        file = self._buckets[bucket]
        both = array("q")
        if file is not None:
            file.seek(0)
            both.frombytes(file.read())
        return _integers(both[::2]), _integers(both[1::2])


def _integers(values: "array[int]") -> pa.Array:
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values)])


_LOW_BITS = _integers(array("q", [_BUCKETS - 1]))[0]
"""Those that name a bucket. Of a number of Python's own pyarrow asks pandas, where there is one, and imports it."""
