"""Freed memory between blocks in use goes back to the system."""

import os
from pathlib import Path

import pytest

from finetune_trainer.computing import heap


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif("glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="another C library")
def test_gaps_between_blocks_go_back():
    blocks = [bytearray(b"x" * 50_000) for _ in range(2000)]
    kept = blocks[::2]
    del blocks
    before = resident()
    heap.trim()
    assert before - resident() > 30 * 2**20
    assert len(kept) == 1000


def test_without_such_a_function_nothing_happens(monkeypatch):
    asked = []
    monkeypatch.setattr(heap, "_malloc_trim", lambda: asked.append("the C library"))  # and gives None, as it has none
    heap.trim()
    assert asked == ["the C library"]
