"""What is made ahead comes in order, and its errors behind all that came before them."""

import threading

import pytest

from finetune_trainer.data.ahead import ahead


def test_what_is_made_ahead_comes_in_order_and_its_error_behind_it():
    def made():
        yield from range(1, 5)
        raise OSError("broken")

    found = ahead(made())
    assert [next(found) for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(OSError, match="broken"):
        next(found)


def test_the_next_is_made_while_the_one_before_is_looked_at():
    began = threading.Event()

    def made():
        yield 1
        began.set()
        yield 2

    found = ahead(made())
    assert next(found) == 1
    assert began.wait(10)
    assert list(found) == [2]


def test_closing_it_closes_what_it_reads_and_ends_its_thread():
    closed = threading.Event()

    def made():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    found = ahead(made())
    next(found)
    found.close()
    assert closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reads-ahead")]
