"""Which version a deployment serves, with which engine, and what its server's state means."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import DeploymentCost, Endpoint, HostedDeployment, ModelDeploymentStatus, Sleep
from finetune_api.job_status import Failure
from finetune_api.model import FineTunedModelStatus, ModelVersion
from finetune_api.reasons import Reason
from finetune_operator.decide.deployment.decision import (
    Alternatives,
    DeploymentView,
    decide,
    needs_no_reconcile,
    not_served,
)
from finetune_operator.decide.deployment.server_state import Serving
from finetune_operator.desired.serving import service
from tests.unit.finetune_operator.decide.deployment.given_deployments import spec, view
from tests.unit.finetune_operator.decide.given import (
    at,
    azure_connection,
    bedrock_connection,
    condition,
    connection,
    kstatus,
    openai_connection,
    sagemaker_connection,
    stamp,
)
from tests.unit.finetune_operator.decide.given_models import version

BROKEN = Failure.because(Reason.DEPLOYMENT_FAILED, "crashed")
NO_VERSION = FineTunedModelStatus()
ASLEEP = Sleep(since="2026-11-01T00:00:00Z", generation=1)
BILLED = HostedDeployment(
    name="sentiment-v1", version=1, connection="local", created_at=stamp(0), billed_since=stamp(0), attached=False
)

STATES: dict[str, tuple[DeploymentView, str, str, str, int | None]] = {
    "nothing there": (view(), "Deploying", "Deploying", "InProgress", None),
    "first roll-out": (view(Serving("Rolling", 2)), "Deploying", "Deploying", "InProgress", None),
    "answers": (view(Serving("Serving", 2, 1)), "Ready", "Ready", "Current", 2),
    "old one answers, new one not applied": (
        view(Serving("Serving", 1, 1), 1),
        "Updating",
        "Deploying",
        "InProgress",
        1,
    ),
    "old one answers, new one comes": (view(Serving("Rolling", 2, 1), 1), "Updating", "Deploying", "InProgress", 1),
    "old one answers, new one fails": (
        view(Serving("Failing", 2, 1, BROKEN), 1),
        "Degraded",
        "DeploymentFailed",
        "Failed",
        1,
    ),
    "first one fails": (view(Serving("Failing", 2, 0, BROKEN)), "Failed", "DeploymentFailed", "Failed", None),
    "an earlier one failed": (view(Serving("Failing", 1, 0, BROKEN)), "Deploying", "Deploying", "InProgress", None),
    "no replicas": (view(Serving("Idle", 2)), "Idle", "Suspended", "InProgress", None),
    "no replicas, of another version": (view(Serving("Idle", 1)), "Deploying", "Deploying", "InProgress", None),
    "no model": (view(model=None), "Pending", "ModelNotFound", "InProgress", None),
    "no version": (view(model=NO_VERSION), "Pending", "NoVersion", "InProgress", None),
    "no such version": (view(spec=spec(version=9)), "Failed", "VersionNotFound", "Failed", None),
    "version comes, the server of another answers": (
        view(Serving("Serving", 2, 1), 2, spec=spec(version=3), beside=Alternatives([], ["b"])),
        "Updating",
        "VersionNotFound",
        "InProgress",
        2,
    ),
    "version comes": (
        view(spec=spec(version=3), beside=Alternatives([], ["b"])),
        "Pending",
        "VersionNotFound",
        "InProgress",
        None,
    ),
    "version is gone, the server is not": (
        view(Serving("Serving", 1, 1), 1, spec=spec(version=9)),
        "Degraded",
        "VersionNotFound",
        "Failed",
        1,
    ),
    "no connection, a server answers that had gone for a while": (
        view(Serving("Serving", 2, 1, answers=2), connections={}),
        "Degraded",
        "ConnectionNotFound",
        "Failed",
        2,
    ),
    "no connection, a provider answers": (
        view(connections={}, status=ModelDeploymentStatus(served_version=2, engine="AzureOpenAI")),
        "Degraded",
        "ConnectionNotFound",
        "Failed",
        2,
    ),
    "no model any more, its server answers": (
        view(Serving("Serving", 2, 1, answers=2), model=None),
        "Degraded",
        "ModelNotFound",
        "Failed",
        2,
    ),
    "its model is gone, and it goes with it": (
        view(Serving("Serving", 2, 1, answers=2), model=None, owner_gone=True),
        "Degraded",
        "ModelNotFound",
        "InProgress",
        2,
    ),
    "one of two servers is back, after all were gone": (
        view(Serving("Rolling", 2, 1, answers=2)),
        "Updating",
        "Deploying",
        "InProgress",
        2,
    ),
    "no connection": (view(connections={}), "Pending", "ConnectionNotFound", "InProgress", None),
    "at bedrock": (view(connections={"local": bedrock_connection()}), "Deploying", "Deploying", "InProgress", None),
    "at bedrock, azure's block": (
        view(connections={"local": bedrock_connection()}, spec=spec(azureOpenAI={})),
        "Failed",
        "SpecInvalid",
        "Failed",
        None,
    ),
    "attach on this cluster": (view(spec=spec(attach={"id": "x"})), "Failed", "SpecInvalid", "Failed", None),
    "azure": (view(spec=spec(azureOpenAI={})), "Failed", "SpecInvalid", "Failed", None),
    "bedrock": (view(spec=spec(bedrock={})), "Failed", "SpecInvalid", "Failed", None),
    "a server here that is to be deleted": (
        view(spec=spec(idle={"action": "Delete"})),
        "Failed",
        "SpecInvalid",
        "Failed",
        None,
    ),
    "stopped for being idle": (
        view(Serving("Idle", 2), status=ModelDeploymentStatus(asleep=ASLEEP)),
        "Idle",
        "Idle",
        "InProgress",
        None,
    ),
    "attached, answers with another version": (
        view(Serving("Failing", 2, 1, BROKEN, answers=1)),
        "Degraded",
        "DeploymentFailed",
        "Failed",
        1,
    ),
    "at Azure, not spelled out": (
        view(connections={"local": azure_connection()}),
        "Pending",
        "AwaitingConfiguration",
        "InProgress",
        None,
    ),
    "at SageMaker, not spelled out, an older one answers": (
        view(Serving("Serving", 1, 1), 1, connections={"local": sagemaker_connection()}),
        "Degraded",
        "AwaitingConfiguration",
        "InProgress",
        1,
    ),
    "at Azure, not spelled out any more, and billed": (
        view(connections={"local": azure_connection()}, status=ModelDeploymentStatus(hosted=[BILLED])),
        "Failed",
        "AwaitingConfiguration",
        "Failed",
        None,
    ),
    "vLLM without its image": (
        view(spec=spec(huggingFace={"engine": "vLLM"})),
        "Failed",
        "SpecInvalid",
        "Failed",
        None,
    ),
    "no replicas, and somebody else changes them": (
        view(Serving("Idle", 2), contested="somebody scales it"),
        "Deploying",
        "Deploying",
        "InProgress",
        None,
    ),
    "spec that models do not know": (view(spec=None, spec_error="x"), "Failed", "SpecInvalid", "Failed", None),
}


@pytest.mark.parametrize("name", STATES)
def test_every_state_has_its_phase_reason_and_kstatus(name: str) -> None:
    given, phase, reason, for_tools, served = STATES[name]
    decision = decide(given)
    assert decision.status.phase == phase
    assert condition(decision.status, "Ready").reason == reason
    assert kstatus(decision.status) == for_tools
    assert decision.status.served_version == served
    assert condition(decision.status, "Ready").message, "kubectl get -o wide says why"
    assert decide(replace(given, status=decision.status, now=at(60))).status == decision.status
    if for_tools == "Failed" or phase == "Pending":
        assert (decision.serve is not None) == (given.serving.state == "Failing")


def test_what_is_awaited_is_under_way_for_nobody_and_a_failure_of_nobody() -> None:
    status = decide(view(connections={"local": azure_connection()})).status
    assert [condition(status, kind).status for kind in ("Ready", "Reconciling", "Stalled")] == ["False"] * 3
    told = condition(status, "Ready").message
    assert "write azureOpenAI: {sku: Standard}, in spec.deployment.template of the FineTunedModel" in told


@pytest.mark.parametrize(
    "wrong",
    [{"connections": {"local": azure_connection()}}, {"spec": None, "spec_error": "x"}],
    ids=["awaited", "spec"],
)
@pytest.mark.parametrize("billed", [True, False])
def test_what_is_billed_though_nothing_is_served_is_named(wrong: dict[str, Any], billed: bool) -> None:
    """Somebody has to end it, and nothing else tells of it."""
    hosted = [BILLED if billed else BILLED.model_copy(update={"billed_since": None})]
    status = decide(view(status=ModelDeploymentStatus(hosted=hosted), **wrong)).status
    assert ("sentiment-v1 exists at the provider" in condition(status, "Ready").message) is billed


def test_a_provider_that_refuses_a_deployment_leads_to_no_new_job() -> None:
    refused = Failure.because(Reason.PROVIDER_REFUSED, "not in this Region")
    for decision in (not_served(view(), refused), decide(view(Serving("Failing", 2, 0, refused)))):
        told = condition(decision.status, "Stalled").message
        assert ("spec.retryNonce" in told, "apply the job" in told) == (True, False)


def test_what_is_to_be_done_about_a_failed_deployment_is_told_where_it_is_known() -> None:
    empty = Failure(reason=Reason.DEPLOYMENT_FAILED, message="no instance is left", next_step="Have it scaled up.")
    message = condition(decide(view(Serving("Failing", 2, 0, empty))).status, "Stalled").message
    assert message == "version 2 cannot be served: no instance is left. Have it scaled up."
    message = condition(decide(view(Serving("Failing", 2, 0, BROKEN))).status, "Stalled").message
    assert "Correct what the message names" not in message


def test_idle_with_nothing_to_do_is_no_refusal() -> None:
    assert decide(view(spec=spec(idle={"action": "None"}))).serve is not None


STANDS = {"azureOpenAI": {"sku": "Standard"}}
PLACES: dict[str, tuple[LLMConnectionSpec, dict[str, Any], str]] = {
    # where the version is, what spec asks for beside, what is said against it
    "here, to zero": (connection(), {"idle": {"action": "ScaleToZero"}}, ""),
    "at Azure, deleted": (azure_connection(), STANDS | {"idle": {"action": "Delete"}}, ""),
    "at Azure, to zero": (
        azure_connection(),
        STANDS | {"idle": {"action": "ScaleToZero"}},
        "has no zero; write Delete",
    ),
    "at OpenAI, deleted": (openai_connection(), {"idle": {"action": "Delete"}}, "without a deployment that costs"),
    "at OpenAI, attached": (openai_connection(), {"attach": {"id": "x"}}, "a provider without deployments"),
    "at Azure, attached": (azure_connection(), {"attach": {"id": "x"}}, ""),
    "at SageMaker, attached": (sagemaker_connection(), {"attach": {"id": "x"}}, ""),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_be_where_the_version_is_is_refused_and_all_else_served(place: str) -> None:
    led_to, fields, said = PLACES[place]
    decision = decide(view(connections={"local": led_to}, spec=spec(**fields)))
    assert (decision.serve is None) is bool(said)
    assert said in condition(decision.status, "Ready").message


def test_servers_are_counted_here_and_not_at_a_provider() -> None:
    here = Serving("Serving", 2, 3)
    assert decide(view(here)).status.replicas == 3
    assert decide(view(here, connections={"local": azure_connection()}, spec=spec(**STANDS))).status.replicas is None
    assert decide(view(here, spec=spec(version=9))).status.replicas == 3
    for status, replicas in ((ModelDeploymentStatus(engine="Bedrock"), None), (ModelDeploymentStatus(), None)):
        assert decide(view(Serving("Absent"), status=status, connections={})).status.replicas is replicas
    before = ModelDeploymentStatus(engine="Transformers")
    assert decide(view(Serving("Absent"), status=before, connections={})).status.replicas == 0


def test_a_number_stays_with_its_version() -> None:
    decision = decide(view(spec=spec(version=1)))
    assert decision.serve is not None
    assert decision.serve.version == 1
    assert decision.status.target_version == 1


def test_the_endpoint() -> None:
    endpoint = decide(view()).status.endpoint
    assert endpoint is not None
    assert (endpoint.url, endpoint.model) == ("http://sentiment.team-a.svc/v1", "sentiment")


ENDPOINTS = {
    "azure": (azure_connection(), {"azureOpenAI": {}}, "OpenAI"),
    "bedrock": (bedrock_connection(), {}, "Converse"),
    "sagemaker": (sagemaker_connection(), {"sageMaker": {"instanceType": "ml.g5.xlarge"}}, "InvokeEndpoint"),
}


@pytest.mark.parametrize("provider", ENDPOINTS)
def test_a_providers_endpoint_is_asked_by_the_deployment_that_answers_and_in_its_own_dialect(provider: str) -> None:
    led_to, block, api = ENDPOINTS[provider]
    given = view(Serving("Serving", 2, 1), connections={"local": led_to}, spec=spec(**block), serves="md-v2")
    endpoint = decide(given).status.endpoint
    assert endpoint is not None
    assert (endpoint.model, endpoint.api) == ("md-v2", api)


SHOWN = ModelDeploymentStatus(served_version=2, hosted=[BILLED])
CHANGES: dict[str, tuple[dict[str, Any], bool]] = {
    "nothing": ({}, True),
    "its cost": ({"cost": DeploymentCost(per_hour="1.70", display="1.70 USD", currency="USD")}, True),
    "one list lacks it": ({"hosted": [BILLED.model_copy(update={"unseen_since": stamp(9)})]}, True),
    "what tells of its making": ({"hosted": [BILLED.model_copy(update={"operation": "b"})]}, True),
    "it answered": ({"hosted": [BILLED.model_copy(update={"answered": True})]}, False),
    "another one is recorded": ({"hosted": [BILLED, BILLED.model_copy(update={"name": "sentiment-v2"})]}, False),
    "what is served": ({"served_version": 1}, False),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_grows_by_itself_and_what_a_list_lacks_wakes_nobody(name: str) -> None:
    change, no_news = CHANGES[name]
    assert needs_no_reconcile(SHOWN, SHOWN.model_copy(update=change)) is no_news


def test_an_autoscaler_finds_the_servers_pods() -> None:
    metadata = {"name": "sentiment", "namespace": "team-a", "uid": "owner-uid"}
    owner = {"apiVersion": "finetune.dev/v1alpha1", "kind": "ModelDeployment", "metadata": metadata}
    selected = service(owner, spec())["spec"]["selector"]
    assert decide(view()).status.selector == ",".join(f"{label}={value}" for label, value in selected.items())


def test_a_deployment_on_its_way_out_is_left_alone() -> None:
    given = view(deleting=True)
    assert decide(given).status == given.status
    assert decide(given).serve is None


def test_what_the_api_server_refuses_is_told_and_what_serves_stays() -> None:
    decision = not_served(view(Serving("Serving", 1, 1), 1), Failure.because(Reason.NAME_CONFLICT, "Service exists"))
    assert (decision.status.phase, decision.status.served_version) == ("Degraded", 1)
    assert kstatus(decision.status) == "Failed"


@pytest.mark.parametrize(
    ("local", "image", "engine"),
    [
        (None, None, "Transformers"),
        (None, "vllm:1", "Transformers"),
        ({"gpus": 1}, "vllm:1", "vLLM"),
        ({"gpus": 1}, None, "Transformers"),
        ({"gpus": 0}, "vllm:1", "Transformers"),
        ({"engine": "vLLM"}, "vllm:1", "vLLM"),
        ({"engine": "Transformers", "gpus": 1}, "vllm:1", "Transformers"),
    ],
)
def test_the_engine(local: Any, image: str | None, engine: str) -> None:
    fields = {"huggingFace": local} if local else {}
    connections = {"local": connection({"vllmImage": image} if image else None)}
    assert decide(view(spec=spec(**fields), connections=connections)).engine == engine


UNFIT = {
    "encoder-decoder": ({"artifact": {"uri": "pvc://models/x", "kind": "Adapter", "architecture": "Seq2SeqLM"}}, True),
    "DoRA": ({"artifact": {"uri": "pvc://models/x", "kind": "Adapter", "useDoRA": True}}, True),
    "merged DoRA": ({"artifact": {"uri": "pvc://models/x", "kind": "Full", "useDoRA": True}}, False),
    "ranks of single layers": ({"artifact": {"uri": "pvc://models/x", "kind": "Adapter", "needsPEFT": True}}, True),
    "LoRA": ({"artifact": {"uri": "pvc://models/x", "kind": "Adapter", "architecture": "CausalLM"}}, False),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_vllm_cannot_serve_is_served_by_transformers_and_refused_where_vllm_is_named(kind: str) -> None:
    fields, refused = UNFIT[kind]
    connections = {"local": connection({"vllmImage": "vllm:1"})}
    made = ModelVersion.model_validate(version(2).wire() | fields)
    model = FineTunedModelStatus(active_version=2, versions=[made])
    automatic, named = (
        decide(view(spec=spec(huggingFace=local), connections=connections, model=model))
        for local in ({"gpus": 1}, {"gpus": 1, "engine": "vLLM"})
    )
    assert automatic.engine == ("Transformers" if refused else "vLLM")
    assert (named.serve is None) is refused
    if refused:
        ready = condition(named.status, "Ready")
        assert ready.reason == "SpecInvalid"
        assert "spec.huggingFace.engine: vLLM cannot serve version" in ready.message
        assert "write Auto or Transformers instead" in ready.message


def test_a_provider_s_deployment_that_was_scaled_by_kubectl_says_what_has_written_the_field() -> None:
    scaled = view(connections={"local": azure_connection()}, spec=spec(huggingFace={"replicas": 3}))
    message = condition(decide(scaled).status, "Stalled").message
    assert message.startswith("spec.huggingFace: version 2 is served by azureOpenAI")
    assert "leave it out. kubectl scale and autoscalers write it: they are for servers on the cluster" in message


def test_a_day_on_which_another_base_model_ends_is_not_told_of_the_version_that_is_served_now() -> None:
    serving, said = Serving("Serving", 2, 1), "gpt-4.1 and what was tuned from it are shut down on 2027-01-06"
    told = decide(view(serving, retires=said)).status
    assert (condition(told, "Retiring").status, condition(told, "Retiring").message) == ("True", said)
    gone = decide(view(serving, status=told, model=None)).status
    assert condition(gone, "Retiring").status == "True", "of what is not there to be looked at nothing new is known"
    after = condition(decide(view(serving, status=told)).status, "Retiring")
    assert (after.status, after.message) == ("False", "no last day is known")
    assert condition(decide(view(serving)).status, "Retiring") is None


def test_what_deployments_at_a_provider_have_cost_stays_known_where_none_is_needed_any_more() -> None:
    cost = DeploymentCost(
        per_hour="0.00", since_deployed="17.00", ended="17.0000", display="0.00 USD", basis="b", currency="USD"
    )
    past = DeploymentCost(since_deployed="17.00", ended="17.0000", currency="USD")
    serving = Serving("Serving", 2, 1)
    here = decide(view(serving, status=ModelDeploymentStatus(cost=cost))).status
    assert here.cost == past
    assert decide(view(serving, status=here)).status.cost == past
    free = cost.model_copy(update={"ended": None, "since_deployed": "0.00"})
    assert decide(view(serving, status=ModelDeploymentStatus(cost=free))).status.cost is None


def test_a_server_of_a_models_template_is_brought_back_there() -> None:
    """The number in the object itself would be put back to the template's."""
    found = condition(decide(view(Serving("Idle", 2))).status, "Ready")
    assert found.message.endswith("in spec.deployment.template of the FineTunedModel if that says 0")


