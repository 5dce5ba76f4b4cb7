"""torchrun in the pod: one process per GPU, on each node of an attempt. It reads no data and trains nothing.

The nodes rendezvous at the agent of the first node. A failing rank ends its node's attempt: the pod's exit code and
termination message are those of the rank that failed first, so that the operator sees the cause instead of the errors
that follow from it.
"""

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from finetune_api.exit_codes import ExitCode
from finetune_api.names import NODE_VARIABLE, TERMINATION_MESSAGE_PATH
from finetune_api.reasons import Reason
from finetune_api.trainer import DONE, TrainerJob, read_termination_message
from finetune_trainer.attempt import outcome
from finetune_trainer.attempt.interruption import Interruption

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

RANK_VARIABLE = "RANK"
_FOLDER_VARIABLE = "FINETUNE_RANKS"
_RENDEZVOUS_SECONDS = 3600
"""How long a node waits for the others, which may have to pull images first."""

_LAST_CHECKPOINT_SECONDS = 110
"""Time between SIGTERM and SIGKILL for the ranks; shorter than the pod's grace period."""

_SIGNALLED = 128

logger = logging.getLogger(__name__)


def is_needed(job: TrainerJob) -> bool:
    """Whether this process has to start ranks, and is not one itself."""
    return job.nodes * job.ranks_per_node > 1 and not is_rank()


def is_rank() -> bool:
    """Whether torchrun started this process."""
    return RANK_VARIABLE in os.environ


def is_reporting_rank() -> bool:
    """Whether this process reports: rank 0 does, for all."""
    return os.environ.get(RANK_VARIABLE, "0") == "0"


def main(job: TrainerJob, command: Sequence[str] = ("train",), message: Path = Path(TERMINATION_MESSAGE_PATH)) -> int:
    """Run this node's ranks to their end; returns 0, or the exit code of the first rank that failed."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, launch_agent

    with tempfile.TemporaryDirectory(prefix="finetune-ranks-") as folder, _signals_end_the_rendezvous():
        os.environ[_FOLDER_VARIABLE] = folder
        first: int | None = None
        try:
            launch_agent(LaunchConfig(**_options(job)), sys.executable, ["-m", "finetune_trainer", *command])
            code = int(ExitCode.OK)
        except ChildFailedError as error:
            first, code = _cause(error, Path(folder))
        except SignalException:
            code = int(ExitCode.OK if _is_done(Path(folder)) else ExitCode.INTERRUPTED)
        except (RuntimeError, TimeoutError, OSError) as error:
            logger.error("The nodes of this attempt did not meet.", exc_info=error)  # noqa: TRY400 - it is expected
            outcome.say(f"Interrupted: the nodes of this attempt did not meet at {job.rendezvous}.")
            code = int(ExitCode.INTERRUPTED)
        finally:
            del os.environ[_FOLDER_VARIABLE]
        _pass_on(Path(folder), first, message)
    return code


def job_for_reporter(job: TrainerJob) -> TrainerJob:
    """The job for this rank's reporter: only rank 0 reports to the operator."""
    return job if is_reporting_rank() else job.model_copy(update={"report": None})


def message_path() -> Path:
    """Path of this process's termination message: the pod's, unless several ranks share the pod."""
    folder = os.environ.get(_FOLDER_VARIABLE)
    return Path(folder) / os.environ[RANK_VARIABLE] if folder else Path(TERMINATION_MESSAGE_PATH)


def node_file(name: str) -> Path:
    """Path of a file shared by all ranks of this pod, deleted with them."""
    return Path(os.environ[_FOLDER_VARIABLE]) / name


def scratch() -> Path:
    """A folder of this rank only, deleted with its pod."""
    return Path(tempfile.mkdtemp(prefix="finetune-rank-", dir=os.environ[_FOLDER_VARIABLE]))


