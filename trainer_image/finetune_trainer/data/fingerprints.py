"""Which rows are exactly alike, within a split and across splits, in bounded memory.

A row is remembered as 8 bytes of hash and 8 of position, spread over 64 buckets by its hash. A bucket is kept in memory
up to 64 KiB and in a temporary file beyond, and buckets are compared one at a time. So memory is 12 MiB for three
splits and about 2 bytes a row for the bucket at hand (200 MB at 100 million rows); the disk takes 16 bytes a row.
Two unlike rows share a hash with a chance of one in 2^64: of 3,700 files with 100 million rows, one has such a pair.
"""

from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from itertools import combinations
from struct import Struct
from tempfile import SpooledTemporaryFile
from typing import NamedTuple, Self

from finetune_trainer.data.rows import Position, Row

_BUCKETS = 64
_BUCKET_MEMORY = 64 * 1024
_EXAMPLES = 5
_PAIR = Struct("=QQ")
_GROUP_SHIFT = 40  # a row group holds fewer rows than 2^40
_ELEMENT_SHIFT = 31  # rows and lines of a JSON array beyond 2^31 are called the last one before


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

    def add(self, split: int, row: Row) -> None:
        """Remember a row."""
        self._splits[split].add(fingerprint(row), row.position)

    def compare(self) -> tuple[list[int], list[Shared]]:
        """Duplicates of each split (rows like an earlier one of the same), and what each pair of splits shares."""
        duplicates = [0] * len(self._splits)
        pairs = list(combinations(range(len(self._splits)), 2))
        shared = dict.fromkeys(pairs, 0)
        examples: dict[tuple[int, int], list[int]] = {pair: [] for pair in pairs}
        for bucket in range(_BUCKETS):
            entries = [split.entries(bucket) for split in self._splits]
            known = [set(hashes) for hashes, _ in entries]
            for index, (hashes, _) in enumerate(entries):
                duplicates[index] += len(hashes) - len(known[index])
            for pair in pairs:
                found = list(_standing_in(entries[pair[1]], known[pair[0]]))
                shared[pair] += len(found)
                examples[pair] = sorted([*examples[pair], *found])[:_EXAMPLES]
        return duplicates, [
            Shared(*pair, shared[pair], [_unpacked(one) for one in examples[pair]]) for pair in pairs if shared[pair]
        ]


def _standing_in(later: tuple[Sequence[int], Sequence[int]], earlier: set[int]) -> Iterator[int]:
    return (position for hash_, position in zip(*later, strict=True) if hash_ in earlier)


def fingerprint(row: Row) -> int:
    """64 bits of the conversation: roles, texts, and where each text ends."""
    digest = blake2b(digest_size=8)
    for turn in row.turns:
        text = turn.content.encode("utf-8", errors="surrogatepass")
        digest.update(b"%s %d:" % (turn.role.encode(), len(text)))
        digest.update(text)
    return int.from_bytes(digest.digest(), "little")


class _Buckets:
    """One split's fingerprints, by the low bits of the hash."""

    def __init__(self, files: ExitStack) -> None:
        self._files = files
        self._buckets: list[SpooledTemporaryFile[bytes] | None] = [None] * _BUCKETS

    def add(self, hash_: int, position: Position) -> None:
        bucket = self._buckets[hash_ % _BUCKETS]
        if bucket is None:
            bucket = SpooledTemporaryFile(_BUCKET_MEMORY, prefix="fingerprints-")  # noqa: SIM115 - the stack closes it
            self._files.enter_context(bucket)
            self._buckets[hash_ % _BUCKETS] = bucket
        bucket.write(_PAIR.pack(hash_, _packed(position)))

    def entries(self, bucket: int) -> tuple[Sequence[int], Sequence[int]]:
        """Hashes and packed positions of one bucket."""
        file = self._buckets[bucket]
        both = array("Q")
        if file is not None:
            file.seek(0)
            both.frombytes(file.read())
        return both[::2], both[1::2]


def _packed(position: Position) -> int:
    """A position as a number that sorts as the file does; the lowest bits tell which kind it is."""
    line, group, row = position
    if row is None:
        return (line or 0) << 2
    if group is not None:
        return (group << _GROUP_SHIFT | row) << 2 | 2
    most = (1 << _ELEMENT_SHIFT) - 1
    return (min(row, most) << _ELEMENT_SHIFT | min(line or 0, most)) << 2 | 1


def _unpacked(packed: int) -> Position:
    kind, number = packed & 3, packed >> 2
    if kind == 0:
        return Position(line=number)
    if kind == 1:
        return Position(line=number & ((1 << _ELEMENT_SHIFT) - 1) or None, row=number >> _ELEMENT_SHIFT)
    return Position(row_group=number >> _GROUP_SHIFT, row=number & ((1 << _GROUP_SHIFT) - 1))
