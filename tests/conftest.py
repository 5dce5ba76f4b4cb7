"""How tests are spread over pytest's workers: those with real pods on one, first and in order; others by module."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
ONE_BY_ONE = ("e2e", "cluster", "contract")
"""Folders whose tests share a cluster, the longest first: a worker that begins with them ends with the others."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its group for `--dist loadgroup`, and put the long groups first."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item.path)))
    items.sort(key=lambda item: _rank(item.path))


def _group(path: Path) -> str:
    folder = path.relative_to(HERE).parts[0]
    return folder if folder in ONE_BY_ONE else str(path)


def _rank(path: Path) -> int:
    folder = path.relative_to(HERE).parts[0]
    return ONE_BY_ONE.index(folder) if folder in ONE_BY_ONE else len(ONE_BY_ONE)
