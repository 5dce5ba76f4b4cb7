"""Which LoRA adapters PEFT alone reads: what servers of adapters leave out, they would answer as another model for."""

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
"""Of `adapter_config.json` what vLLM's `PEFTHelper` (0.33) does not read."""


def peft_only(config: Mapping[str, Any]) -> list[str]:
    """The fields of an adapter_config.json that PEFT alone heeds; vLLM refuses biases, and says nothing of the others.

    DoRA is not among them: `ArtifactRef.use_dora` tells of it.
    """
    biases = ["bias"] if config.get("bias") not in (None, "none") else []
    return biases + [name for name in _FIELDS if config.get(name)]
