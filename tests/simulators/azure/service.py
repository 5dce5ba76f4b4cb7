"""The Azure simulator: data plane, ARM and token endpoint of one account on one address."""

import tempfile
from pathlib import Path

from tests.simulators.azure import errors
from tests.simulators.azure.arm import Arm
from tests.simulators.azure.data_plane import AzureFiles, AzureJobCalls, AzureModels, AzureNaming, AzureTraining
from tests.simulators.azure.deployments import Deployments
from tests.simulators.azure.entra import ARM, DATA_PLANE, Entra
from tests.simulators.azure.monitor import Monitor
from tests.simulators.azure.settings import AzureSettings
from tests.simulators.azure.workspaces import Workspaces
from tests.simulators.clock import Clock
from tests.simulators.http import ApiError, Call, Reply, Route
from tests.simulators.openai.chat import Chat, understood
from tests.simulators.openai.jobs import ENDED
from tests.simulators.openai.service import routes
from tests.simulators.simulator import Resource, Simulator

NEWEST, DATED = "/openai/v1", "/openai"
TUNING = ("fine_tuning.", "files.", "models.")
TOKENS = "entra."


class AzureSimulator(Simulator):
    """`/openai/v1` for the OpenAI client, `/openai` with `api-version` for the AzureOpenAI client, ARM, and tokens."""

    settings: AzureSettings

    def __init__(self, settings: AzureSettings | None = None, clock: Clock | None = None) -> None:
        settings = settings or AzureSettings()
        super().__init__(settings, clock)
        folder = Path(self.held.enter_context(tempfile.TemporaryDirectory(prefix="simulated-files-")))
        naming = AzureNaming(self.ids)
        self.deployments = Deployments(self.clock, self.ids, self.ledger, settings)
        self.files = AzureFiles(self.clock, naming, settings, folder)
        self.models = AzureModels(self.clock, settings, is_deployed=self.deployments.is_deployed)
        self.training = AzureTraining(self.clock, naming, settings, self.ledger, self.files, self.models)
        self.jobs = AzureJobCalls(self.clock, naming, settings, self.files, self.models, self.training)
        self.chat = Chat(self.clock, self.ids, self.ledger, self.models)
        self.arm = Arm(settings, self.deployments, self.models)
        self.monitor = Monitor(settings, self.deployments, self.arm)
        self.workspaces = Workspaces(settings)
        self.entra = Entra(settings, self.ids)

    def routes(self) -> list[Route]:
        by_name = Route(
            "POST", DATED + "/deployments/{deployment}/chat/completions", "chat.completions.create", self.ask
        )
        tables = [routes(base, self.files, self.jobs, self.models, self.ask) for base in (NEWEST, DATED)]
        others = [route for part in (self.arm, self.monitor, self.workspaces, self.entra) for route in part.routes()]
        return [*tables[0], by_name, *tables[1], *others]

    def ask(self, call: Call) -> Reply:
        """Chat with a deployment: `model` is its name."""
        request = understood(call)
        name = call.path.get("deployment") or request["model"]
        deployment = self.deployments.use(name)
        base, answers = self.models.answers(deployment.serving)
        return self.chat.answer(request | {"model": name}, base, answers)

    def authorize(self, call: Call) -> None:
        """Refuse a missing or wrong key or token, and what the roles do not allow."""
        if call.operation.startswith(TOKENS):
            return
        scheme, _, token = call.headers.get("Authorization", "").partition(" ")
        bearer = token if scheme == "Bearer" else ""
        if _is_arm(call.operation):
            if not self.entra.is_good(bearer, ARM):
                message = "The access token is invalid." if bearer else "Authentication failed."
                raise ApiError(401, "InvalidAuthenticationToken" if bearer else "AuthenticationFailed", message)
            return
        good = self.settings.keys - self.settings.revoked_keys
        if not {call.headers.get("api-key"), bearer} & good and not self.entra.is_good(bearer, DATA_PLANE):
            raise errors.wrong_key()
        if call.operation.startswith(TUNING) and not self.settings.may_tune:
            raise ApiError(403, "forbidden", "The principal lacks the required data action to perform this operation.")
        if not call.route.startswith(NEWEST) and "api-version" not in call.query:
            raise ApiError(404, "404", "Resource not found")

    def error(self, error: ApiError, operation: str) -> Reply:
        shape = (
            errors.entra if operation.startswith(TOKENS) else errors.arm if _is_arm(operation) else errors.data_plane
        )
        return shape(error, self.ids.new(length=32))

    def resources(self) -> list[Resource]:
        files = [Resource("file", file.id, file.purpose) for file in self.files.all()]
        jobs = [Resource("job", job.id, job.status) for job in self.jobs.jobs.values() if job.status not in ENDED]
        models = [Resource("model", name) for name in self.models.tuned]
        return (
            files + jobs + models + [Resource("deployment", d.name, d.state) for d in self.deployments.found.values()]
        )


def _is_arm(operation: str) -> bool:
    return operation.startswith(("accounts.", "deployments.", "operations.", "metrics.", "workspaces."))
