"""Device memory of a job: estimated before it starts, measured after it has run."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.base import ApiModel

Bytes = Annotated[int, Field(ge=0)]


class MemoryParts(ApiModel):
    """The estimate by purpose, in bytes; the parts add up to the whole."""

    weights: Bytes = Field(description="Weights of the base model as stored in memory.")
    adapters: Bytes = Field(0, description="LoRA's own weights.")
    gradients: Bytes = Field(description="Gradients of the trained parameters.")
    optimizer: Bytes = Field(description="AdamW's two moments of the trained parameters.")
    activations: Bytes = Field(description="Activations kept for the backward pass, including logits.")
    overhead: Bytes = Field(description="Workspace; on a CPU the process itself.")


class MemoryUse(ApiModel):
    """Memory of a GPU, or of the pod if it trains on a CPU."""

    device: Literal["GPU", "CPU"] = Field(description="Which memory: the GPU's, or the pod's on a CPU.")
    estimated_bytes: Bytes = Field(description="Estimated peak of the training, in bytes.")
    least_bytes: Bytes = Field(
        description="Estimated peak with the smallest passes and activation checkpointing, in bytes."
    )
    available_bytes: Bytes | None = Field(None, description="Available memory in bytes, if known.")
    fits: bool | None = Field(
        None,
        description="Whether leastBytes fits into availableBytes. If clearly not, the job ends; if only just "
        "not, it warns.",
    )
    parts: MemoryParts = Field(description="estimatedBytes by purpose, in bytes.")
    pass_tokens: Annotated[int, Field(ge=1)] = Field(
        description="Tokens of the largest forward and backward pass, with padding."
    )
    activation_checkpointing: bool = Field(
        description="Whether activations are recomputed in the backward pass: less memory, a third more time."
    )
    shards: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="Number of GPUs over which the model is sharded (FSDP), because it does not fit on each of "
        "them. Absent: not sharded.",
    )
    advice: Annotated[str, Field(max_length=1024)] | None = Field(
        None, description="Changes that would make it fit, if it does not."
    )
    peak_bytes: Bytes | None = Field(
        None, description="Measured peak in bytes: as allocated on the GPU; on a CPU, of the pod's memory."
    )
    error_percent: int | None = Field(
        None,
        description="Deviation of estimatedBytes from peakBytes in percent; positive if the estimate was too high.",
    )
    halvings: Annotated[int, Field(ge=0)] | None = Field(
        None, description="How often passes were halved because the GPU ran out of memory."
    )
