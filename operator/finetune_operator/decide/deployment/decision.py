"""What to do about a ModelDeployment, and its phase, conditions and endpoint from its server's state. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import (
    DeploymentCost,
    DeploymentPhase,
    Endpoint,
    ModelDeploymentSpec,
    ModelDeploymentStatus,
)
from finetune_api.job_status import Failure
from finetune_api.model import FineTunedModelStatus, ModelVersion
from finetune_api.names import DEPLOYMENT_LABEL, WAKE_ANNOTATION
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_operator.decide.conditions import (
    Fact,
    being_deleted,
    merge,
    ready,
    reconciling,
    resting,
    retiring,
    some_of,
    stalled,
)
from finetune_operator.decide.deployment.hosting_cost import past
from finetune_operator.decide.deployment.server_state import Serving
from finetune_operator.decide.deployment.serving_target import AT_PROVIDERS, Engine, Target, find_target
from finetune_operator.decide.deployment.token_prices import TokenPrices, with_answers
from finetune_operator.decide.job.versions import latest_of
from finetune_operator.decide.pending_versions import made_by, version_to_come
from finetune_operator.decide.pods.missing import with_field

_STEPS = {
    Reason.SPEC_INVALID: None,  # the message says what to write, and a deployment's fields can be changed
    Reason.AWAITING_CONFIGURATION: None,
    Reason.CONNECTION_NOT_FOUND: "Ask an admin to create it again as it was, or pin another version "
    "(spec.activeVersion of the FineTunedModel).",
    Reason.QUOTA_EXCEEDED: "Raise the quota of the provider's account, ask for less in the provider's block, or delete "
    "what is not needed there; it is retried automatically.",
    Reason.DELETED_AT_PROVIDER: "Activate a version whose model is still there (spec.activeVersion of the "
    "FineTunedModel), or tune another one with a FineTuneJob under a new name.",
    Reason.CONTAINER_CONFIG_INVALID: "Create the Secret, ConfigMap or volume that the message names in this namespace: "
    "the pod continues automatically. If only the name is wrong, correct it here, or have it corrected in the "
    "connection.",
    Reason.PROVIDER_REFUSED: "Correct the provider's block by what the message names, or set spec.retryNonce to have "
    "it tried again as it is.",
}
"""Next steps for deployments, where those of jobs do not apply."""

_MAY_COME = {Reason.NO_VERSION, Reason.MODEL_NOT_FOUND, Reason.CONNECTION_NOT_FOUND}
"""What a deployment waits for if it is applied before everything else."""


@dataclass(frozen=True)
class Alternatives:
    """Names in the namespace to mention if the model, or a version of it, is not found."""

    models: Sequence[str]
    makers: Sequence[str]
    """Jobs that have not ended and, if they succeed, make the model or its next version."""
    failed: Sequence[str] = ()
    """Jobs that would have made it, and failed."""


@dataclass(frozen=True)
class DeploymentView:
    """All that is known of a ModelDeployment when a decision is made."""

    name: str
    namespace: str
    generation: int
    deleting: bool
    spec: ModelDeploymentSpec | None
    spec_error: str
    status: ModelDeploymentStatus
    model: FineTunedModelStatus | None
    connections: Mapping[str, LLMConnectionSpec | None]
    """The connections of the model's versions; None for one that cannot be read."""
    serving: Serving
    now: datetime
    kept_by: str = ""
    """The finalizers that keep it while it is being deleted."""
    serves: str | None = None
    """Name of the deployment at a provider that answers."""
    meanwhile: int | None = None
    """The version that another server answers with until the target does."""
    cost: DeploymentCost | None = None
    """What its deployments at a provider cost."""
    answers: TokenPrices | None = None
    """What their answers cost in addition, where they are billed by tokens."""
    retires: str | None = None
    """What the provider retires of the model, and when, if known."""
    idle: Fact | None = None
    """Whether it receives requests, if that was checked."""
    contested: str = ""
    """What somebody else keeps changing in the serving objects."""
    unrecorded: str = ""
    """Prefix of the names of deployments that it may have at a provider, if no record tells which."""
    maker: str = ""
    """The UID of the model that created it, if one did: its deployments at a provider are named by it."""
    beside: Alternatives | None = None
    """What exists instead, if the model or the version is not found."""
    owner_gone: bool = False
    """Whether its model owned it and is gone: Kubernetes' garbage collector deletes it next."""


