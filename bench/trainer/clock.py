"""What a contender's process measures: times of steps, memory, and losses."""

import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.trainer.work import Task

_LEAST_TIMED = 2


def await_turn(file: str | None) -> None:
    """Wait until `file` exists: contenders may load at the same time, but run one after another."""
    while file and not Path(file).exists():
        time.sleep(0.1)


@dataclass
class Clock:
    """Records the ends of steps. Synchronises the GPU at each, for every contender alike."""

    task: Task
    started: float = field(default_factory=time.monotonic)
    """When the model was loaded and training could start."""
    ends: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """CPU seconds of this process so far: little affected by other processes of the machine."""
    tokens: list[int] = field(default_factory=list)

    def step(self, tokens: int) -> bool:
        """Record the end of a step with its tokens without padding; returns whether the time is over."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.monotonic())
        self.cpu.append(time.process_time())
        self.tokens.append(tokens)
        timed = len(self.ends) - self.task.warm_up
        return timed >= _LEAST_TIMED and self.ends[-1] - self.ends[self.task.warm_up - 1] > self.task.seconds

    def result(self, losses: list[float], held_out: float | None) -> dict[str, Any]:
        """Everything measured about the contender."""
        import torch

        cuda, warm_up = torch.cuda.is_available(), self.task.warm_up
        seconds, computed = (marks[-1] - marks[warm_up - 1] for marks in (self.ends, self.cpu))
        memory = torch.cuda.max_memory_reserved() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        timed = sum(self.tokens[warm_up:])
        return {
            "tokens_per_second": timed / seconds,
            "tokens_per_cpu_second": timed / computed,
            "timed_steps": len(self.ends) - warm_up,
            "tokens": sum(self.tokens),
            "peak_bytes": memory,
            "first_step_seconds": self.ends[0] - self.started,
            "losses": losses,
            "held_out_loss": held_out,
        }
