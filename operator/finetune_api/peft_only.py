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

CHANGING_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""How `init_lora_weights` begins where the base model is another one afterwards: what the adapter begins with is taken
out of it, or it is rounded. PEFT does that again when it loads the adapter; others add it to the base as it was."""


def changes_the_base(config: Mapping[str, Any]) -> bool:
    """Whether an adapter is meant for its base model as PEFT has changed it."""
    return str(config.get("init_lora_weights")).lower().startswith(CHANGING_THE_BASE)


def peft_only(config: Mapping[str, Any]) -> list[str]:
    """The fields of an adapter_config.json that PEFT alone heeds; vLLM refuses biases, and says nothing of the others.

    DoRA is not among them: `ArtifactRef.use_dora` tells of it.
    """
    biases = ["bias"] if config.get("bias") not in (None, "none") else []
    changing = ["init_lora_weights"] if changes_the_base(config) else []
    return biases + changing + [name for name in _FIELDS if config.get(name)]
