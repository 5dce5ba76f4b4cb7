"""Ranks without torchrun: processes connected by the variables that it would set, on this machine's CPU."""

import faulthandler
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from finetune_api.trainer import TrainerJob, read_termination_message
from finetune_trainer import train
from finetune_trainer.attempt import launch, outcome
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.models import memory_fit
from tests.cluster.ports import free_port
from tests.forking import forking
from tests.unit.finetune_trainer.jobs import make_job, write_rows


def context() -> ForkServerContext:
    """A fork server that has imported torch. Its processes cannot use a GPU."""
    if torch.cuda.is_available():
        pytest.skip("ranks of tests share a CPU")
    return forking("tests.unit.finetune_trainer.warm", __name__)


def start(size: int, target: Callable[..., None], *arguments: Any) -> list[BaseProcess]:
    """Run `target(*arguments)` in each of `size` ranks; a single rank runs without a process group."""
    port = free_port()
    processes = [context().Process(target=_rank, args=(rank, size, port, target, arguments)) for rank in range(size)]
    for process in processes:
        process.start()
    return processes


def ended(processes: list[BaseProcess], seconds: float = 120) -> list[int | None]:
    """The exit codes of ranks that must end; None for one that does not, with its stack on stderr."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.is_alive():
            os.kill(cast("int", process.pid), signal.SIGABRT)
            process.join(5)
        process.kill()
        process.join()
    return codes


def do(job: TrainerJob, messages: str) -> None:
    """Run `finetune-trainer train` in one rank, with data that may be local files."""
    os.environ["FINETUNE_RANKS"] = messages
    reporter, interruption = Reporter(job, termination_path=launch.message_path()), Interruption()
    sys.exit(
        outcome.run_to_end(lambda: train.execute(job, reporter, interruption, allow_local=True), reporter, interruption)
    )


def do_sharing(job: TrainerJob, messages: str) -> None:
    """As `do`, as if no rank had memory for the whole model."""
    here = memory_fit.room_here()
    memory_fit.room_here = lambda: replace(here, available=1)
    # The parts gathered at a time are more than half of a tiny model, so the estimate would refuse this.
    memory_fit.sharded = lambda need, size: replace(need, setup=replace(need.setup, shards=size))
    do(job, messages)


def job_of(folder: Path, cache: Path, **spec: object) -> TrainerJob:
    """A job with epochs of ten steps, the last one short, with dropout as the only randomness."""
    job = make_job(folder, cache, **{"lora": {"dropout": 0.1}, **spec})
    write_rows(folder / "train.jsonl", 75, seed=0)
    return job.model_copy(update={"report": None})


def steps_done(job: TrainerJob) -> int:
    record = Path(job.output) / "metrics.jsonl"
    return record.read_text().count('"loss"') if record.exists() else 0


def wait_for_step(job: TrainerJob, step: int, processes: list[BaseProcess]) -> None:
    end = time.monotonic() + 120
    while steps_done(job) < step:
        if time.monotonic() > end or not all(process.is_alive() for process in processes):
            raise AssertionError(f"it did not get there: {ended(processes, 0)}")
        time.sleep(0.005)


def started(job: TrainerJob, size: int, work: Callable[[TrainerJob, str], None] | None = None) -> list[BaseProcess]:
    """Start the job's ranks, which run `work`, by default `do`."""
    messages = Path(job.output).parent / "messages"
    messages.mkdir(exist_ok=True)
    return start(size, work or do, job, str(messages))


def message(job: TrainerJob, rank: int) -> str | None:
    told = read_termination_message((Path(job.output).parent / "messages" / str(rank)).read_text())
    return told.failure.reason if told and told.failure else told and told.phase


def learnt(job: TrainerJob) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(job.output) / "metrics.jsonl").read_text().splitlines()]


def _rank(rank: int, size: int, port: int, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    faulthandler.enable()
    torch.set_num_threads(1)  # the fork server imported it with one thread per processor
    os.environ |= {"OMP_NUM_THREADS": "1", "RANK": str(rank)}
    if size > 1:
        os.environ |= {"WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # otherwise the interface of the host name's address
    target(*arguments)
