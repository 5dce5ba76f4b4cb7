"""A job's run in MLflow: transformers' integration, with control of which run to resume and when it ends.

A job has one run for all its attempts: its id is saved beside the checkpoints, and if the pod ended before that, the
run is found by the job's UID. A killed attempt leaves its run open: the next attempt ends it, even if it trains
nothing. Nothing ends it after the last attempt: the operator has no tracker credentials.
"""

import json
import os
from collections.abc import Container, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

from finetune_api.names import TRACKERS_PREFIX
from finetune_api.trackers import MLflow
from finetune_api.trainer import TrainerJob
from finetune_trainer.attempt.interruption import End
from finetune_trainer.storage.durable import whole_file

RUNS_FOLDER = "trackers"
"""In the job's output folder: the ids of this job's runs in trackers."""

LOCAL_UID = "local"
"""The UID of all jobs outside of clusters, so it identifies no run."""

_STATUS: dict[End, str] = {"Finished": "FINISHED", "Interrupted": "KILLED", "Failed": "FAILED"}
"""A resumed run is RUNNING again."""

_KEYS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
_KEYS_IN_WORDS = "MLFLOW_TRACKING_TOKEN, nor MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"

_NO_SERVER = "trackers.mlflow.trackingURI leads to no server of MLflow: write what its page has in front of /#/"
_TROUBLES = {
    "Invalid Host header": "it does not take requests for the host of trackingURI: its --allowed-hosts has to list it",
    "set a deleted experiment": "the experiment is deleted there: have it restored, or name another one",
    "not in a valid JSON format": _NO_SERVER,
}
"""By text in errors of the client or server."""
_CODES = {
    "UNAUTHENTICATED": "it does not accept the key in the Secret",
    "PERMISSION_DENIED": "the key in the Secret may not do this",
    "CUSTOMER_UNAUTHORIZED": "the key in the Secret may not do this",
    "ENDPOINT_NOT_FOUND": _NO_SERVER,
}
"""By MLflow's error code, if the text says no more."""
_WANTS_KEY = "it requires a key: name the Secret that has one in trackers.mlflow.secretRef"

_JOB, _UID = "finetune.dev/job", "finetune.dev/uid"
"""Tags."""


def is_keyed(job: TrainerJob) -> bool:
    """Whether the job names a Secret for its MLflow server."""
    return bool(job.spec.trackers and job.spec.trackers.mlflow and job.spec.trackers.mlflow.secret_ref)


def trouble_of(error: Exception, *, keyed: bool) -> str | None:
    """A readable cause of the error, if known; without the error's own text, which contains addresses."""
    if said := next((why for what, why in _TROUBLES.items() if what in str(error)), None):
        return said
    code = str(getattr(error, "error_code", ""))
    why = _CODES.get(code)
    return _WANTS_KEY if why and why is not _NO_SERVER and not keyed else why


class _WithoutLoggedParameters:
    """MLflow for a resumed run: skips parameters that were already logged, which MLflow does not overwrite.

    Some may differ with another image or node, such as transformers_version and dtype.
    """

    def __init__(self, mlflow: Any, logged: Container[str]) -> None:
        self._mlflow, self._logged = mlflow, logged

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mlflow, name)

    def log_params(self, params: Mapping[str, Any], **more: Any) -> None:
        self._mlflow.log_params({name: value for name, value in params.items() if name not in self._logged}, **more)


def integration(job: TrainerJob) -> Any:
    """The callback, which starts the job's run when the training starts, or resumes it."""
    os.environ |= _environment(job)
    import mlflow
    from mlflow import MlflowClient
    from transformers.integrations.integration_utils import MLflowCallback

    class Integration(MLflowCallback):
        """Disables its background thread: we have one already, and errors would be lost in a second one."""

        _async_log = property(lambda _self: False, lambda _self, _value: None)
        _earlier: str | None = None

        def setup(self, args: Any, state: Any, model: Any) -> None:
            earlier = _earlier(job)
            self._earlier = earlier.info.run_id if earlier else None
            _begin(job, self._earlier)
            if earlier:
                self._ml_flow = cast("Any", _WithoutLoggedParameters(self._ml_flow, earlier.data.params))
            super().setup(args, state, model)  # type: ignore[no-untyped-call]

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, model: Any = None, **more: Any) -> None:
            if new := {name: value for name, value in logs.items() if state.global_step > self._last_logged(name)}:
                super().on_log(args, state, control, new, model, **more)  # type: ignore[no-untyped-call]

        @cache  # noqa: B019 - there is one for each attempt
        def _last_logged(self, name: str) -> int:
            """The last logged step of this metric: a killed attempt's last steps are repeated."""
            history = MlflowClient().get_metric_history(self._earlier, name) if self._earlier else []
            return max((one.step for one in history), default=-1)

        def trained(self) -> None:
            """The run ends with the attempt, not here."""

        def end(self, how: End) -> None:
            mlflow.end_run(_STATUS[how])

    return Integration()  # type: ignore[no-untyped-call]


