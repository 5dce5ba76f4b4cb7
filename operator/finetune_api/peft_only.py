"""Finds LoRA adapters that only PEFT supports: other servers ignore some of their settings and answer differently."""

from collections.abc import Mapping
from typing import Any

_FIELDS = (
    "rank_pattern",
    "alpha_pattern",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "lora_bias",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
)
"""Fields of `adapter_config.json` that vLLM's `PEFTHelper` (0.33) does not read."""

CHANGING_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Prefixes of `init_lora_weights` that change the base model: the adapter's initial weights are subtracted from it, or
it is rounded. PEFT repeats that when it loads the adapter; others add the adapter to the unchanged base."""


def changes_the_base(config: Mapping[str, Any]) -> bool:
    """Whether an adapter needs its base model as changed by PEFT."""
    return str(config.get("init_lora_weights")).lower().startswith(CHANGING_THE_BASE)


def peft_only(config: Mapping[str, Any]) -> list[str]:
    """The fields of an adapter_config.json that only PEFT supports. vLLM rejects biases and silently ignores the rest.

    DoRA is not among them: `ArtifactRef.use_dora` records it.
    """
    biases = ["bias"] if config.get("bias") not in (None, "none") else []
    changing = ["init_lora_weights"] if changes_the_base(config) else []
    return biases + changing + [name for name in _FIELDS if config.get(name)]
