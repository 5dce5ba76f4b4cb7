"""The OpenAI simulator: its routes and authorization."""

import tempfile
from pathlib import Path

from tests.simulators.clock import Clock
from tests.simulators.http import ApiError, Call, Handler, Reply, Route
from tests.simulators.openai import errors
from tests.simulators.openai.chat import Chat
from tests.simulators.openai.files import Files
from tests.simulators.openai.job_calls import JobCalls
from tests.simulators.openai.jobs import ENDED, Training
from tests.simulators.openai.models import Models
from tests.simulators.openai.naming import Naming
from tests.simulators.openai.settings import OpenAISettings
from tests.simulators.simulator import Resource, Simulator

JOB = "/fine_tuning/jobs/{job_id}"


class OpenAISimulator(Simulator):
    """Files, fine-tuning jobs, models and chat completions under `/v1`."""

    settings: OpenAISettings
    base = "/v1"

    def __init__(self, settings: OpenAISettings | None = None, clock: Clock | None = None) -> None:
        settings = settings or OpenAISettings()
        super().__init__(settings, clock)
        folder = self.held.enter_context(tempfile.TemporaryDirectory(prefix="simulated-files-"))
        naming = Naming(self.ids, settings.organization_name)
        self.files = Files(self.clock, naming, settings, Path(folder))
        self.models = Models(self.clock, settings)
        self.training = Training(self.clock, naming, settings, self.ledger, self.files, self.models)
        self.jobs = JobCalls(self.clock, naming, settings, self.files, self.models, self.training)
        self.chat = Chat(self.clock, self.ids, self.ledger, self.models)

    def routes(self) -> list[Route]:
        return routes(self.base, self.files, self.jobs, self.models, self.chat.complete)

    def authorize(self, call: Call) -> None:
        """Refuse a missing, wrong or revoked key, another organization or project, and an account without money."""
        scheme, _, key = call.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not key:
            raise errors.no_key()
        if key not in self.settings.keys - self.settings.revoked_keys:
            raise errors.wrong_key(key)
        for what, own in (("Organization", self.settings.organization), ("Project", self.settings.project)):
            if call.headers.get(f"OpenAI-{what}", own) != own:
                raise errors.mismatched(what)
        if call.operation in {"fine_tuning.jobs.create", "chat.completions.create"} and self._spent():
            raise errors.no_money()

    def _spent(self) -> bool:
        return self.settings.credit is not None and self.ledger.total() >= self.settings.credit

    def error(self, error: ApiError, operation: str) -> Reply:
        del operation
        return errors.shaped(error, self.ids.new("req_"))

    def headers(self) -> dict[str, str]:
        settings = self.settings
        if not settings.tells_account:
            return {}
        if settings.projects_in_turn:
            settings.projects_in_turn = settings.projects_in_turn[1:] + settings.projects_in_turn[:1]
        project = settings.projects_in_turn[0] if settings.projects_in_turn else settings.project
        return {"openai-organization": settings.organization_name, "openai-project": project}

    def resources(self) -> list[Resource]:
        files = [Resource("file", file.id, file.purpose) for file in self.files.all()]
        jobs = [Resource("job", job.id, job.status) for job in self.jobs.jobs.values() if job.status not in ENDED]
        return files + jobs + [Resource("model", name) for name in self.models.tuned]


def routes(base: str, files: Files, jobs: JobCalls, models: Models, ask: Handler) -> list[Route]:
    """Every operation of the API, its paths under `base`."""
    table = [
        Route("POST", "/files", "files.create", files.create, files.receiver()),
        Route("GET", "/files", "files.list", files.list),
        Route("GET", "/files/{file_id}", "files.retrieve", files.retrieve),
        Route("GET", "/files/{file_id}/content", "files.content", files.content),
        Route("DELETE", "/files/{file_id}", "files.delete", files.delete),
        Route("POST", "/fine_tuning/jobs", "fine_tuning.jobs.create", jobs.create),
        Route("GET", "/fine_tuning/jobs", "fine_tuning.jobs.list", jobs.list),
        Route("GET", JOB, "fine_tuning.jobs.retrieve", jobs.retrieve),
        Route("GET", f"{JOB}/events", "fine_tuning.jobs.list_events", jobs.events),
        Route("GET", f"{JOB}/checkpoints", "fine_tuning.jobs.checkpoints.list", jobs.checkpoints),
        Route("POST", f"{JOB}/cancel", "fine_tuning.jobs.cancel", jobs.cancel),
        Route("POST", f"{JOB}/pause", "fine_tuning.jobs.pause", jobs.pause),
        Route("POST", f"{JOB}/resume", "fine_tuning.jobs.resume", jobs.resume),
        Route("GET", "/models", "models.list", models.list),
        Route("GET", "/models/{model}", "models.retrieve", models.retrieve),
        Route("DELETE", "/models/{model}", "models.delete", models.delete),
        Route("POST", "/chat/completions", "chat.completions.create", ask),
    ]
    return [Route(route.method, base + route.path, route.operation, route.handler, route.receive) for route in table]