@dataclass(frozen=True)
class DeploymentDecision:
    """The deployment's status, and the version to serve and on which engine, if any."""

    status: ModelDeploymentStatus
    serve: ModelVersion | None = None
    engine: Engine = "Transformers"


def decide(view: DeploymentView) -> DeploymentDecision:
    """Find what to serve, or say why there is nothing; then read the server's state."""
    if view.deleting:
        return deletion_decision(view, being_deleted(view.kept_by)) if view.kept_by else DeploymentDecision(view.status)
    if view.spec is None:
        return not_served(view, Failure.because(Reason.SPEC_INVALID, view.spec_error), billed=_billed(view))
    target = find_target(view.spec, view.model, view.connections)
    if isinstance(target, Failure):
        return not_served(view, _with_names(target, view), billed=_billed(view))
    fields: dict[str, Any] = {
        "target_version": target.version.version,
        "engine": target.engine,
        "replicas": view.serving.available if target.connection.hugging_face else None,
        "selector": f"{DEPLOYMENT_LABEL}={view.name}" if target.connection.hugging_face else None,
        "endpoint": view.status.endpoint if view.meanwhile or _is_unshown(view, target) else _endpoint(view, target),
        "cost": with_answers(view.cost or past(view.status.cost), view.answers),
    }
    phase, facts, served = _read_server(view, target, _note(view))
    if _is_unshown(view, target):
        phase, facts, served = view.status.phase or phase, [], view.status.served_version
    facts = [*facts, *retiring(view.retires, view.status.conditions)]
    fields |= {"phase": phase, "served_version": served}
    return DeploymentDecision(_status(view, facts, fields), serve=target.version, engine=target.engine)


def _is_unshown(view: DeploymentView, target: Target) -> bool:
    """Whether what was last reported of the wanted version still holds."""
    return view.serving.state == "Unshown" and view.status.target_version == target.version.version


def _with_names(failure: Failure, view: DeploymentView) -> Failure:
    """Adds to a missing model or version what will make it, or which names exist."""
    beside, spec = view.beside, view.spec
    if failure.reason is Reason.VERSION_NOT_FOUND and (awaited := _version_to_come(view)):
        return failure.model_copy(update={"message": f"{failure.message}; {awaited}", "next_step": None})
    if failure.reason is not Reason.MODEL_NOT_FOUND or beside is None or spec is None:
        return failure
    if beside.makers:
        told = f"{failure.message} yet; {made_by(beside.makers)}"
        return failure.model_copy(update={"message": told, "next_step": None})
    if beside.failed:
        first, *others = sorted(beside.failed)
        told = f"FineTuneJob {first}{f' and {len(others)} more' if others else ''}, which would have made it, failed"
        step = f"See why (kubectl describe ftj {first}), and retry it or apply another; the rest follows automatically."
        return failure.model_copy(update={"message": f"{failure.message}; {told}", "next_step": step})
    there = f"this namespace has {some_of(sorted(beside.models), spec.model_ref.name) or 'none'}"
    message = f"{failure.message}, and no FineTuneJob that is under way names it in spec.modelRef; {there}"
    return failure.model_copy(update={"message": message})


def _version_to_come(view: DeploymentView) -> str:
    """When the requested version will exist, if a job that is under way may make it."""
    asked = view.spec.version if view.spec else "Active"
    if view.beside is None or view.model is None or asked == "Active":
        return ""
    return version_to_come(int(asked), latest_of(view.model), view.beside.makers)


