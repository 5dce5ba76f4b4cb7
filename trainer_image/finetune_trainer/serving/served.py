"""The model as the HTTP side sees it: its name, its limits, its tokenisation, and its engine."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from finetune_trainer.serving.asks import Sampling

if TYPE_CHECKING:  # both import torch or transformers, and the HTTP side must start before these are loaded
    from finetune_trainer.serving.engine import Engine
    from finetune_trainer.serving.prompts import Prompts


@dataclass(frozen=True)
class Served:
    """A loaded model that has generated its first answer."""

    name: str
    context: int
    """Limit of prompt and answer together; with `encoder_decoder` of each."""
    vocabulary: int
    prompts: "Prompts"
    engine: "Engine"
    sampling: Sampling
    """Defaults for requests."""
    encoder_decoder: bool = False
    """Whether an answer is a separate text instead of the prompt's continuation."""
    created: int = field(default_factory=lambda: int(time.time()))
