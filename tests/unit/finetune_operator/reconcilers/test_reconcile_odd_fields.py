"""Answers of a provider whose fields are other than documented: a life goes on, or its status says what is odd."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest

from finetune_operator.runtime.kube import FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.flapping import standing
from tests.simulators.http import Reply
from tests.unit.finetune_operator.reconcilers.at_providers import PROVIDERS
from tests.unit.finetune_operator.reconcilers.bedrock_hosted import HOURLY, PROVISION
from tests.unit.finetune_operator.reconcilers.cloud import azure, with_azure_job
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL

__all__ = ["s3_endpoint", "start"]

Change = Callable[[str, Any], Any]
"""A field's name and value, and its value from now on."""

YEARS = 20 * 365 * 86400


def is_time(name: str, value: Any) -> bool:
    timed = name.endswith(("_at", "Time", "estimated_finish", "createdAt", "lastModifiedAt"))
    return timed and isinstance(value, int | float | str)


def times(change: Callable[[float], Any]) -> Change:
    def changed(name: str, value: Any) -> Any:
        if not is_time(name, value):
            return value
        if isinstance(value, int | float):
            return change(float(value))
        found = change(datetime.fromisoformat(value).timestamp())
        return iso(found) if isinstance(found, int | float) else found

    return changed


def iso(seconds: float) -> str:
    """What was text stays text."""
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds < 1e11 else "99999-01-01T00:00:00Z"


OPTIONAL = frozenset(
    {
        *("trained_tokens", "result_files", "validation_file", "organization_id", "metadata", "integrations", "method"),
        *("hyperparameters", "seed", "error", "estimated_finish", "finished_at", "status_details", "bytes", "object"),
        *("statusDetails", "trainingMetrics", "validationMetrics", "lastModifiedTime", "endTime", "customizationType"),
        *("BillableTimeInSeconds", "TrainingTimeInSeconds", "FinalMetricDataList", "SecondaryStatusTransitions"),
    }
)
WORDS = frozenset({"type", "object", "level", "purpose", "SecondaryStatus", "customizationType"})


def null(name: str, value: Any) -> Any:
    return None if name in OPTIONAL else value


def unknown_words(name: str, value: Any) -> Any:
    return "quantum" if name in WORDS and isinstance(value, str) else value


def twice_and_backwards(_: str, value: Any) -> Any:
    return [*value, *value][::-1] if isinstance(value, list) and value and isinstance(value[0], dict) else value


def more(_: str, value: Any) -> Any:
    return value | {"quantum": [{"deep": None}]} if isinstance(value, dict) else value


CHANGES: dict[str, Change] = {
    "times are 0": times(lambda _: 0),
    "times are before all others": times(lambda _: -1),
    "times are years ahead": times(lambda at: at + YEARS),
    "times are beyond the calendar": times(lambda _: 1e15),
    "times are hours behind": times(lambda at: at - 6 * 3600),
    "times are hours ahead": times(lambda at: at + 6 * 3600),
    "times are ISO 8601": times(iso),
    "times are null": times(lambda _: None),
    "fields are null": null,
    "words are unknown": unknown_words,
    "rows come twice, the last first": twice_and_backwards,
    "there are more fields": more,
}
TOLD = {
    ("bedrock", "times are before all others"),
    ("bedrock", "times are beyond the calendar"),
    ("bedrock", "there are more fields"),  # a block of an answer is of one kind
    ("sagemaker", "times are beyond the calendar"),
    ("azure", "times are beyond the calendar"),
}
"""What the SDKs of AWS and of ARM do not take: status says that nothing can be read, until it can."""


@dataclass
class Oddly:
    """A provider's answers, changed."""

    change: Change
    on: bool = True

    async def __call__(self, _: str, carry_out: Callable[[], Reply]) -> Reply:
        reply = carry_out()
        if not self.on or reply.status != 200 or not isinstance(reply.body, bytes) or not reply.body.startswith(b"{"):
            return reply
        changed = self._changed("", orjson.loads(reply.body))
        return Reply(reply.status, orjson.dumps(changed), reply.headers, reply.content_type)

    def _changed(self, name: str, value: Any) -> Any:
        if isinstance(value, dict):
            value = {key: self._changed(key, inner) for key, inner in value.items()}
        elif isinstance(value, list):
            value = [self._changed("", inner) for inner in value]
        return self.change(name, value)


