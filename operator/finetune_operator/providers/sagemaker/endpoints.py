"""SageMaker endpoints: a model, a configuration and an endpoint with one name; only the endpoint is billed.

They are created in this order and deleted in reverse. A rest without an endpoint is Partial and costs nothing.
"""

import builtins
import shlex
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from finetune_api.aws import SageMaker
from finetune_api.names import OWNER_TAG, SERVE_FLAGS_VARIABLE
from finetune_api.reasons import Reason
from finetune_api.sagemaker import BASE_CHANNEL, BASE_FOLDER, MODEL_FOLDER, SERVING_PORT
from finetune_operator.decide.cloud_job.cloud_policy import ARCHIVE
from finetune_operator.decide.deployment.hosted_record import Hosted, HostedState
from finetune_operator.decide.deployment.hosting_terms import in_words
from finetune_operator.decide.deployment.idle import Figures
from finetune_operator.desired.compare import covers
from finetune_operator.providers.aws import cloudwatch
from finetune_operator.providers.aws.client import Aws
from finetune_operator.providers.aws.s3 import Bucket
from finetune_operator.providers.calls.errors import (
    Denied,
    NotThere,
    ProviderError,
    Refused,
    TryLater,
    Unknown,
    Unreadable,
    is_html,
)
from finetune_operator.providers.ports import HostRequest
from finetune_operator.providers.sagemaker.wire import vpc, with_instance_field
from finetune_operator.runtime.logs import redact

SERVICE, RUNTIME = "sagemaker", "sagemaker-runtime"
VARIANT = "AllTraffic"
PAGE = {"PageSize": 100}
BUSY_PAUSE_SECONDS = 20.0
REPLY_MAX_BYTES = 64 * 1024
"""More than an answer of one token needs."""
STARTUP_SECONDS = 1800
"""How long a container may take to load its model."""

_STATES: dict[str, HostedState] = {
    "InService": "Ready",
    "Updating": "Ready",
    "SystemUpdating": "Ready",
    "RollingBack": "Ready",
    "Failed": "Failed",
    "OutOfService": "Failed",
    "UpdateRollbackFailed": "Failed",
    "Deleting": "Deleting",
}
"""Unknown states count as Creating."""


