"""Conversations that stand in one column as text are known by their marks, however many there are."""

import time

import pytest

from finetune_trainer.data.fixes.chat_markup import markup_column


@pytest.mark.parametrize("piece", ["# Q:", "[INST]", "#", "# ", "\nUser:", "<|im_start|>"])
def test_a_text_of_marks_alone_is_looked_at_in_no_time(piece):
    begun = time.process_time()
    assert markup_column({"text": piece * (100_000 // len(piece))}) is None
    assert time.process_time() - begun < 2, "it takes a minute where each mark is a place to begin again"