@pytest.mark.alike
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("of", PROVIDERS)
async def test_a_job_whose_provider_answers_oddly_succeeds_once(
    of: str, name: str, s3_endpoint: str, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    at = PROVIDERS[of]
    provider = at.simulator(s3_endpoint)
    provider.meddle = oddly = Oddly(CHANGES[name])
    cluster = at.cluster(provider, start(provider))
    cluster.add_cloud_job()
    await at.submit(cluster)
    for seconds in (61, 61, 3600, 3600, 61, 61, 61):
        await cluster.pass_time(seconds)
    status = cluster.status()
    if (of, name) in TOLD and status["phase"] != "Succeeded":
        assert status["failure"]["reason"] == "ProviderUnavailable", status
        oddly.on = False
        for seconds in (600, 3600, 600, 600):
            await cluster.pass_time(seconds)
        status = cluster.status()
    assert status["phase"] == "Succeeded", status
    assert provider.count(at.create) == 1
    assert len(cluster.status(MODEL)["versions"]) == 1
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    assert provider.defects == []


HOSTED = {
    "azure": ({"azureOpenAI": {"sku": "Standard"}}, "deployments.create_or_update"),
    "bedrock": ({"bedrock": HOURLY}, PROVISION),
    "sagemaker": ({"sageMaker": {"instanceType": "ml.g5.xlarge"}}, "CreateEndpoint"),
}
"""How a version is deployed, and the operation that makes what is billed."""
MOST = Decimal(100)
"""Dollars that a day of any of them costs less than."""


@pytest.mark.alike
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("of", HOSTED)
async def test_a_deployment_whose_provider_answers_oddly_is_made_once_and_goes(
    of: str, name: str, s3_endpoint: str, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    at, (template, creates) = PROVIDERS[of], HOSTED[of]
    provider = at.simulator(s3_endpoint)
    provider.meddle = oddly = Oddly(CHANGES[name], on=False)
    cluster = at.cluster(provider, start(provider))
    model = {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": {"deployment": {"template": template}}}
    cluster.kube.put(FINE_TUNED_MODELS, model)
    cluster.add_cloud_job()
    await at.submit(cluster)
    await cluster.pass_time(3600)
    oddly.on = True
    for _ in range(15):
        await cluster.pass_time(120)
    status = cluster.status(DEPLOYMENT)
    if status["phase"] != "Ready":
        assert (of, name) in TOLD, status
        assert "is not the provider's API" in cluster.condition("Ready", DEPLOYMENT)["message"]
        oddly.on = False
        for _ in range(15):
            await cluster.pass_time(120)
        status = cluster.status(DEPLOYMENT)
    assert (status["phase"], provider.count(creates)) == ("Ready", 1), status
    assert Decimal(status["cost"]["sinceDeployed"]) < MOST
    oddly.on = (of, name) not in TOLD
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    for _ in range(8):
        await cluster.pass_time(120)
    assert (MODEL_DEPLOYMENTS, "team-a", "sentiment") not in cluster.kube.objects
    assert standing(provider) == []
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("name", [name for name in CHANGES if "times" in name and "calendar" not in name])
async def test_what_is_attached_is_not_billed_from_before_there_was_any_such_thing(name: str, start: Any) -> None:
    provider = azure()
    cluster = await with_azure_job(provider, start(provider))
    await cluster.check(PROVIDERS["azure"].content)
    spec = {"deployment": {"mode": "Manual"}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    await cluster.settle()
    await cluster.pass_time(3600)
    served = cluster.status(MODEL)["versions"][0]["artifact"]["providerModelID"]
    request = {"sku": {"name": "Standard", "capacity": 1}, "properties": {"model": {"name": served, "version": "1"}}}
    provider.deployments.put("by-hand", request, provider.models)
    provider.advance(1000)
    provider.meddle = Oddly(CHANGES[name])
    spec = {"modelRef": {"name": "sentiment"}, "attach": {"id": "by-hand"}}
    cluster.kube.put(MODEL_DEPLOYMENTS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    await cluster.settle()
    for _ in range(3):
        await cluster.pass_time(60)
    status = cluster.status(DEPLOYMENT)
    assert status["phase"] == "Ready", status
    assert Decimal(status["cost"]["sinceDeployed"]) < MOST
