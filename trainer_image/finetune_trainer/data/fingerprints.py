"""Which rows are exactly alike, within a split and across splits, in bounded memory.

A row is remembered as 8 bytes of hash and 8 of position, spread over 64 buckets by its hash. They are kept in memory up
to 4 MiB a split and in a temporary file beyond, and buckets are compared one at a time. So memory is 12 MiB for three
splits and about 2 bytes a row for the bucket at hand (200 MB at 100 million rows), however many are alike: a bucket is
read in parts. The disk takes 16 bytes a row.
Two unlike rows share a hash with a chance of one in 2^64: of 3,700 files with 100 million rows, one has such a pair.
The hash is Python's own, keyed anew in each process: it says nothing to another one.

Where it is asked for, questions are remembered too, with the hash of their row: the same one with several answers says
different things of one case. That is another 32 bytes a row, on the disk.

Where it is asked for, rows of several splits are remembered by their folded texts as well, for as many bytes: a test
set that was written anew in other letters measures what was learnt by heart, too. So do questions of both.
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
_UNSORTED = 1 << 16  # rows that wait until many are put into their buckets at once: runs are read bucket by bucket
_PAIR = 16  # bytes of a hash and a position
_EXAMPLES = 5
_WRITTEN_OTHERWISE = "also in {}, but for case, white space or Unicode form"
_ANSWERED_OTHERWISE = "with a question that {} answers otherwise"
_MOST_OF_A_BUCKET = 1 << 21
"""Rows of a bucket that are looked at together: where most are alike, or ask the same, one bucket has most of them."""


class Shared(NamedTuple):
    """Rows of a later split that stand in an earlier one too."""

    earlier: int
    later: int
    """Indices of the two splits."""
    rows: int
    examples: list[Position]
    """The first of them in the later split, at most five."""


class Contradiction(NamedTuple):
    """Rows of a split whose question other rows of it answer differently."""

    rows: int
    first: Position


class Alike(NamedTuple):
    """Rows of a later split that nearly stand in an earlier one."""

    earlier: int
    later: int
    rows: int
    first: Position
    how: str
    """As messages say it, with {} for the earlier one."""


class InCommon(NamedTuple):
    """What each pair of splits has in common."""

    same: list[Shared]
    alike: list[Alike]


class Fingerprints:
    """Fingerprints of the rows of several splits. A context manager: temporary files go with it.

    Args:
        splits: how many.
        questions: whether to look for such as have several answers: a third of what checking a row takes.
        folded: whether to look for rows that splits share but for how they are written: as much as checking a row.
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
        """Remember one row, or many."""
        hashes = [fingerprint(found)] if isinstance(found, Row) else list(fingerprints(found))
        places = [found.position.packed()] if isinstance(found, Row) else found.places
        self._splits[split].add(hashes, places)
        if self._questions:
            self._questions[split].add(_of_questions(found), hashes, places)
        if self._folded:
            self._folded[split].add(_of_folded(found), hashes, places)

    def contradictions(self) -> list[Contradiction | None]:
        """Of each split, where questions were looked at."""
        return [questions.contradiction() for questions in self._questions]

    def alike(self) -> list[Alike]:
        """What each pair of splits nearly has in common, by texts and by questions; rows that are the same are not."""
        return [
            Alike(earlier, later, *told, how)
            for how, splits in ((_WRITTEN_OTHERWISE, self._folded), (_ANSWERED_OTHERWISE, self._questions))
            for earlier, later in combinations(range(len(splits)), 2)
            if (told := splits[later].of_a_known_key(splits[earlier])) is not None
        ]

    def compare(self) -> tuple[list[int], list[Shared]]:
        """Duplicates of each split (rows like an earlier one of the same), and what each pair of splits shares."""
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
                for hashes, places in split.parts(bucket, _MOST_OF_A_BUCKET):
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
    """64 bits of the conversation: roles, texts, and where each text ends. Good for this process only.

    Of a row with two answers both count.
    """
    return hash((*_said(row.turns), *(() if row.rejected is None else (row.rejected,))))