class SageMakerEndpoints:
    """A HostingApi over boto3."""

    names_have_case = True

    def __init__(self, settings: SageMaker, aws: Aws) -> None:
        self._settings = settings
        self._aws = aws

    async def list(self) -> builtins.list[Hosted]:
        """All endpoints of the account, and models and configurations left from deleted ones."""
        endpoints = await self._pages("list_endpoints", "Endpoints")
        found = {one["EndpointName"]: await self._hosted(one) for one in endpoints}
        for operation, key, name in (
            ("list_endpoint_configs", "EndpointConfigs", "EndpointConfigName"),
            ("list_models", "Models", "ModelName"),
        ):
            for one in await self._pages(operation, key):
                found.setdefault(one[name], Hosted(one[name], "Partial"))
        return list(found.values())

    async def details(self, hosted: Hosted) -> Hosted:
        """The endpoint with the location of its weights, its instance type and count."""
        try:
            endpoint = await self._ask("describe_endpoint", EndpointName=hosted.name)
        except NotThere:
            return hosted
        config = str(endpoint["EndpointConfigName"])
        try:
            asked = (await self._ask("describe_endpoint_config", EndpointConfigName=config))["ProductionVariants"]
        except NotThere:
            # The endpoint works on without its configuration; a foreign one can no longer be read.
            return hosted if config == hosted.name else replace(hosted, model=f"endpoint configuration {config}")
        sku = " and ".join(sorted({one["InstanceType"] for one in asked if one.get("InstanceType")}))
        units = instances(endpoint.get("ProductionVariants") or (), asked)
        model = " and ".join(sorted({await self._weights_of(one, hosted.name) for one in asked} - {""}))
        return replace(hosted, model=model, sku=sku, units=units, terms=in_words(sku, units) if sku else "")

    async def _weights_of(self, variant: dict[str, Any], ours: str) -> str:
        """The location of a variant's weights, or else a description of it; "" if our own model of it is gone."""
        if "ModelName" not in variant:
            return "inference components"
        name = str(variant["ModelName"])
        try:
            return weights(await self._ask("describe_model", ModelName=name)) or f"model {name}"
        except NotThere:
            return "" if name == ours else f"model {name}"

    async def make(self, request: HostRequest) -> None:
        """Create model, configuration and endpoint; idempotent, as the endpoint's name can be used only once."""
        if await self._status(request.name) is not None:
            return
        base = cached(self._aws, self._settings, request.base_model)
        await self._ensure("create_model", ModelName=request.name, **model(request, self._settings, base))
        asked = configuration(request)
        try:
            await self._ensure("create_endpoint_config", EndpointConfigName=request.name, **asked)
        except Refused as error:
            kind = asked["ProductionVariants"][0]["InstanceType"]
            raise with_instance_field(error, "spec.sageMaker.instanceType", kind) from None
        try:
            await self._ask(
                "create_endpoint", EndpointName=request.name, EndpointConfigName=request.name, Tags=tags(request)
            )
        except (Refused, TryLater) as error:
            if not _is_existing(error) and await self._status(request.name) is None:
                raise

    async def delete(self, hosted: Hosted) -> None:
        """Delete the endpoint first; once a list no longer shows it, its configuration and model.

        A single read that misses it is no proof: its parts would be deleted while it still runs.
        """
        name = hosted.name
        status = await self._status(name)
        if status in {"Creating", "Updating", "SystemUpdating", "RollingBack"}:
            message = f"endpoint {name} is {status}: SageMaker deletes it when that has ended"
            raise TryLater(Reason.PROVIDER_BUSY, message, BUSY_PAUSE_SECONDS)
        if status is None and hosted.state == "Partial":
            await self._delete("delete_endpoint_config", EndpointConfigName=name)
            await self._delete("delete_model", ModelName=name)
        elif status != "Deleting":
            await self._delete("delete_endpoint", EndpointName=name)

    async def answers(self, hosted: Hosted) -> bool:
        """Whether it answers a request for one token."""
        name = hosted.name
        question = {"model": name, "max_tokens": 1, "messages": [{"role": "user", "content": "ok?"}]}
        asked = {"EndpointName": name, "ContentType": "application/json", "Body": orjson.dumps(question)}

        def begin(client: Any) -> bytes:
            with client.invoke_endpoint(**asked)["Body"] as body:
                return bytes(body.read(REPLY_MAX_BYTES))

        try:
            said = await self._aws.run(RUNTIME, begin)
        except NotThere:
            return False
        except Refused as error:
            raise Unknown(Reason.PROVIDER_UNAVAILABLE, f"endpoint {name} does not answer: {error.message}") from None
        if is_html(said):
            raise Unreadable(f"{RUNTIME} answers with a web page")
        if not _is_completion(said):
            raise Unreadable(f"{RUNTIME} answers with something else")
        return True

    async def usage(self, hosted: Hosted, since: datetime, now: datetime) -> Figures:
        """The time of the last request to any of its variants, by CloudWatch."""
        described = await self._ask("describe_endpoint", EndpointName=hosted.name)
        found = []
        for variant in described.get("ProductionVariants") or [{"VariantName": VARIANT}]:
            dimensions = {"EndpointName": hosted.name, "VariantName": variant["VariantName"]}
            found.append(await cloudwatch.usage(self._aws, "AWS/SageMaker", dimensions, since, now))
        asked = [one.last for one in found if one.last is not None]
        return Figures(max(asked, default=None), min(one.until for one in found))

    async def _hosted(self, one: dict[str, Any]) -> Hosted:
        name = one["EndpointName"]
        state = _STATES.get(one["EndpointStatus"], "Creating")
        if state != "Failed":
            return Hosted(name, state, created_at=one.get("CreationTime"))
        try:
            described = await self._ask("describe_endpoint", EndpointName=name)
        except (Denied, NotThere):  # it may belong to someone else
            return Hosted(name, state)
        return Hosted(name, state, failure=redact(str(described.get("FailureReason") or ""))[:500])

    async def _status(self, name: str) -> str | None:
        """SageMaker's state of the endpoint; None if it does not exist."""
        try:
            return str((await self._ask("describe_endpoint", EndpointName=name))["EndpointStatus"])
        except NotThere:
            return None

    async def _ensure(self, create: str, **arguments: Any) -> None:
        """Create a model or a configuration with this operation; its name is the first argument.

        An existing one from an earlier call is replaced if its settings differ. Otherwise it is kept, since an endpoint
        that is not visible yet may use it.
        """
        kind = create.removeprefix("create_")
        try:
            await self._ask(create, **arguments)
        except (Refused, TryLater) as error:
            name, value = next(iter(arguments.items()))
            if not _is_existing(error):
                raise
            if not await self._has_settings(kind, {name: value}, arguments):
                await self._delete(f"delete_{kind}", **{name: value})
                await self._ask(create, **arguments)

    async def _has_settings(self, kind: str, name: dict[str, str], wanted: dict[str, Any]) -> bool:
        """Whether it has these settings, apart from tags, which are not returned; False if it cannot be read."""
        try:
            there = await self._ask(f"describe_{kind}", **name)
        except (Denied, NotThere):
            return False
        return covers(there, {key: value for key, value in wanted.items() if key != "Tags"})

    async def _delete(self, operation: str, **arguments: Any) -> None:
        try:
            await self._ask(operation, **arguments)
        except NotThere:
            return

    async def _pages(self, operation: str, key: str) -> builtins.list[dict[str, Any]]:
        return await self._aws.pages(SERVICE, operation, key, PaginationConfig=PAGE)

    async def _ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        return await self._aws.call(SERVICE, operation, **arguments)