def test_a_deployment_that_is_kept_from_going_says_what_keeps_it_and_serves_nothing_new() -> None:
    given = view(Serving("Serving", 1, 1), 1, deleting=True, kept_by="example.com/guard")
    found = decide(given)
    assert (found.serve, found.status.phase) == (None, "Deleting")
    assert "example.com/guard" in condition(found.status, "Ready").message


@pytest.mark.parametrize(
    ("serving", "served", "meanwhile", "told"),
    [
        (Serving("Rolling", 2, available=1, answers=1), None, None, 1),  # what its pods say
        (Serving("Rolling", 2, available=1), 1, None, 1),  # else what was told last
        (Serving("Rolling", 2, available=1, answers=1), None, 7, 1),  # what answers here comes before another place
        (Serving("Rolling", 2, available=0, answers=2), 1, 7, 7),  # nothing here: the other place
        (Serving("Rolling", 2, available=0, answers=2), 1, None, None),
    ],
)
def test_the_version_that_answers_is_told_by_where_it_answers(
    serving: Serving, served: int | None, meanwhile: int | None, told: int | None
) -> None:
    status = decide(view(serving, served, meanwhile=meanwhile)).status
    assert (status.served_version, status.phase) == (told, "Updating" if told else "Deploying")


def test_while_another_place_answers_the_endpoint_stays_its_own() -> None:
    elsewhere = Endpoint(url="https://res.openai.azure.com/openai/v1", model="sentiment-v1")
    status = ModelDeploymentStatus(endpoint=elsewhere, served_version=1)
    assert decide(view(status=status, meanwhile=1)).status.endpoint == elsewhere
    assert decide(view(Serving("Serving", 2, 1), status=status)).status.endpoint != elsewhere


def test_what_deployments_cost_now_is_told_before_what_those_that_are_gone_did() -> None:
    now = DeploymentCost(per_hour="1.70", since_deployed="18.70", ended="17.0000", display="1.70 USD", currency="USD")
    before = now.model_copy(update={"since_deployed": "17.00"})
    assert decide(view(status=ModelDeploymentStatus(cost=before), cost=now)).status.cost == now
