"""The SageMaker simulator: the services sagemaker and sagemaker-runtime on one address."""

from typing import Any

from tests.simulators.aws.protocol import Service
from tests.simulators.aws.signature import check
from tests.simulators.clock import Clock
from tests.simulators.http import ApiError, Call, Reply, Route
from tests.simulators.sagemaker import errors
from tests.simulators.sagemaker.hosting import Hosting
from tests.simulators.sagemaker.settings import SageMakerSettings
from tests.simulators.sagemaker.training import ENDED, TrainingJobs
from tests.simulators.simulator import Resource, Simulator


class SageMakerSimulator(Simulator):
    """Training jobs and endpoints. `training.container` and `hosting.answer` stand for the image."""

    settings: SageMakerSettings

    def __init__(self, settings: SageMakerSettings | None = None, clock: Clock | None = None) -> None:
        settings = settings or SageMakerSettings()
        super().__init__(settings, clock)
        self.training = TrainingJobs(self.clock, self.ledger, settings)
        self.hosting = Hosting(self.clock, self.ledger, settings)
        operations = {**self.training.operations(), **self.hosting.operations(), "ListTags": self._tags}
        self._control = Service("sagemaker", operations)
        self._runtime = Service("sagemaker-runtime", {"InvokeEndpoint": self.hosting.invoke})

    def routes(self) -> list[Route]:
        return [*self._control.routes(), *self._runtime.routes()]

    def authorize(self, call: Call) -> None:
        check(call, self.settings)

    def error(self, error: ApiError, operation: str) -> Reply:
        service = self._runtime if operation == "InvokeEndpoint" else self._control
        return service.error(error, self.ids.new(length=32))

    def _tags(self, asked: dict[str, Any]) -> dict[str, Any]:
        stored: list[Any] = [
            *self.training.found.values(),
            *self.hosting.models.values(),
            *self.hosting.configs.values(),
        ]
        for thing in stored:
            if thing.arn == asked["ResourceArn"]:
                return {"Tags": thing.request.get("Tags", [])}
        raise errors.no_job()

    def resources(self) -> list[Resource]:
        hosting = self.hosting
        return [
            *(Resource("job", job.name, job.status) for job in self.training.found.values() if job.status not in ENDED),
            *(Resource("model", name) for name in hosting.models),
            *(Resource("endpoint-config", name) for name in hosting.configs),
            *(Resource("endpoint", endpoint.name, endpoint.status) for endpoint in hosting.endpoints.values()),
        ]
