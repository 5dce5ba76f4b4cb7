"""What a job takes of a device's memory: thought before it starts, measured when it has run."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.base import ApiModel

Bytes = Annotated[int, Field(ge=0)]


class MemoryParts(ApiModel):
    """The estimate by what it is for, in bytes; together they are the whole."""

    weights: Bytes = Field(description="The base model's weights as they lie in memory.")
    adapters: Bytes = Field(0, description="LoRA's own weights.")
    gradients: Bytes = Field(description="Gradients of what is trained.")
    optimizer: Bytes = Field(description="AdamW's two moments of what is trained.")
    activations: Bytes = Field(description="What a pass keeps for its way back, logits included.")
    overhead: Bytes = Field(description="Workspace; on a CPU the program itself.")


class MemoryUse(ApiModel):
    """Memory of one GPU, or of the pod where it trains on a CPU."""

    device: Literal["GPU", "CPU"] = Field(description="Whose memory it is.")
    estimated_bytes: Bytes = Field(description="What training is thought to take at its peak.")
    least_bytes: Bytes = Field(description="The same with the smallest passes and activation checkpointing.")
    available_bytes: Bytes | None = Field(None, description="What there is for it, where that is known.")
    fits: bool | None = Field(
        None, description="Whether leastBytes fit into availableBytes. A clear no ends the job; a narrow one warns."
    )
    parts: MemoryParts = Field(description="estimatedBytes by what it is for, each in bytes.")
    pass_tokens: Annotated[int, Field(ge=1)] = Field(
        description="Tokens of the largest forward and backward pass, with padding."
    )
    activation_checkpointing: bool = Field(
        description="Whether activations are computed again on the way back: less memory, a third more time."
    )
    shards: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="Ranks among which the model is shared out, since it does not fit on each of them (FSDP). Absent: "
        "each holds all of it.",
    )
    advice: Annotated[str, Field(max_length=1024)] | None = Field(
        None, description="What would make it fit, where it does not."
    )
    peak_bytes: Bytes | None = Field(
        None, description="Most that training took: of the GPU as allocated, on a CPU of the pod's memory."
    )
    error_percent: int | None = Field(
        None, description="How far estimatedBytes lie above peakBytes (below: negative), in percent."
    )
    halvings: Annotated[int, Field(ge=0)] | None = Field(
        None, description="How often passes were halved because the GPU's memory was not enough."
    )
