"""Selects the rows of tests marked `alike` that `make test` runs; `make test-all` runs all."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from zlib import crc32

ONE_OF = 9
"""The sample has every ninth row of a test, and at least one.

Odd, as the number of rows is often a multiple of four providers: this way a sample of many rows has each provider.
"""


def beyond_a_sample(ids: Iterable[str]) -> Iterator[str]:
    """The rows that are not in the sample; `ids` are pytest's.

    The first row of a test's sample follows from the test's name: if it were always the first row, all would be of one
    provider.
    """
    tests: dict[str, list[str]] = defaultdict(list)
    for one in ids:
        tests[one.partition("[")[0]].append(one)
    for test, rows in tests.items():
        first = crc32(test.encode()) % min(ONE_OF, len(rows))
        yield from (row for number, row in enumerate(rows) if (number - first) % ONE_OF)
