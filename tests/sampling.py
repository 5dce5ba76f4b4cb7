"""Which rows of tests marked `alike` `make test` runs; `make test-all` runs all."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from zlib import crc32

ONE_OF = 9
"""That many rows of a test go by for each that a sample has; it has one of any test.

Odd, as rows are often four providers' times something: of a test with many, each provider has some.
"""


def beyond_a_sample(ids: Iterable[str]) -> Iterator[str]:
    """Those rows, of tests whose rows are alike, that a sample has no need of; `ids` are pytest's.

    Which row a test's sample begins with follows from the test's name: were it the first of each, one provider would
    have all of them.
    """
    tests: dict[str, list[str]] = defaultdict(list)
    for one in ids:
        tests[one.partition("[")[0]].append(one)
    for test, rows in tests.items():
        first = crc32(test.encode()) % min(ONE_OF, len(rows))
        yield from (row for number, row in enumerate(rows) if (number - first) % ONE_OF)