def _endpoint(view: DeploymentView, target: Target) -> Endpoint:
    settings, model = target.connection.open_ai, target.version.artifact.provider_model_id
    azure, bedrock = target.connection.azure_open_ai, target.connection.bedrock
    if target.connection.sage_maker is not None:
        return Endpoint(url=target.connection.sage_maker.runtime_url, model=view.serves or "", api="InvokeEndpoint")
    if bedrock is not None:
        return Endpoint(url=bedrock.runtime_url, model=view.serves or "", api="Converse")
    if azure is not None:
        return Endpoint(url=f"{(azure.endpoint or '').rstrip('/')}/openai/v1", model=view.serves or "")
    if settings is not None:
        return Endpoint(url=settings.base_url.rstrip("/"), model=model or "")
    return Endpoint(url=f"http://{view.name}.{view.namespace}.svc/v1", model=view.name)


def _read_server(view: DeploymentView, wanted: Target, note: str) -> tuple[DeploymentPhase, list[Fact], int | None]:
    """Phase, conditions and the version that answers, from the server's state."""
    serving, target = view.serving, wanted.version.version
    if serving.state == "Idle" and serving.version == target and not view.contested:
        return "Idle", _resting_facts(view), None
    if serving.state == "Serving" and serving.version == target:
        return "Ready", ready(Reason.READY, f"version {target} answers{note}"), target
    answering = _answering(view)
    if serving.state == "Failing" and serving.failure and serving.version == target:
        facts = _failing(_named(serving.failure, view, wanted), target, answering)
        return ("Degraded" if answering else "Failed"), facts, answering
    what = f"is being deployed{note}{_still_answering(answering, target)}"
    if serving.short_of and serving.version == target:
        what = f"was deployed; {serving.available} of {serving.short_of} servers are ready{note}"
    facts = reconciling(Reason.DEPLOYING, f"version {target} {what}")
    return ("Updating" if answering else "Deploying"), facts, answering


def _named(failure: Failure, view: DeploymentView, target: Target) -> Failure:
    """Adds the field, here or in the connection, that names what the server lacks."""
    connection = target.version.connection
    return with_field(_of_deployment(failure), view.spec, connection, target.connection, view.namespace)


def _note(view: DeploymentView) -> str:
    return f"{view.serving.note}; {view.contested}" if view.contested else view.serving.note


def _answering(view: DeploymentView) -> int | None:
    """The version that answers, whether or not it is the wanted one."""
    return (view.serving.answers or view.status.served_version) if view.serving.available else view.meanwhile


def _still_answering(answering: int | None, target: int) -> str:
    if answering == target:
        return "; it answers already"
    return f"; version {answering} keeps answering" if answering else ""


def _failing(failure: Failure, target: int, answering: int | None) -> list[Fact]:
    message = f"version {target} cannot be served: {failure.message}{_still_answering(answering, target)}"
    if answering == target:  # but with other pods or terms than the spec now asks for
        message = f"version {target} answers, and is not deployed as spec says now: {failure.message}"
    # A server's last message contains the next step, unless the failure has a better one.
    usual = failure.next_step == NEXT_STEP[Reason.DEPLOYMENT_FAILED]
    step = None if failure.reason is Reason.DEPLOYMENT_FAILED and usual else _of_deployment(failure).next_step
    return stalled(failure.reason, failure.model_copy(update={"message": message, "next_step": step}).sentences)


def _of_deployment(failure: Failure) -> Failure:
    """With a deployment's next step, if the failure has only the usual one of its reason."""
    reason = Reason(failure.reason)
    if reason not in _STEPS or failure.next_step != NEXT_STEP[reason]:
        return failure
    return failure.model_copy(update={"next_step": _STEPS[reason]})


