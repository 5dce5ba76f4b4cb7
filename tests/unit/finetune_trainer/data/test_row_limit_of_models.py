"""How many tokens a model was made for, and what is said of longer rows."""

from typing import Any

import pytest

from finetune_trainer.data.row_limit import beyond_context, context_length

LLAMA = {"model_type": "llama", "max_position_embeddings": 2048}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
CASES: dict[str, tuple[dict[str, Any], int | None]] = {
    "as it says": (LLAMA, 2048),
    "a table has its own": ({**LLAMA, "model_type": "gpt2"}, None),
    "it says nothing": ({"model_type": "mamba"}, None),
    "no number": ({"max_position_embeddings": "2048"}, None),
    "none": ({"max_position_embeddings": -1}, None),
    "of a model with pictures": ({"model_type": "gemma3", "text_config": LLAMA}, 2048),
    "stretched by others": ({**LLAMA, "rope_scaling": YARN}, 8192),
    "stretched by its makers": ({**LLAMA, "max_position_embeddings": 8192, "rope_parameters": YARN}, 8192),
    "stretched without a beginning": ({**LLAMA, "rope_scaling": {"type": "dynamic", "factor": 2}}, 4096),
    "of layers of two kinds": ({**LLAMA, "rope_parameters": {"full_attention": YARN, "sliding_attention": {}}}, 8192),
    "odd stretches": ({**LLAMA, "rope_scaling": {"factor": float("inf"), "short_factor": [1.0]}}, 2048),
    "no length": ({**LLAMA, "rope_scaling": {**YARN, "original_max_position_embeddings": 10**400}}, 2048),
    "no stretch": ({**LLAMA, "rope_scaling": "linear"}, 2048),
}


@pytest.mark.parametrize("name", CASES)
def test_a_model_was_made_for_as_many_tokens_as_its_configuration_says(name: str) -> None:
    config, known = CASES[name]
    assert context_length(config) == known


@pytest.mark.parametrize(
    ("longest", "limit", "said"), [(2049, 4096, "2,049"), (9000, 4096, "4,096"), (9000, 2048, None), (2048, 4096, None)]
)
def test_rows_that_are_learnt_from_beyond_that_are_told(longest: int, limit: int, said: str | None) -> None:
    told = beyond_context(longest, limit, context_length(LLAMA))
    assert told is None if said is None else told is not None and f"has {said} tokens" in told


def test_of_a_model_that_was_made_for_any_length_nothing_is_said() -> None:
    assert beyond_context(10**6, 10**6, None) is None
