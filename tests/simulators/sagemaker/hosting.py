"""Models, endpoint configurations and endpoints; an endpoint's instances are billed until it is deleted."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from tests.simulators.aws.protocol import Operation
from tests.simulators.clock import Clock
from tests.simulators.http import ApiError
from tests.simulators.ledger import Ledger
from tests.simulators.openai.training import prompt_of
from tests.simulators.sagemaker import errors
from tests.simulators.sagemaker.settings import OTHER_PER_HOUR, PER_HOUR, SageMakerSettings
from tests.simulators.sagemaker.training import page_of

Asked = dict[str, Any]


@dataclass
class Stored:
    """A model or configuration as requested, and when."""

    arn: str
    request: Asked
    created_at: float


@dataclass
class Endpoint:
    """An endpoint; it answers with its configuration until it has another."""

    arn: str
    name: str
    config: str
    per_hour: Decimal
    created_at: float
    changed_at: float
    status: str = "Creating"
    failure: str | None = None
    turn: int = 0
    instances: int | None = None
    """Of its variant, if a user has scaled it."""


class Hosting:
    """The account's hosting. `answer` is the container's reply to a request's body."""

    def __init__(self, clock: Clock, ledger: Ledger, settings: SageMakerSettings) -> None:
        self._clock, self._ledger, self._settings = clock, ledger, settings
        self.models: dict[str, Stored] = {}
        self.configs: dict[str, Stored] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.answer: Callable[[bytes], bytes] = repeat

    def operations(self) -> dict[str, Operation]:
        """The service sagemaker's operations on them."""
        return {
            "CreateModel": self.create_model,
            "DescribeModel": self.describe_model,
            "ListModels": self.list_models,
            "DeleteModel": self.delete_model,
            "CreateEndpointConfig": self.create_config,
            "DescribeEndpointConfig": self.describe_config,
            "ListEndpointConfigs": self.list_configs,
            "DeleteEndpointConfig": self.delete_config,
            "CreateEndpoint": self.create_endpoint,
            "DescribeEndpoint": self.describe_endpoint,
            "UpdateEndpoint": self.update_endpoint,
            "UpdateEndpointWeightsAndCapacities": self.scale_endpoint,
            "ListEndpoints": self.list_endpoints,
            "DeleteEndpoint": self.delete_endpoint,
        }

    def create_model(self, asked: Asked) -> Asked:
        role = asked.get("ExecutionRoleArn", "")
        if role in self._settings.unassumable_roles:
            raise errors.role_not_assumed(role)
        return {"ModelArn": self._store(self.models, "model", "model", asked["ModelName"], asked)}

    def describe_model(self, asked: Asked) -> Asked:
        found = self._find(self.models, "model", "model", asked["ModelName"])
        kept = {key: value for key, value in found.request.items() if key != "Tags"}
        return kept | {"ModelArn": found.arn, "CreationTime": found.created_at}

    def list_models(self, asked: Asked) -> Asked:
        shown = [{"ModelName": name, "ModelArn": one.arn, "CreationTime": one.created_at}
                 for name, one in self.models.items()]  # fmt: skip
        return page_of("Models", shown, asked, self._settings)

    def list_configs(self, asked: Asked) -> Asked:
        shown = [{"EndpointConfigName": name, "EndpointConfigArn": one.arn, "CreationTime": one.created_at}
                 for name, one in self.configs.items()]  # fmt: skip
        return page_of("EndpointConfigs", shown, asked, self._settings)

    def delete_model(self, asked: Asked) -> Asked:
        self._find(self.models, "model", "model", asked["ModelName"])
        del self.models[asked["ModelName"]]
        return {}

    def create_config(self, asked: Asked) -> Asked:
        for variant in asked["ProductionVariants"]:
            self._find(self.models, "model", "model", variant["ModelName"])
        name = asked["EndpointConfigName"]
        return {"EndpointConfigArn": self._store(self.configs, "endpoint-config", CONFIG, name, asked)}

    def describe_config(self, asked: Asked) -> Asked:
        found = self._find(self.configs, "endpoint-config", CONFIG, asked["EndpointConfigName"])
        kept = {key: value for key, value in found.request.items() if key != "Tags"}
        return kept | {"EndpointConfigArn": found.arn, "CreationTime": found.created_at}

    def delete_config(self, asked: Asked) -> Asked:
        self._find(self.configs, "endpoint-config", CONFIG, asked["EndpointConfigName"])
        del self.configs[asked["EndpointConfigName"]]
        return {}

    def create_endpoint(self, asked: Asked) -> Asked:
        name, config = asked["EndpointName"], asked["EndpointConfigName"]
        if name in self.endpoints:
            raise errors.exists("endpoint", self.endpoints[name].arn)
        variants = self._find(self.configs, "endpoint-config", CONFIG, config).request["ProductionVariants"]
        self._within_limits(variants)
        now = self._clock.now
        self.endpoints[name] = Endpoint(self._arn("endpoint", name), name, config, _per_hour(variants), now, now)
        self._clock.later(self.endpoints[name], self._settings.endpoint_seconds, self._in_service)
        return {"EndpointArn": self.endpoints[name].arn}

    def _within_limits(self, variants: list[Asked]) -> None:
        for variant in variants:
            kind, count = variant.get("InstanceType", ""), variant.get("InitialInstanceCount", 1)
            limit = self._settings.instance_limits.get(kind)
            if limit is not None and count > limit:
                raise errors.over_limit(kind, "endpoint", limit, 0, count)

    def _in_service(self, endpoint: Endpoint) -> None:
        failure, self._settings.fail_next_endpoint = self._settings.fail_next_endpoint, None
        endpoint.failure, endpoint.changed_at = failure, self._clock.now
        endpoint.status = "Failed" if failure else "InService"
        if not failure:
            self._ledger.start(endpoint.name, "hosting", endpoint.per_hour)

    def describe_endpoint(self, asked: Asked) -> Asked:
        endpoint = self._endpoint(asked)
        shown = self._summary(endpoint) | {"EndpointConfigName": endpoint.config}
        if endpoint.status in {"InService", "Updating"} and endpoint.config in self.configs:
            shown["ProductionVariants"] = self._running(endpoint)
        return shown | ({"FailureReason": endpoint.failure} if endpoint.failure else {})

    def _running(self, endpoint: Endpoint) -> list[Asked]:
        variants = self.configs[endpoint.config].request["ProductionVariants"]
        initial = {one["VariantName"]: one.get("InitialInstanceCount", 1) for one in variants}
        scaled = endpoint.instances
        return [
            {"VariantName": name, "CurrentInstanceCount": count if scaled is None else scaled}
            for name, count in initial.items()
        ]

    def _summary(self, endpoint: Endpoint) -> Asked:
        return {"EndpointName": endpoint.name, "EndpointArn": endpoint.arn, "EndpointStatus": endpoint.status,
                "CreationTime": endpoint.created_at, "LastModifiedTime": endpoint.changed_at}  # fmt: skip

    def list_endpoints(self, asked: Asked) -> Asked:
        seen = self._clock.now - self._settings.list_lag_seconds
        shown = [self._summary(endpoint) for endpoint in reversed(self.endpoints.values())
                 if endpoint.created_at <= seen and asked.get("NameContains", "") in endpoint.name
                 and asked.get("StatusEquals", endpoint.status) == endpoint.status]  # fmt: skip
        return page_of("Endpoints", shown, asked, self._settings)

    def update_endpoint(self, asked: Asked) -> Asked:
        endpoint = self._endpoint(asked)
        name = asked["EndpointConfigName"]
        variants = self._find(self.configs, "endpoint-config", CONFIG, name).request["ProductionVariants"]
        self._settled(endpoint)
        endpoint.turn += 1
        endpoint.status, endpoint.changed_at = "Updating", self._clock.now

        def updated(endpoint: Endpoint) -> None:
            """A change that fails is rolled back: the endpoint serves as before."""
            failure, self._settings.fail_next_endpoint = self._settings.fail_next_endpoint, None
            endpoint.status, endpoint.failure, endpoint.changed_at = "InService", failure, self._clock.now
            if not failure:
                endpoint.config, endpoint.per_hour, endpoint.instances = name, _per_hour(variants), None
                self._ledger.start(endpoint.name, "hosting", endpoint.per_hour)

        self._clock.later(endpoint, self._settings.endpoint_seconds, updated)
        return {"EndpointArn": endpoint.arn}

    def scale_endpoint(self, asked: Asked) -> Asked:
        """Scale the only variant, immediately."""
        endpoint = self._endpoint(asked)
        self._settled(endpoint)
        variants = self._find(self.configs, "endpoint-config", CONFIG, endpoint.config).request["ProductionVariants"]
        endpoint.instances = asked["DesiredWeightsAndCapacities"][0]["DesiredInstanceCount"]
        endpoint.per_hour = _per_hour([variants[0] | {"InitialInstanceCount": endpoint.instances}])
        self._ledger.start(endpoint.name, "hosting", endpoint.per_hour)
        return {"EndpointArn": endpoint.arn}

    def delete_endpoint(self, asked: Asked) -> Asked:
        endpoint = self._endpoint(asked)
        self._settled(endpoint)
        endpoint.turn += 1
        endpoint.status, endpoint.changed_at = "Deleting", self._clock.now
        self._clock.later(endpoint, self._settings.delete_seconds, self._gone)
        return {}

    def _settled(self, endpoint: Endpoint) -> None:
        if endpoint.status in {"Creating", "Updating", "Deleting"}:
            raise errors.invalid(f'Cannot update in-progress endpoint "{endpoint.arn}".')

    def _gone(self, endpoint: Endpoint) -> None:
        self._ledger.stop(endpoint.name)
        del self.endpoints[endpoint.name]

    def invoke(self, asked: Asked) -> Asked:
        """InvokeEndpoint: the container's reply."""
        endpoint = self.endpoints.get(asked["EndpointName"])
        if endpoint is None:
            message = f"Endpoint {asked['EndpointName']} of account {self._settings.account} not found."
            raise ApiError(400, "ValidationError", message)
        if endpoint.status not in {"InService", "Updating"} or endpoint.instances == 0:
            message = f"Endpoint {endpoint.name} of account {self._settings.account} is not InService."
            raise ApiError(400, "ValidationError", message)
        try:
            body = self.answer(asked["Body"])
        except (ValueError, KeyError, TypeError) as error:
            message = "Received client error (400) from primary with message: the request cannot be understood."
            raise ApiError(424, "ModelError", message) from error
        return {"Body": body, "ContentType": "application/json", "InvokedProductionVariant": "AllTraffic"}

    def _arn(self, kind: str, name: str) -> str:
        return self._settings.arn("sagemaker", f"{kind}/{name.lower()}")

    def _store(self, stored: dict[str, Stored], kind: str, label: str, name: str, asked: Asked) -> str:
        if name in stored:
            raise errors.exists(label, stored[name].arn)
        stored[name] = Stored(self._arn(kind, name), asked, self._clock.now)
        return stored[name].arn

    def _find(self, stored: dict[str, Stored], kind: str, label: str, name: str) -> Stored:
        if name not in stored:
            raise errors.missing(label, self._arn(kind, name))
        return stored[name]

    def _endpoint(self, asked: Asked) -> Endpoint:
        if endpoint := self.endpoints.get(asked["EndpointName"]):
            return endpoint
        raise errors.missing("endpoint", self._arn("endpoint", asked["EndpointName"]))


CONFIG = "endpoint configuration"


def _per_hour(variants: list[Asked]) -> Decimal:
    amounts = (PER_HOUR.get(variant.get("InstanceType", ""), OTHER_PER_HOUR) * variant.get("InitialInstanceCount", 1)
               for variant in variants)  # fmt: skip
    return sum(amounts, Decimal(0))


def repeat(body: bytes) -> bytes:
    """A container that repeats the question, as a chat completion."""
    text = prompt_of(orjson.loads(body)["messages"])
    message = {"role": "assistant", "content": text}
    return orjson.dumps({"object": "chat.completion", "choices": [{"index": 0, "message": message}]})
