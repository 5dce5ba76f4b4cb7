"""spec.preference: learn which of two answers is better, instead of learning the answers."""

from typing import Annotated

from pydantic import Field

from finetune_api.base import ApiModel


class Preference(ApiModel):
    """Direct preference optimisation (DPO): without a reward model, and staying near the base model."""

    beta: Annotated[float, Field(gt=0, le=10)] = Field(
        0.1,
        description="How close the tuned model stays to the base model: smaller values allow larger changes. At "
        "OpenAI and Azure OpenAI at most 2.",
    )
    label_smoothing: Annotated[float, Field(ge=0, le=0.49)] = Field(  # below 0.5: the API server would refuse a plain 0
        0.0,
        description="Assumed fraction of rows in which chosen and rejected are swapped by mistake (conservative "
        "DPO). Not available at OpenAI and Azure OpenAI.",
    )

    def __str__(self) -> str:
        """As reports show it."""
        smoothing = f", label smoothing {self.label_smoothing:g}" if self.label_smoothing else ""
        return f"DPO, beta {self.beta:g}{smoothing}"
