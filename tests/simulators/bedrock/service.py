"""The Bedrock simulator: the services bedrock and bedrock-runtime on one address."""

from tests.simulators.aws.protocol import Service
from tests.simulators.aws.signature import check
from tests.simulators.bedrock.account import Account
from tests.simulators.bedrock.calls import Calls
from tests.simulators.bedrock.customization import ACTIVE
from tests.simulators.bedrock.settings import BedrockSettings
from tests.simulators.clock import Clock
from tests.simulators.http import ApiError, Call, Reply, Route
from tests.simulators.simulator import Resource, Simulator


class BedrockSimulator(Simulator):
    """Customization jobs, custom models and what serves them. `settings.s3_endpoint` is where its S3 is."""

    settings: BedrockSettings

    def __init__(self, settings: BedrockSettings | None = None, clock: Clock | None = None) -> None:
        settings = settings or BedrockSettings()
        super().__init__(settings, clock)
        self.account = Account(self.clock, self.ids, self.ledger, settings)
        calls = Calls(self.account)
        self._control, self._runtime = Service("bedrock", calls.control()), Service("bedrock-runtime", calls.runtime())

    def routes(self) -> list[Route]:
        return [*self._control.routes(), *self._runtime.routes()]

    def authorize(self, call: Call) -> None:
        check(call, self.settings)

    def error(self, error: ApiError, operation: str) -> Reply:
        service = self._runtime if operation == "Converse" else self._control
        return service.error(error, self.ids.new(length=32))

    def resources(self) -> list[Resource]:
        account = self.account
        return [
            *(
                Resource("job", job.request["jobName"], job.status)
                for job in account.jobs.values()
                if job.status in ACTIVE
            ),
            *(Resource("model", model.name) for model in account.models.values()),
            *(Resource("deployment", found.name, found.status) for found in account.deployments.values()),
            *(Resource("throughput", found.name, found.status) for found in account.throughputs.values()),
        ]
