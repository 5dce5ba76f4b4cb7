"""A failure is shown, whatever the garbage collector ends meanwhile: pytest reads the source of where it happened."""

import ast
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(ast.__file__).read_text(encoding="utf-8")


class MakesATree:
    """Rubbish that only the collector finds, and that makes a tree deep in the stack when it goes."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        _deep_down(20)


def _deep_down(calls: int) -> None:
    if calls:
        _deep_down(calls - 1)
    else:
        ast.parse("x = 1")


@pytest.fixture
def eager_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(50)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("eager_collector")
def test_a_tree_is_made_whole_while_rubbish_waits_that_makes_one_too() -> None:
    rubbish = [MakesATree() for _ in range(200)]
    del rubbish
    assert ast.parse(SOURCE).body