def fingerprints(rows: Rows) -> Iterator[int]:
    """The same of many rows."""
    return _hashes(rows.roles, rows.contents)


def _said(turns: Sequence[Turn]) -> tuple[int | str, ...]:
    """Who speaks, as one number, and what each says."""
    return hash(tuple(turn.role for turn in turns)), *(turn.content for turn in turns)


def _hashes(roles: tuple[Role, ...], contents: tuple[Sequence[str], ...]) -> Iterator[int]:
    """Of what many say, row by row. The number of who speaks goes on without end: what is said ends it."""
    return map(hash, zip(repeat(hash(roles)), *contents, strict=False))


def _of_questions(found: Row | Rows) -> list[int]:
    """Of what each row asks."""
    if isinstance(found, Row):
        return [hash(_said(found.prompt))]
    return list(_hashes(found.roles[:-1], found.contents[:-1]))


def _of_folded(found: Row | Rows) -> list[int]:
    """Of each row's folded texts."""
    if isinstance(found, Rows):
        return list(map(hash, zip(repeat(hash(found.roles)), *map(_folded, found.contents), strict=False)))
    texts = [turn.content for turn in found.turns] + ([] if found.rejected is None else [found.rejected])
    return [hash((hash(tuple(turn.role for turn in found.turns)), *_folded(texts)))]


def _folded(texts: Sequence[str]) -> list[bytes]:
    """Texts without case, white space and forms of Unicode, together: one by one takes three times as long."""
    found = _fold(_SPLIT.join(texts)).split(_SPLIT.encode())
    return found if len(found) == len(texts) else list(map(_fold, texts))


def _fold(text: str) -> bytes:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return text.encode(errors="surrogatepass").translate(_LOWER, b" \t\n\r\v\f")


_SPLIT = "\N{UNIT SEPARATOR}"
_LOWER = bytes(range(256)).lower()


class _Keyed:
    """Rows of one split by a number that several may have: for each row the hash of it, and its position."""

    def __init__(self, files: ExitStack) -> None:
        self._rows, self._places = _Buckets(files), _Buckets(files)

    def add(self, keys: Sequence[int], hashes: Sequence[int], places: Sequence[int]) -> None:
        self._rows.add(keys, hashes)
        self._places.add(keys, places)

    def sort(self) -> None:
        self._rows.sort()
        self._places.sort()

    def rows(self, bucket: int) -> tuple[pa.Array, pa.Array]:
        """Keys and hashes of a bucket's rows."""
        return self._rows.entries(bucket, _MOST_OF_A_BUCKET)

    def places(self, bucket: int) -> pa.Array:
        """Packed positions of the same rows, in the same order."""
        return self._places.entries(bucket, _MOST_OF_A_BUCKET)[1]

    def of_a_known_key(self, earlier: "_Keyed") -> tuple[int, Position] | None:
        """Rows whose key an earlier split has, though not the row itself, and the first of them."""
        self.sort()
        earlier.sort()
        rows, first = 0, list[int]()
        for bucket in range(_BUCKETS):
            keys, of_row = self.rows(bucket)
            known, known_rows = earlier.rows(bucket)
            if len(known) == _MOST_OF_A_BUCKET:
                continue  # the row itself may be among those that are not compared
            other = pc.and_(pc.is_in(keys, value_set=known), pc.invert(pc.is_in(of_row, value_set=known_rows)))
            if count := other.true_count:
                found = self.places(bucket).filter(other)
                rows += count
                first.append(pc.min(found).as_py())
        return (rows, Position.unpacked(min(first))) if first else None

    def contradiction(self) -> Contradiction | None:
        """Rows whose key, a question, has several answers, and the first of them; both lists have them in one order."""
        self.sort()
        rows, first = 0, list[int]()
        for bucket in range(_BUCKETS):
            asked, of_row = self.rows(bucket)
            if len(pc.unique(asked)) == len(pc.unique(of_row)):
                continue  # as many questions as rows that differ: each has one answer
            known = pa.table({"asked": asked, "row": of_row}).group_by(["asked", "row"]).aggregate([])
            answers = known.group_by("asked").aggregate([([], "count_all")])
            several = answers["asked"].filter(pc.greater(answers["count_all"], 1))
            if len(several):
                found = self.places(bucket).filter(pc.is_in(asked, value_set=several.combine_chunks()))
                rows += len(found)
                first.append(pc.min(found).as_py())
        return Contradiction(rows, Position.unpacked(min(first))) if first else None