def _is_done(messages: Path) -> bool:
    """Whether the first rank, if on this node, has finished: then only the waiting agent was stopped."""
    first = messages / "0"
    report = read_termination_message(first.read_text(encoding="utf-8")) if first.is_file() else None
    return report is not None and report.phase in DONE


def _cause(error: "ChildFailedError", messages: Path) -> tuple[int, int]:
    """The rank whose failure caused all others, and its exit code.

    The agent polls, and records whole seconds: a rank that failed because another one is gone may exit before that one,
    which takes long to free its GPU. Their termination messages tell cause and consequence apart.
    """
    codes = {rank: one.exitcode for rank, one in error.failures.items()}
    ended = {rank: code if code > 0 else _SIGNALLED - code for rank, code in codes.items()}  # as a container reports it
    own = [rank for rank in ended if ended[rank] != ExitCode.INTERRUPTED]
    if own:
        first = min(own, key=lambda rank: error.failures[rank].timestamp)
        return first, ended[first]
    for path in _left(messages):
        report = read_termination_message(path.read_text(encoding="utf-8"))
        failure = report.failure if report is not None and report.phase == "Failed" else None
        if failure is not None and failure.exit_code and failure.reason is not Reason.INTERRUPTED:
            return int(path.name), failure.exit_code
    first, _ = error.get_first_failure()
    return first, ended[first]


def _left(messages: Path) -> list[Path]:
    """The messages of this node's ranks, lowest rank first."""
    return sorted((path for path in messages.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))


def _pass_on(messages: Path, failed: int | None, message: Path) -> None:
    """Copy the message of the rank that failed, otherwise of the lowest rank, to the pod's."""
    source = next((path for path in _left(messages) if failed is None or path.name == str(failed)), None)
    if source is None:
        return
    try:
        shutil.copyfile(source, message)
    except OSError as error:
        logger.info("No termination message was left at %s: %s", message, error.strerror)


def _options(job: TrainerJob) -> dict[str, Any]:
    """Arguments of torchrun's LaunchConfig."""
    alone = job.nodes == 1
    node_rank = {} if alone else {"rank": int(os.environ[NODE_VARIABLE])}
    return {
        "min_nodes": job.nodes,
        "max_nodes": job.nodes,
        "nproc_per_node": job.ranks_per_node,
        "run_id": f"{job.uid}-{job.attempt}",
        "rdzv_backend": "c10d" if alone else "static",
        "rdzv_endpoint": "localhost:0" if alone else job.rendezvous or "",
        "rdzv_configs": {**node_rank, "timeout": _RENDEZVOUS_SECONDS},
        "local_addr": "localhost" if alone else None,
        "max_restarts": 0,  # the operator's next attempt is the restart: it knows why the last one ended
        "signals_to_handle": "SIGTERM,SIGINT",
        "shutdown_timeout": _LAST_CHECKPOINT_SECONDS,
        "virtual_local_rank": _has_gpus(),
    }


def _has_gpus() -> bool:
    """Whether each rank gets its own GPU, the only one it sees."""
    import torch

    return torch.cuda.is_available()


@contextmanager
def _signals_end_the_rendezvous() -> Iterator[None]:
    """Exit on SIGTERM during the rendezvous, which waits in C++, where Python's handlers do not run.

    Once the ranks run, torch's own handlers are installed and take over.
    """
    ours = signal.signal(signal.SIGTERM, _end_at_once), signal.signal(signal.SIGINT, _end_at_once)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def listen() -> None:
        while os.read(reader, 1):
            if signal.getsignal(signal.SIGTERM) is _end_at_once:
                _end_at_once()

    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        listener.join()
        os.close(reader)
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), ours, strict=True):
            signal.signal(number, signal.SIG_IGN if Interruption.ends_the_process else handler)


def _end_at_once(*_: object) -> NoReturn:
    """Exit at once, since nothing was started that could be lost."""
    outcome.say("Interrupted before the ranks began.")
    os._exit(ExitCode.INTERRUPTED)
