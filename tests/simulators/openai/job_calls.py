"""The calls on fine-tuning jobs: create, look up, list, follow, stop."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.job_create_params import JobCreateParams
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from pydantic import ValidationError

from tests.simulators.clock import DAY, Clock
from tests.simulators.http import ApiError, Call, Reply
from tests.simulators.openai import errors
from tests.simulators.openai.files import Files
from tests.simulators.openai.jobs import ENDED, Job, Training
from tests.simulators.openai.models import Models
from tests.simulators.openai.naming import Naming
from tests.simulators.openai.pages import Page, page
from tests.simulators.openai.settings import OpenAISettings
from tests.simulators.shapes import conform, unknown_keys

LISTED_STATES = {"validating_files", "queued", "running", "succeeded", "failed", "cancelled"}
NO_ERROR = {"code": None, "message": None, "param": None}
LONGEST_SUFFIX = 64
HIGHEST_BETA = 2


class JobCalls:
    """What a client can do with jobs. `beside_the_sdk` are fields that the SDK sends by `extra_body` only."""

    beside_the_sdk: frozenset[str] = frozenset()

    def __init__(
        self, clock: Clock, naming: Naming, settings: OpenAISettings, files: Files, models: Models, training: Training
    ) -> None:
        self._clock, self._naming, self._settings = clock, naming, settings
        self._files, self._models, self._training = files, models, training
        self.jobs: dict[str, Job] = {}

    def create(self, call: Call) -> Reply:
        """POST /fine_tuning/jobs."""
        request = self._understood(call)
        model = self.admitted(request)
        if self._settings.drop_metadata:
            request.pop("metadata", None)
        seed = request.get("seed") or self._clock_seed()
        job = Job(self._naming.job(), request, model, self._clock.now, seed)
        self.jobs[job.id] = job
        self._training.begin(job)
        return Reply.json(self.shown(job))

    def _clock_seed(self) -> int:
        return len(self.jobs) + 1

    def _understood(self, call: Call) -> dict[str, Any]:
        try:
            request: dict[str, Any] = call.json()
            unknown = [key for key in unknown_keys(JobCreateParams, request) if key not in self.beside_the_sdk]
        except ValidationError as error:
            raise _misshapen(error) from error
        except ValueError as error:
            raise errors.refusal(400, "We could not parse the JSON body of your request.") from error
        if unknown:
            raise errors.refusal(400, f"Unknown parameter: '{unknown[0]}'.", unknown[0], "unknown_parameter")
        self.check(request)
        return request

    def check(self, request: dict[str, Any]) -> None:
        """Refuse values out of bounds.

        Raises:
            ApiError: with the field.
        """
        if len(request.get("suffix") or "") > LONGEST_SUFFIX:
            raise errors.refusal(400, f"Invalid 'suffix': string too long. Expected a string with maximum length "
                                      f"{LONGEST_SUFFIX}.", "suffix", "string_above_max_length")  # fmt: skip
        beta = (request.get("method") or {}).get("dpo", {}).get("hyperparameters", {}).get("beta", "auto")
        if beta != "auto" and not 0 <= beta <= HIGHEST_BETA:
            raise errors.refusal(400, f"Invalid 'beta': expected a value between 0 and {HIGHEST_BETA}.",
                                 "method.dpo.hyperparameters.beta", "decimal_above_max_value")  # fmt: skip
        pairs = request.get("metadata") or {}
        if len(pairs) > 16 or any(len(key) > 64 or len(value) > 512 for key, value in pairs.items()):
            raise errors.refusal(400, "Invalid 'metadata': at most 16 pairs, keys of 64 and values of 512 characters.",
                                 "metadata")  # fmt: skip

    def admitted(self, request: dict[str, Any]) -> str:
        """The base model that a job will train, if the job is accepted.

        Raises:
            ApiError: with the provider's reason.
        """
        settings = self._settings
        if settings.fine_tuning_closed or self._clock.now >= settings.closes_at:
            raise errors.closed()
        model = self._models.tunable(request["model"])
        if model is None or self._models.shut_down(model):
            raise errors.not_tunable(request["model"])
        method = (request.get("method") or {}).get("type", "supervised")
        if method == "dpo" and model not in settings.learn_pairs:
            raise errors.no_method(request["model"], method)
        for param in ("training_file", "validation_file"):
            if request.get(param):
                self.usable(param, request[param])
        self._within_limits(model)
        return model

    def usable(self, param: str, file_id: str) -> None:
        """Refuse a file that no job can use."""
        stored = self._files.find(file_id)
        if stored is None or stored.purpose != "fine-tune":
            raise errors.invalid_file(param, file_id)
        if self._clock.now < stored.ready_at:
            raise errors.file_not_ready(file_id)

    def _within_limits(self, model: str) -> None:
        states = Counter(job.status for job in self.jobs.values() if job.model == model and job.status not in ENDED)
        if states.total() >= self._settings.job_limit:
            running = states["running"]
            raise errors.too_many_jobs(self._settings.job_limit, running, states.total() - running, model)
        today = [job for job in self.jobs.values() if job.model == model and job.created_at > self._clock.now - DAY]
        if self._settings.daily_job_limit is not None and len(today) >= self._settings.daily_job_limit:
            raise errors.too_many_today(self._settings.daily_job_limit, model)

    def shown(self, job: Job) -> dict[str, Any]:
        """A job as the API shows it."""
        body = {
            "object": "fine_tuning.job", "id": job.id, "model": job.model, "created_at": int(job.created_at),
            "status": self.state(job), "error": job.error or NO_ERROR, "fine_tuned_model": job.fine_tuned_model,
            "finished_at": None if job.finished_at is None else int(job.finished_at),
            "estimated_finish": self._estimate(job), "organization_id": self._settings.organization,
            "hyperparameters": self.hyperparameters(job), "method": self._method(job), "seed": job.seed,
            "training_file": job.request["training_file"], "validation_file": job.request.get("validation_file"),
            "result_files": job.result_files, "trained_tokens": job.trained_tokens, "integrations": [],
            "metadata": job.request.get("metadata"), "user_provided_suffix": job.request.get("suffix"),
        }  # fmt: skip
        return self.conform(body)

    def conform(self, body: dict[str, Any]) -> dict[str, Any]:
        """Validate a job by the SDK's model, except for the API's known additional fields."""
        known = {key: value for key, value in body.items() if key != "user_provided_suffix"}
        if body["status"] not in LISTED_STATES:
            known["status"] = "running"
        if body["error"] == NO_ERROR:
            known["error"] = None
        conform(FineTuningJob, known)
        return body

    def state(self, job: Job) -> str:
        """The state by its name in the API."""
        if self._settings.unlisted_status and job.status not in ENDED:
            return self._settings.unlisted_status
        return job.status

    def _estimate(self, job: Job) -> int | None:
        if job.status != "running" or job.course is None:
            return None
        return int(self._clock.now + (job.course.steps - job.step) * self._settings.step_seconds)

    def hyperparameters(self, job: Job) -> dict[str, Any]:
        """The requested values until the data are validated, then the resolved ones."""
        names = ("n_epochs", "batch_size", "learning_rate_multiplier")
        if job.course is None:
            return {name: job.hyperparameters.get(name, "auto") for name in names}
        return dict(
            zip(names, (job.course.epochs, job.course.batch_size, job.course.learning_rate_multiplier), strict=True)
        )

    def _method(self, job: Job) -> dict[str, Any]:
        method = job.request.get("method") or {}
        kind = method.get("type", "supervised")
        asked = method.get(kind, {})
        return {"type": kind, kind: {**asked, "hyperparameters": job.hyperparameters | self.hyperparameters(job)}}

    def list(self, call: Call) -> Reply:
        """GET /fine_tuning/jobs, newest first, unlike some compatible services."""
        ignore = self._settings.ignore_metadata_filter
        seen = self._clock.now - self._settings.list_lag_seconds
        jobs = [job for job in self.jobs.values() if job.created_at <= seen and (ignore or _has(job, call))]
        return page(
            call, jobs if self._settings.list_oldest_first else jobs[::-1], Page(lambda job: job.id, self.shown)
        )

    def retrieve(self, call: Call) -> Reply:
        """GET /fine_tuning/jobs/{id}."""
        return Reply.json(self.shown(self._get(call)))

    def events(self, call: Call) -> Reply:
        """GET /fine_tuning/jobs/{id}/events, newest first."""
        events = self._get(call).events[::-1]
        return page(call, events, Page(_identity, lambda event: conform(FineTuningJobEvent, event)))

    def checkpoints(self, call: Call) -> Reply:
        """GET /fine_tuning/jobs/{id}/checkpoints, newest first."""
        points = self._get(call).checkpoints[::-1]
        return page(call, points, Page(_identity, lambda point: conform(FineTuningJobCheckpoint, point), usual=10))

    def cancel(self, call: Call) -> Reply:
        """POST /fine_tuning/jobs/{id}/cancel."""
        return self._change(call, "cancelled", lambda state: state not in ENDED, self._training.cancel)

    def pause(self, call: Call) -> Reply:
        """POST /fine_tuning/jobs/{id}/pause."""
        return self._change(call, "paused", lambda state: state == "running", self._training.pause)

    def resume(self, call: Call) -> Reply:
        """POST /fine_tuning/jobs/{id}/resume."""
        return self._change(call, "resumed", lambda state: state == "paused", self._training.resume)

    def _change(self, call: Call, verb: str, may: Callable[[str], bool], change: Callable[[Job], None]) -> Reply:
        job = self._get(call)
        if not may(job.status):
            raise errors.not_stoppable(job.id, job.status, verb)
        change(job)
        return Reply.json(self.shown(job))

    def _get(self, call: Call) -> Job:
        if job := self.jobs.get(call.path["job_id"]):
            return job
        raise errors.no_job(call.path["job_id"])


def _identity(shown: dict[str, Any]) -> str:
    return str(shown["id"])


def _has(job: Job, call: Call) -> bool:
    """Whether a job has the metadata that the query asks for."""
    own = job.request.get("metadata")
    if call.query.get("metadata") == "null":
        return own is None
    wanted = {key[len("metadata[") : -1]: value for key, value in call.query.items() if key.startswith("metadata[")}
    return all((own or {}).get(key) == value for key, value in wanted.items())


def _misshapen(error: ValidationError) -> ApiError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return errors.refusal(400, f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
    return errors.refusal(400, f"Invalid type for '{where}'.", where, "invalid_type")