class _Buckets:
    """One split's fingerprints, by the low bits of the hash.

    They are written run by run, each sorted by bucket. A file for each bucket would be hundreds of open ones.
    """

    def __init__(self, files: ExitStack) -> None:
        self._file = files.enter_context(SpooledTemporaryFile(_MEMORY, prefix="fingerprints-"))  # noqa: SIM115 - the stack
        self._starts = array("q")
        """Where in the file each bucket of a run begins, and where the run ends: _BUCKETS + 1 places a run."""
        self._hashes, self._places = array("q"), array("q")
        """Of the last rows, which no run has yet."""

    def add(self, hashes: Iterable[int], places: Iterable[int]) -> None:
        self._hashes.fromlist(hashes if isinstance(hashes, list) else list(hashes))  # in half the time of extend
        if isinstance(places, range):
            self._places.frombytes(pa.arange(places.start, places.stop, places.step).buffers()[1])
        else:
            self._places.fromlist(list(places))
        if len(self._hashes) >= _UNSORTED:
            self.sort()

    def sort(self) -> None:
        """Make the last rows a run.

        Raises:
            TrainerError: ArtifactFailed, there is no room for it.
        """
        if not self._hashes:
            return
        pairs = array("q", bytes(_PAIR * len(self._hashes)))
        pairs[::2], pairs[1::2] = self._hashes, self._places
        numbers = pc.bit_wise_and(_integers(self._hashes), _LOW_BITS).cast(pa.uint8())
        stored = pa.FixedSizeBinaryArray.from_buffers(pa.binary(_PAIR), len(numbers), [None, pa.py_buffer(pairs)])
        counts = {one["values"]: one["counts"] for one in pc.value_counts(numbers).to_pylist()}
        sizes = (_PAIR * counts.get(bucket, 0) for bucket in range(_BUCKETS))
        with _room_for_them():
            self._starts.extend(accumulate(sizes, initial=self._file.seek(0, SEEK_END)))
            self._file.write(stored.take(pc.array_sort_indices(numbers)).buffers()[1])
        self._hashes, self._places = array("q"), array("q")

    def entries(self, bucket: int, most: int) -> tuple[pa.Array, pa.Array]:
        """Hashes and packed positions of one bucket, of so many rows at most."""
        return next(self.parts(bucket, most), (_integers(array("q")), _integers(array("q"))))

    def parts(self, bucket: int, most: int) -> Iterator[tuple[pa.Array, pa.Array]]:
        """All of them, so many at a time: where most rows are alike, one bucket has most of the file."""
        both = array("q")
        for run in range(bucket, len(self._starts), _BUCKETS + 1):
            start, end = self._starts[run], self._starts[run + 1]
            while start < end:
                with _room_for_them():  # what waits in a buffer is written before anything is read
                    self._file.seek(start)
                    part = self._file.read(min(_PAIR * most - both.itemsize * len(both), end - start))
                both.frombytes(part)
                start += len(part)
                if both.itemsize * len(both) == _PAIR * most:
                    yield _integers(both[::2]), _integers(both[1::2])
                    both = array("q")
        if both:
            yield _integers(both[::2]), _integers(both[1::2])


@contextmanager
def _room_for_them() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"a temporary file of the rows' hashes could not be written: {error.strerror}"
        raise TrainerError(Reason.ARTIFACT_FAILED, what, MORE_SCRATCH) from error


def _integers(values: "array[int]") -> pa.Array:
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values)])


_LOW_BITS = _integers(array("q", [_BUCKETS - 1]))[0]
"""Those that name a bucket. Of a number of Python's own pyarrow asks pandas, where there is one, and imports it."""