def _begin(job: TrainerJob, earlier: str | None) -> None:
    """Start or resume the run, and save its id for the next attempt."""
    import mlflow

    mlflow.set_experiment(_experiment(job))
    whole_name = f"{job.namespace}/{job.name}"
    tags = {_JOB: whole_name, _UID: job.uid}  # set at creation: the run is found by them
    run = mlflow.start_run(run_id=earlier, run_name=None if earlier else whole_name, tags=tags)
    whole_file(_note(job), json.dumps({"mlflow": run.info.run_id}).encode())


def obstacle(job: TrainerJob) -> str | None:
    """What the Secret lacks, as far as known before connecting: a server may need no credentials."""
    secret = _asked(job).secret_ref
    if secret is None or job.uid == LOCAL_UID:
        return None
    has = {name for name in _KEYS if os.environ.get(f"{TRACKERS_PREFIX}{name}", "").strip()}
    return None if _KEYS[0] in has or has >= set(_KEYS[1:]) else f"Secret {secret.name} has neither {_KEYS_IN_WORDS}"


def url(_job: TrainerJob) -> str:
    """The run's page."""
    import mlflow

    run = mlflow.active_run()
    assert run is not None  # noqa: S101 - it has just started
    return f"{mlflow.get_tracking_uri().rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def may_be_open(job: TrainerJob) -> bool:
    """Whether an earlier attempt may have left its run open."""
    return _note(job).is_file() or job.attempt > 1


def end_earlier(job: TrainerJob, how: End) -> None:
    """End the run of earlier attempts, if any, with the status of this attempt, which started none.

    Raises:
        Exception: from MLflow, if its server does not answer.
    """
    os.environ |= _environment(job)
    from mlflow import MlflowClient

    if run := _earlier(job):
        MlflowClient().set_terminated(run.info.run_id, _STATUS[how])


def _earlier(job: TrainerJob) -> Any:
    """The run of an earlier attempt, by the saved id or the job's UID; None if there is none or it was deleted."""
    from mlflow import MlflowClient

    client, note = MlflowClient(), _note(job)
    noted: str | None = json.loads(note.read_text(encoding="utf-8")).get("mlflow") if note.is_file() else None
    if noted and (run := _still_there(client, noted)):
        return run
    if job.uid == LOCAL_UID:
        return None
    experiment = client.get_experiment_by_name(_experiment(job))
    places = [experiment.experiment_id] if experiment else []
    found = client.search_runs(places, f"tags.`{_UID}` = '{job.uid}'", max_results=1) if places else []
    return found[0] if found else None


def _still_there(client: Any, run_id: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None


def _experiment(job: TrainerJob) -> str:
    return _asked(job).experiment or job.spec.model_ref.name


def _asked(job: TrainerJob) -> MLflow:
    return cast("MLflow", job.spec.trackers and job.spec.trackers.mlflow)


def _environment(job: TrainerJob) -> dict[str, str]:
    """Variables that configure transformers' integration and MLflow."""
    keys = {
        name.removeprefix(TRACKERS_PREFIX): value.strip()  # a value from a file often ends with a line break
        for name, value in os.environ.items()
        if name.startswith(f"{TRACKERS_PREFIX}MLFLOW_TRACKING_")
    }
    return {
        **keys,
        "MLFLOW_TRACKING_URI": _asked(job).tracking_uri,
        "MLFLOW_EXPERIMENT_NAME": _experiment(job),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its default would retry each call for minutes
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "GIT_PYTHON_REFRESH": "quiet",
    }


def _note(job: TrainerJob) -> Path:
    return Path(job.output) / RUNS_FOLDER / "runs.json"
