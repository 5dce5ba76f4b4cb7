"""What a contender's process measures and prints: one line of JSON."""

import json
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def await_turn(file: str | None) -> None:
    """Wait until `file` is there: contenders may be loaded beside one another, but they run one after the other."""
    while file and not Path(file).exists():
        time.sleep(0.1)


@dataclass
class Clock:
    """Steps as they end. A GPU is waited for at each, in every contender alike."""

    warm_up: int
    limit_seconds: float
    started: float = field(default_factory=time.monotonic)
    """When the model was there and training could begin."""
    ends: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def step(self, tokens: int) -> bool:
        """A step of so many tokens without padding has ended; whether the time is over."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.monotonic())
        self.tokens.append(tokens)
        timed = len(self.ends) > self.warm_up
        return timed and self.ends[-1] - self.ends[self.warm_up - 1] > self.limit_seconds

    def say(self, contender: str, losses: list[float]) -> None:
        """Print the result."""
        import torch

        cuda = torch.cuda.is_available()
        seconds = self.ends[-1] - self.ends[self.warm_up - 1]
        memory = torch.cuda.max_memory_reserved() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        result: dict[str, Any] = {
            "contender": contender,
            "tokens_per_second": sum(self.tokens[self.warm_up :]) / seconds,
            "timed_steps": len(self.ends) - self.warm_up,
            "tokens": sum(self.tokens),
            "peak_bytes": memory,
            "first_step_seconds": self.ends[0] - self.started,
            "losses": losses,
        }
        sys.stdout.write(f"RESULT {json.dumps(result)}\n")
        sys.stdout.flush()
