"""Ranks without torchrun: processes that find each other by the variables that it would set, on this machine's CPU."""

import os
import socket
import sys
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

from finetune_api.trainer import TrainerJob
from finetune_trainer import launch, outcome, train
from finetune_trainer.interruption import Interruption
from finetune_trainer.report import Reporter

_LIBRARIES = ["peft", "transformers.models.llama.modeling_llama"]


def context() -> ForkServerContext:
    """Processes that need not import torch each for itself."""
    made = get_context("forkserver")
    made.set_forkserver_preload([*_LIBRARIES, "finetune_trainer.step_trainer", __name__])
    return made


def start(size: int, target: Callable[..., None], *arguments: Any) -> list[BaseProcess]:
    """`target(*arguments)` in each of so many ranks; one rank is a process like any other."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    processes = [context().Process(target=_rank, args=(rank, size, port, target, arguments)) for rank in range(size)]
    for process in processes:
        process.start()
    return processes


def ended(processes: list[BaseProcess], seconds: float = 120) -> list[int | None]:
    """The exit codes of ranks that have to end."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    return codes


def do(job: TrainerJob, messages: str) -> None:
    """What `finetune-trainer train` does in one rank, with data that may be files of this machine."""
    os.environ["FINETUNE_RANKS"] = messages
    reporter, interruption = Reporter(job, termination_path=launch.message_path()), Interruption()
    sys.exit(
        outcome.run_to_end(lambda: train.execute(job, reporter, interruption, allow_local=True), reporter, interruption)
    )


def _rank(rank: int, size: int, port: int, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "RANK": str(rank)}
    if size > 1:
        os.environ |= {"WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    target(*arguments)