def _resting_facts(view: DeploymentView) -> list[Fact]:
    if view.status.asleep is None:
        return resting(
            Reason.SUSPENDED,
            "spec.huggingFace.replicas is 0: set it to 1 or more to bring the server back, in spec.deployment.template "
            "of the FineTunedModel if that says 0",
        )
    return resting(
        Reason.IDLE,
        f"it was stopped at {view.status.asleep.since} because it received no requests: change the annotation "
        f"{WAKE_ANNOTATION}, or the spec, to bring it back",
    )


def deletion_decision(view: DeploymentView, facts: list[Fact]) -> DeploymentDecision:
    """The object is being deleted, and with it what it made, here or at a provider."""
    return DeploymentDecision(_status(view, facts, {"phase": "Deleting", "served_version": None}))


def _billed(view: DeploymentView) -> str:
    """Names of the deployments at a provider that are billed by the hour, as far as known."""
    return ", ".join(one.name for one in view.status.hosted or () if one.billed_since is not None)


def _pods(view: DeploymentView) -> int | None:
    """Servers on this cluster, if the target is not known; those at a provider are not counted."""
    nowhere = view.status.engine is None and view.serving.state == "Absent"
    return None if nowhere or view.status.engine in AT_PROVIDERS.values() else view.serving.available


def not_served(view: DeploymentView, failure: Failure, *, billed: str = "") -> DeploymentDecision:
    """There is nothing to serve, or it cannot be deployed. What already serves is left alone.

    `billed`: what is billed although nothing is to be served; the user must delete it.
    """
    # What serves at a provider continues without its connection, and is not observed meanwhile.
    served = view.status.served_version if view.status.engine in AT_PROVIDERS.values() else _answering(view)
    answers = view.serving.available > 0 or served is not None
    comes = failure.reason is Reason.VERSION_NOT_FOUND and bool(_version_to_come(view))
    goes = failure.reason is Reason.MODEL_NOT_FOUND and view.owner_gone
    # A server that has answered had everything it needs and lost it: that does not come back on its own.
    passes = (comes or goes or (failure.reason in _MAY_COME and not answers)) and not billed
    waits = failure.reason is Reason.AWAITING_CONFIGURATION and not billed
    said = _of_deployment(failure).sentences
    if billed:
        said = f"{said.rstrip('.')}. {billed} exists at the provider meanwhile, and is billed until this is deleted"
    elif view.unrecorded:
        said = f"{said.rstrip('.')}. {unrecorded(view.unrecorded)}"
    facts = (resting if waits else reconciling if passes else stalled)(Reason(failure.reason), said)
    phase: DeploymentPhase = "Pending" if passes or waits else "Failed"
    if answers:
        phase = "Updating" if comes else "Degraded"
    fields = {"phase": phase, "replicas": _pods(view), "served_version": served}
    return DeploymentDecision(_status(view, facts, fields))


def unrecorded(begins: str) -> str:
    """The message for an object with our finalizer whose record is lost."""
    return (
        "What this object had at a provider is not recorded any more, as after a restore without status: deployments "
        f"whose names begin with {begins} may exist there, and be billed"
    )


def _status(view: DeploymentView, facts: list[Fact], fields: dict[str, Any]) -> ModelDeploymentStatus:
    if view.idle is not None:
        facts = [*facts, view.idle]
    conditions = merge(view.status.conditions, facts, generation=view.generation, now=view.now)
    return view.status.model_copy(update={**fields, "conditions": conditions, "observed_generation": view.generation})


def needs_no_reconcile(before: ModelDeploymentStatus, now: ModelDeploymentStatus) -> bool:
    """Whether a change is to be written without another reconcile right after.

    That is true of the cost, which grows with time, and of what lists lack, as every third list may be incomplete.
    Progress that an operation tells is read in the next reconcile anyway.
    """

    def said(status: ModelDeploymentStatus) -> ModelDeploymentStatus:
        hosted = [one.model_copy(update={"unseen_since": None, "operation": None}) for one in status.hosted or ()]
        return status.model_copy(update={"cost": None, "hosted": hosted})

    return said(before) == said(now)
