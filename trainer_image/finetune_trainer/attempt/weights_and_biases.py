"""A job's run in Weights & Biases: transformers' integration, with limits on what it sends and how long it waits.

Its client is a separate program that by default collects much about machine, code and output. Here it sends only the
numbers and settings of the training.
"""

import logging
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any, cast

from finetune_api.names import TRACKERS_PREFIX
from finetune_api.trackers import WandB
from finetune_api.trainer import TrainerJob
from finetune_trainer.attempt.interruption import End
from finetune_trainer.attempt.mlflow_run import LOCAL_UID, RUNS_FOLDER
from finetune_trainer.storage.durable import whole_file
from finetune_trainer.storage.store_errors import UNTRUSTED

CLOUD = "https://api.wandb.ai"

INIT_SECONDS = 20.0
"""Time limit for starting a run."""

FINISH_SECONDS = 20.0
"""Time limit for pending data at the end; less than that for all trackers together."""

_CALL_SECONDS = 10
_RETRIES = 2
_OWN_KEY = "WANDB_API_KEY"
_KEY = f"{TRACKERS_PREFIX}{_OWN_KEY}"

OFFLINE_FOLDER = "wandb"
"""In the job's output folder: runs that its client saves as files, to be sent later with `wandb sync`."""

_MODE = "WANDB_MODE"

_TROUBLES = {
    "x509: ": UNTRUSTED,
    "no such host": "its name cannot be resolved",
    "connection refused": "nothing listens at its address",
    "deadline exceeded": "it takes too long",
    "returned error 401": "it does not accept the key in the Secret",
    "returned error 403": "the key in the Secret may not do this",
    "returned error 404": "trackers.wandb.baseURL leads to no server of Weights & Biases",
    "API key must": "the Secret's WANDB_API_KEY is not a key",
}
"""Its client is a Go program, whose errors arrive as text; the clearest first."""

_EXIT_CODE: dict[End, int] = {"Finished": 0, "Interrupted": 255, "Failed": 1}
"""These show as finished or failed; 255 is what its own client sends after Ctrl-C."""

_LOST = "Fatal error while uploading data"  # its client's message if a server stops accepting data

logger = logging.getLogger(__name__)


class NotReachableError(Exception):
    """Why no connection was tried; its text may be shown."""


def trouble_of(error: Exception) -> str | None:
    """A readable cause of the error, if the client's text is known; without that text, which contains addresses."""
    return next((why for what, why in _TROUBLES.items() if what in str(error)), None)


class NotTakenError(Exception):
    """The server accepted the run but then rejected data."""


class _Heard:
    """Receives the terminal output of wandb's client, the only place where it reports lost data."""

    def __init__(self) -> None:
        self.lost = False

    def info(self, msg: str) -> None:
        logger.debug(msg)

    def warning(self, msg: str) -> None:
        self.lost = self.lost or _LOST in msg
        logger.warning(msg)

    def error(self, msg: str) -> None:
        self.warning(msg)


def obstacle(job: TrainerJob) -> str | None:
    """Why no run will be started, as far as known before connecting."""
    if os.environ.get(_MODE) == "disabled":
        return f"{_MODE} is disabled"
    if _is_offline():
        return None
    if job.air_gapped and _asked(job).base_url is None:
        return "this site is air-gapped: name a server inside of it in trackers.wandb.baseURL"
    if _key(job):
        return None
    local = job.uid == LOCAL_UID
    return f"this shell has no {_OWN_KEY}" if local else f"the Secret of trackers.wandb has no {_OWN_KEY}"


def _is_offline() -> bool:
    """Whether the user asked for files instead of a server; `dryrun` is the older name."""
    return os.environ.get(_MODE) in ("offline", "dryrun")


def _key(job: TrainerJob) -> str:
    """The key from the job's Secret; without a cluster the shell's."""
    own = os.environ.get(_OWN_KEY, "") if job.uid == LOCAL_UID else ""
    return (os.environ.get(_KEY) or own).strip()


def _run_id(job: TrainerJob) -> str:
    """The run's id, the same for each attempt of a job; without a cluster it is saved in the output folder.

    Raises:
        TrainerError: ArtifactFailed, it cannot be saved.
    """
    if job.uid != LOCAL_UID:
        return job.uid
    note = Path(job.output) / RUNS_FOLDER / "wandb"
    if not note.is_file():
        whole_file(note, secrets.token_hex(8).encode())
    return note.read_text(encoding="ascii")


def integration(job: TrainerJob) -> Any:
    """The callback, with its run started: the job's UID is its id, so that each attempt resumes the same run.

    Raises:
        NotReachableError: it is unreachable, or there is no key.
        Exception: from wandb, if its server rejects the run.
    """
    asked = _asked(job)
    if why := obstacle(job):
        raise NotReachableError(why)
    os.environ |= {"WANDB_LOG_MODEL": "false", "WANDB_WATCH": "false", "WANDB_ERROR_REPORTING": "false"}
    import wandb
    from transformers.integrations.integration_utils import WandbCallback

    class Integration(WandbCallback):
        """Adds an end: transformers ends the run when the process exits, which must not wait.

        Steps that an earlier attempt logged are skipped.
        """

        def on_log(self, args: Any, state: Any, control: Any, model: Any = None, logs: Any = None, **more: Any) -> None:
            is_new = "eval_loss" in logs and logs["eval_loss"] != validated
            if state.global_step > last_step or (state.global_step == last_step and is_new):
                super().on_log(args, state, control, model, logs, **more)  # type: ignore[no-untyped-call]

        def trained(self) -> None:
            """The run ends with the attempt, not here."""

        def end(self, how: End) -> None:
            wandb.finish(exit_code=_EXIT_CODE[how])
            if heard.lost:
                raise NotTakenError

    settings, heard = _settings(job), _Heard()
    run = wandb.init(
        id=_run_id(job),
        resume=None if _is_offline() else "allow",
        name=f"{job.namespace}/{job.name}",
        entity=asked.entity,
        project=asked.project or job.spec.model_ref.name,
        settings=settings,
    )
    wandb.termsetup(settings, heard)
    last_step, validated = (run.summary.get(name, -1) for name in ("train/global_step", "eval/loss"))  # type: ignore[no-untyped-call]
    return Integration()  # type: ignore[no-untyped-call]


def url(_job: TrainerJob) -> str:
    """The run's page, or the folder of its files."""
    import wandb

    assert wandb.run is not None  # noqa: S101 - it has just started
    return OFFLINE_FOLDER if _is_offline() else str(wandb.run.url)


def _asked(job: TrainerJob) -> WandB:
    return cast("WandB", job.spec.trackers and job.spec.trackers.wandb)


def _settings(job: TrainerJob) -> Any:
    import wandb

    offline = _is_offline()
    folder = job.output if offline else tempfile.mkdtemp(prefix="wandb-")
    retries = {f"x_{what}_retry_max": _RETRIES for what in ("graphql", "file_stream", "file_transfer")}
    timeouts = {f"x_{what}_timeout_seconds": _CALL_SECONDS for what in ("graphql", "file_stream", "file_transfer")}
    return wandb.Settings(
        mode="offline" if offline else "online",
        base_url=_asked(job).base_url or CLOUD,
        api_key=_key(job) or None,
        root_dir=folder,  # its own folder is created below
        console="off",  # otherwise it sends the trainer's output
        save_code=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
        x_skip_transaction_log=not offline,  # only needed for a later upload from this disk, which is gone by then
        program="finetune-trainer",
        host="",
        silent=True,
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
        **retries,
        **timeouts,
    )
