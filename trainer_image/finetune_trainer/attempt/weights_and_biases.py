"""A job's run in Weights & Biases: transformers' integration, told what to send and when to give up.

Its client is a program of its own that collects much about machine, code and output by itself. Here it sends the
numbers and settings of the training alone.
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
"""How long the start of a run may take."""

FINISH_SECONDS = 20.0
"""How long what is on its way may take at the end; less than what all trackers have together."""

_CALL_SECONDS = 10
_RETRIES = 2
_OWN_KEY = "WANDB_API_KEY"
_KEY = f"{TRACKERS_PREFIX}{_OWN_KEY}"

OFFLINE_FOLDER = "wandb"
"""Below the job's output: runs that its client keeps in files, for `wandb sync` to send later."""

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
"""Its client is a Go program, whose errors arrive as text: what they say, the plainest first."""

_EXIT_CODE: dict[End, int] = {"Finished": 0, "Interrupted": 255, "Failed": 1}
"""By which a run is called finished or failed; 255 is what its own client sends after Ctrl-C."""

_LOST = "Fatal error while uploading data"  # how its client says that a server took no more

logger = logging.getLogger(__name__)


class NotReachableError(Exception):
    """Why nothing was tried; its text may be shown."""


def trouble_of(error: Exception) -> str | None:
    """Why a server was not heard, in words, where the client's text tells; nothing of the text, which has addresses."""
    return next((why for what, why in _TROUBLES.items() if what in str(error)), None)


class NotTakenError(Exception):
    """The server took the run, and then no more of it."""


class _Heard:
    """Where wandb's client says what it would print: of data that are lost it tells nobody else."""

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
    """Why no run will be begun, as far as it is known before anything is tried."""
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
    """Whether whoever runs this has asked for files in place of a server; `dryrun` is its older name."""
    return os.environ.get(_MODE) in ("offline", "dryrun")


def _key(job: TrainerJob) -> str:
    """From the job's Secret; without a cluster there is none, and the key is that of the shell."""
    own = os.environ.get(_OWN_KEY, "") if job.uid == LOCAL_UID else ""
    return (os.environ.get(_KEY) or own).strip()


def _run_id(job: TrainerJob) -> str:
    """The same for each attempt of a job, and no other's; without a cluster it is noted in the output folder.

    Raises:
        TrainerError: ArtifactFailed, it cannot be noted.
    """
    if job.uid != LOCAL_UID:
        return job.uid
    note = Path(job.output) / RUNS_FOLDER / "wandb"
    if not note.is_file():
        whole_file(note, secrets.token_hex(8).encode())
    return note.read_text(encoding="ascii")


def integration(job: TrainerJob) -> Any:
    """The callback, with its run begun: the job's UID is its id, so that each attempt goes on with the same one.

    Raises:
        NotReachableError: it cannot be reached from here, or has no key.
        Exception: what wandb raises where its server does not take the run.
    """
    asked = _asked(job)
    if why := obstacle(job):
        raise NotReachableError(why)
    os.environ |= {"WANDB_LOG_MODEL": "false", "WANDB_WATCH": "false", "WANDB_ERROR_REPORTING": "false"}
    import wandb
    from transformers.integrations.integration_utils import WandbCallback

    class Integration(WandbCallback):
        """With an end: transformers leaves it to the end of the process, which must not wait.

        An earlier attempt's steps come once more, and are not told again.
        """

        def on_log(self, args: Any, state: Any, control: Any, model: Any = None, logs: Any = None, **more: Any) -> None:
            untold = "eval_loss" in logs and logs["eval_loss"] != validated
            if state.global_step > told or (state.global_step == told and untold):
                super().on_log(args, state, control, model, logs, **more)  # type: ignore[no-untyped-call]

        def trained(self) -> None:
            """It is over when the attempt is."""

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
    told, validated = (run.summary.get(name, -1) for name in ("train/global_step", "eval/loss"))  # type: ignore[no-untyped-call]
    return Integration()  # type: ignore[no-untyped-call]


def url(_job: TrainerJob) -> str:
    """The run's page, or the folder of its files."""
    import wandb

    assert wandb.run is not None  # noqa: S101 - it has just begun
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
        root_dir=folder,  # below it there is one of its own name
        console="off",  # else it sends what the trainer prints
        save_code=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
        x_skip_transaction_log=not offline,  # for a later upload by hand, from a disk that is gone by then
        program="finetune-trainer",
        host="",
        silent=True,
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
        **retries,
        **timeouts,
    )
