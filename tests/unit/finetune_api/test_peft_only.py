"""Adapters that PEFT alone reads are told from those that any server of adapters does."""

from typing import Any

import pytest

from finetune_api.peft_only import peft_only


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({}, []),
        ({"bias": "none", "rank_pattern": {}, "alpha_pattern": {}, "lora_bias": False, "use_dora": True}, []),
        ({"trainable_token_indices": None, "layer_replication": None, "use_rslora": True}, []),
        ({"bias": "lora_only"}, ["bias"]),
        ({"bias": "all", "rank_pattern": {"q_proj": 8}}, ["bias", "rank_pattern"]),
        ({"init_lora_weights": "pissa_niter_16"}, ["init_lora_weights"]),
        ({"init_lora_weights": "gaussian", "trainable_token_indices": []}, []),
        ({"trainable_token_indices": [1, 2]}, ["trainable_token_indices"]),
    ],
)
def test_what_vllm_does_not_read_is_named(config: dict[str, Any], found: list[str]) -> None:
    assert peft_only(config) == found