def model(request: HostRequest, settings: SageMaker, base_model: str | None) -> dict[str, Any]:
    """CreateModel's arguments besides the name. Pure. `base_model`: URI of the adapter's base, if in a cache."""
    container: dict[str, Any] = {
        "Image": settings.trainer_image,
        "ModelDataSource": _weights(request.model),
        "Environment": {SERVE_FLAGS_VARIABLE: shlex.join(_flags(request, settings, base_model))},
    }
    if base_model is not None:
        container["AdditionalModelDataSources"] = [{"ChannelName": BASE_CHANNEL, **_files(base_model)}]
    asked = {
        "PrimaryContainer": container,
        "ExecutionRoleArn": settings.role_arn,
        "EnableNetworkIsolation": settings.network_isolation,
        "Tags": tags(request),
    }
    return asked | ({"VpcConfig": vpc(settings)} if settings.vpc else {})


def instances(running: Sequence[dict[str, Any]], asked: Sequence[dict[str, Any]]) -> int:
    """The number of instances by DescribeEndpoint, or else by its configuration; may be scaled to 0. Pure.

    A serverless variant has no instance count and counts as 1.
    """
    initial = {one["VariantName"]: one.get("InitialInstanceCount", 1) for one in asked}
    standing = {one["VariantName"]: one.get("CurrentInstanceCount") for one in running}
    return sum(count if (told := standing.get(name)) is None else told for name, count in initial.items())


def weights(described: dict[str, Any]) -> str:
    """The URI of the weights in DescribeModel's answer, in artifacts' form; "" if it is not a single model. Pure."""
    container = described.get("PrimaryContainer") or {}
    source = container.get("ModelDataSource", {}).get("S3DataSource", {}).get("S3Uri")
    return str(source or container.get("ModelDataUrl") or "").rstrip("/")


def _flags(request: HostRequest, settings: SageMaker, base_model: str | None) -> list[str]:
    flags = ["--sagemaker", "--port", str(SERVING_PORT), "--model", MODEL_FOLDER, "--name", request.name]
    flags += ["--base", BASE_FOLDER] if base_model is not None else ["--allow-hub"]
    longest = request.template.sage_maker.max_model_length if request.template.sage_maker else None
    flags += ["--max-model-length", str(longest)] if longest else []
    return [*flags, "--trust-remote-code"] if settings.trust_remote_code else flags


def _weights(model: str) -> dict[str, Any]:
    """The data source of a folder, or of an archive, as adopted jobs may leave, which SageMaker unpacks."""
    if not model.endswith(ARCHIVE):
        return _files(f"{model}/")
    return {"S3DataSource": {"S3Uri": model, "S3DataType": "S3Object", "CompressionType": "Gzip"}}


def _files(uri: str) -> dict[str, Any]:
    return {"S3DataSource": {"S3Uri": uri, "S3DataType": "S3Prefix", "CompressionType": "None"}}


def configuration(request: HostRequest) -> dict[str, Any]:
    """CreateEndpointConfig's arguments besides the name. Pure.

    Raises:
        Refused: the deployment does not say which instance type to pay for.
    """
    serving = request.template.sage_maker
    if serving is None:
        raise Refused(Reason.SPEC_INVALID, "spec.sageMaker: write instanceType")
    variant = {
        "VariantName": VARIANT,
        "ModelName": request.name,
        "InstanceType": serving.instance_type,
        "InitialInstanceCount": serving.instances,
        "InitialVariantWeight": 1.0,
        "ModelDataDownloadTimeoutInSeconds": STARTUP_SECONDS,
        "ContainerStartupHealthCheckTimeoutInSeconds": STARTUP_SECONDS,
    }
    return {"ProductionVariants": [variant], "Tags": tags(request)}


def tags(request: HostRequest) -> list[dict[str, str]]:
    """The owner's tag."""
    return [{"Key": OWNER_TAG, "Value": request.owner}]


def cached(aws: Aws, settings: SageMaker, base_model: str | None) -> str | None:
    """URI of a base model's folder in the connection's cache; None without a cache or a base model."""
    if settings.model_cache is None or base_model is None:
        return None
    return Bucket(aws, settings.model_cache).uri(f"{base_model}/")


def _is_completion(said: bytes) -> bool:
    """Whether an answer has the format of our server's completions."""
    try:
        found = orjson.loads(said)
    except ValueError:
        return False
    return isinstance(found, dict) and isinstance(found.get("choices"), list)


def _is_existing(error: ProviderError) -> bool:
    """Whether the name exists already: SageMaker says so in the message for some objects, by a code for others."""
    return "already exist" in error.message or "ResourceInUse" in error.message
