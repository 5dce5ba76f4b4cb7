"""The model as the HTTP side sees it: its name, its limits, how prompts become tokens, and the engine that answers."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from finetune_trainer.serving.asks import Sampling

if TYPE_CHECKING:  # both import torch or transformers; the HTTP side must be up before those are
    from finetune_trainer.serving.engine import Engine
    from finetune_trainer.serving.prompts import Prompts


@dataclass(frozen=True)
class Served:
    """A loaded model that has answered once."""

    name: str
    context: int
    """Tokens of prompt and answer together; with `encoder_decoder` of each."""
    vocabulary: int
    prompts: "Prompts"
    engine: "Engine"
    sampling: Sampling
    """What a request's missing settings are."""
    encoder_decoder: bool = False
    """Whether an answer is a text of its own, not the prompt's continuation."""
    created: int = field(default_factory=lambda: int(time.time()))
