"""What to do about a ModelDeployment: which version to serve, and what its server's state means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

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
from finetune_api.names import DEPLOYMENT_LABEL, SERVED_VERSION_LABEL, WAKE_ANNOTATION
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import Fact, merge, moment, ready, reconciling, resting, stalled
from finetune_operator.decide.pod import (
    containers,
    crashed_by_signal,
    ended_before,
    held_up,
    is_ours,
    memory_limit,
    never_ran,
    obstacle,
    terminated,
    unplaced,
    waiting,
)
from finetune_operator.decide.versions import there_are

Manifest = Mapping[str, Any]
Engine = Literal["vLLM", "Transformers", "OpenAI", "AzureOpenAI", "Bedrock", "SageMaker"]

_AT_PROVIDERS: dict[str, Engine] = {
    "openAI": "OpenAI",
    "azureOpenAI": "AzureOpenAI",
    "bedrock": "Bedrock",
    "sageMaker": "SageMaker",
}
"""Engine by provider block, of those that serve what they have tuned themselves."""

LONG_ENOUGH = timedelta(minutes=10)
"""A server that has run so long was up: as the kubelet sees it, which then starts it again without a pause."""


@dataclass(frozen=True)
class Serving:
    """The state of the server, whatever provider runs it."""

    state: Literal["Absent", "Rolling", "Serving", "Failing", "Idle"]
    version: int | None = None
    """Version that the server is meant to serve; all of its pods do when Serving."""
    available: int = 0
    """Pods that answer, of any version."""
    failure: Failure | None = None
    note: str = ""
    """What is to be said beside, while it serves or rolls out."""
    answers: int | None = None
    """Version that answers now, where that is seen; else it is what status said before."""


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
    connections: Mapping[str, LLMConnectionSpec]
    serving: Serving
    now: datetime
    serves: str | None = None
    """Name of the deployment at a provider that answers."""
    meanwhile: int | None = None
    """Version that one at another place than the target's answers with, until the target does."""
    cost: DeploymentCost | None = None
    """What deployments at a provider cost."""
    retires: str | None = None
    """What of the provider's model ends on a day that is known."""
    idle: Fact | None = None
    """Whether anybody asks it, where that was looked at."""
    contested: str = ""
    """What somebody else changes of what serves, again and again."""


@dataclass(frozen=True)
class DeploymentDecision:
    """What the deployment's status should be, and which version to serve with which connection, if any."""

    status: ModelDeploymentStatus
    serve: ModelVersion | None = None
    engine: Engine = "Transformers"


@dataclass(frozen=True)
class Target:
    """What to serve, and how."""

    version: ModelVersion
    connection: LLMConnectionSpec
    engine: Engine


def decide(view: DeploymentView) -> DeploymentDecision:
    """Find what to serve, or say why there is nothing; then read the server's state."""
    if view.deleting:
        return DeploymentDecision(view.status)
    if view.spec is None:
        return not_served(view, Failure.because(Reason.SPEC_INVALID, view.spec_error), billed=_billed(view))
    target = find_target(view.spec, view.model, view.connections)
    if isinstance(target, Failure):
        return not_served(view, target, billed=_billed(view))
    fields: dict[str, Any] = {
        "target_version": target.version.version,
        "engine": target.engine,
        "replicas": view.serving.available if target.connection.hugging_face else None,
        "selector": f"{DEPLOYMENT_LABEL}={view.name}" if target.connection.hugging_face else None,
        "endpoint": view.status.endpoint if view.meanwhile else _endpoint(view, target),
        "cost": view.cost,
    }
    phase, facts, served = _reading(view, target.version.version, _note(view))
    fields |= {"phase": phase, "served_version": served}
    return DeploymentDecision(_status(view, facts, fields), serve=target.version, engine=target.engine)


def find_target(
    spec: ModelDeploymentSpec, model: FineTunedModelStatus | None, connections: Mapping[str, LLMConnectionSpec]
) -> Target | Failure:
    """The version to serve, its connection and the engine, or why there is none."""
    if model is None:
        return Failure.because(
            Reason.MODEL_NOT_FOUND, f"spec.modelRef: FineTunedModel {spec.model_ref.name} does not exist"
        )
    number = model.active_version if spec.version == "Active" else int(spec.version)
    if number is None:
        return Failure.because(Reason.NO_VERSION, f"FineTunedModel {spec.model_ref.name} has no active version yet")
    version = next((v for v in model.versions or () if v.version == number), None)
    if version is None:
        there = there_are(model.versions or ())
        return Failure.because(
            Reason.VERSION_NOT_FOUND,
            f"spec.version: FineTunedModel {spec.model_ref.name} has no version {number}; {there}",
        )
    connection = connections.get(version.connection)
    if connection is None:
        return Failure.because(
            Reason.CONNECTION_NOT_FOUND, f"LLMConnection {version.connection} of version {number} does not exist"
        )
    target = _attach_misfit(spec, version, connection) or _on_connection(spec, version, connection)
    return target if isinstance(target, Failure) else (_idle_misfit(spec, target) or target)


def _attach_misfit(spec: ModelDeploymentSpec, version: ModelVersion, connection: LLMConnectionSpec) -> Failure | None:
    if spec.attach is None or (connection.hugging_face is None and connection.open_ai is None):
        return None
    where = "this cluster" if connection.hugging_face is not None else "a provider without deployments"
    return Failure.because(
        Reason.SPEC_INVALID,
        f"spec.attach: version {version.version} is on {where}, so there is nothing to attach; leave it out",
    )


def _idle_misfit(spec: ModelDeploymentSpec, target: Target) -> Failure | None:
    """An action that cannot be done where the version is. The API server sees it only where a block says where."""
    action, where = spec.idle.action if spec.idle else "None", target.version.connection
    if action == "None":
        return None
    if target.connection.open_ai is not None:
        said = f"LLMConnection {where} serves without a deployment that costs anything; leave it out"
    elif target.connection.hugging_face is not None and action == "Delete":
        said = f"version {target.version.version} is served on this cluster; write ScaleToZero"
    elif target.connection.hugging_face is None and action == "ScaleToZero":
        said = f"a deployment at the provider of LLMConnection {where} has no zero; write Delete"
    else:
        return None
    return Failure.because(Reason.SPEC_INVALID, f"spec.idle.action: {said}")


def _on_connection(spec: ModelDeploymentSpec, version: ModelVersion, connection: LLMConnectionSpec) -> Target | Failure:
    if connection.provider in _AT_PROVIDERS:
        return _at_provider(spec, version, connection)
    foreign = _foreign_block(spec, connection)
    if foreign is not None:
        return Failure.because(
            Reason.SPEC_INVALID,
            f"spec.{foreign}: version {version.version} is on {connection.provider}; use its block, or none",
        )
    if connection.hugging_face is not None:
        return choose_engine(spec, version, connection)
    return Failure.because(
        Reason.PROVIDER_NOT_SUPPORTED, f"this release does not serve on {connection.provider} connections"
    )


def _at_provider(spec: ModelDeploymentSpec, version: ModelVersion, connection: LLMConnectionSpec) -> Target | Failure:
    """A provider that serves what it has tuned itself: there is nothing of a server to set."""
    set_in_vain = _foreign_block(spec, connection) or ("apiKeySecretRef" if spec.api_key_secret_ref else None)
    if set_in_vain:
        return Failure.because(
            Reason.SPEC_INVALID,
            f"spec.{set_in_vain}: version {version.version} is served by {connection.provider}, the provider of "
            f"LLMConnection {version.connection}; leave it out",
        )
    if connection.azure_open_ai is not None and spec.azure_open_ai is None and spec.attach is None:
        return Failure.because(
            Reason.SPEC_INVALID,
            "spec.azureOpenAI: a deployment at Azure is billed by the hour, so nothing is made before it is asked for: "
            "write azureOpenAI: {sku: Standard}",
        )
    if connection.sage_maker is not None and spec.sage_maker is None and spec.attach is None:
        return Failure.because(
            Reason.SPEC_INVALID,
            "spec.sageMaker: an endpoint is billed by the hour, so nothing is made before it is asked for: "
            "write sageMaker: {instanceType: ml.g5.xlarge}",
        )
    return Target(version, connection, _AT_PROVIDERS[connection.provider])


def _foreign_block(spec: ModelDeploymentSpec, connection: LLMConnectionSpec) -> str | None:
    """A block of the spec that is of another provider than the version's."""
    blocks = {
        "huggingFace": spec.hugging_face,
        "azureOpenAI": spec.azure_open_ai,
        "bedrock": spec.bedrock,
        "sageMaker": spec.sage_maker,
    }
    return next((name for name, value in blocks.items() if value is not None and name != connection.provider), None)


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


def choose_engine(spec: ModelDeploymentSpec, version: ModelVersion, connection: LLMConnectionSpec) -> Target | Failure:
    """Auto takes vLLM where a GPU is asked for, the connection has its image and vLLM can serve the version."""
    local = spec.hugging_face
    image = connection.hugging_face.vllm_image if connection.hugging_face else None
    wanted = local.engine if local else "Auto"
    if wanted == "vLLM" and image is None:
        return Failure.because(
            Reason.SPEC_INVALID,
            f"spec.huggingFace.engine: vLLM needs huggingFace.vllmImage on LLMConnection {version.connection}",
        )
    unfit = not_for_vllm(version)
    if wanted == "vLLM" and unfit:
        return Failure.because(
            Reason.SPEC_INVALID,
            f"spec.huggingFace.engine: vLLM cannot serve version {version.version}: {unfit}; "
            "write Auto or Transformers instead",
        )
    gpus = (local.gpus if local else None) or 0
    automatic = wanted == "Auto" and gpus > 0 and image is not None and unfit is None
    return Target(version, connection, "vLLM" if wanted == "vLLM" or automatic else "Transformers")


def not_for_vllm(version: ModelVersion) -> str | None:
    """Why vLLM (0.33) cannot serve a version, or None where it can."""
    if version.artifact.architecture == "Seq2SeqLM":
        return "it is an encoder-decoder"
    if version.artifact.use_dora and version.artifact.kind == "Adapter":
        return "it is a DoRA adapter"
    return None


def _reading(view: DeploymentView, target: int, note: str) -> tuple[DeploymentPhase, list[Fact], int | None]:
    """Phase, conditions and the version that answers, from the server's state."""
    serving = view.serving
    if serving.state == "Idle" and serving.version == target and not view.contested:
        return "Idle", _at_rest(view), None
    if serving.state == "Serving" and serving.version == target:
        return "Ready", ready(Reason.READY, f"version {target} answers{note}"), target
    answering = _answering(view)
    still = _still(answering, target)
    if serving.state == "Failing" and serving.failure and serving.version == target:
        facts = _failing(serving.failure, target, still)
        return ("Degraded" if answering else "Failed"), facts, answering
    facts = reconciling(Reason.DEPLOYING, f"version {target} is being deployed{note}{still}")
    return ("Updating" if answering else "Deploying"), facts, answering


def _note(view: DeploymentView) -> str:
    return f"{view.serving.note}; {view.contested}" if view.contested else view.serving.note


def _answering(view: DeploymentView) -> int | None:
    """The version that answers, whichever is meant to."""
    return (view.serving.answers or view.status.served_version) if view.serving.available else view.meanwhile


def _still(answering: int | None, target: int) -> str:
    if answering == target:
        return "; it answers already"
    return f"; version {answering} goes on answering" if answering else ""


def _failing(failure: Failure, target: int, still: str) -> list[Fact]:
    message = f"version {target} cannot be served: {failure.message}{still}"
    # What a server said when it ended has its own next step.
    step = None if failure.reason is Reason.DEPLOYMENT_FAILED else failure.next_step
    return stalled(failure.reason, failure.model_copy(update={"message": message, "next_step": step}).sentences)


def _at_rest(view: DeploymentView) -> list[Fact]:
    if view.status.asleep is None:
        return resting(Reason.SUSPENDED, "spec.huggingFace.replicas is 0: set it to 1 or more to bring the server back")
    return resting(
        Reason.IDLE,
        f"it was stopped at {view.status.asleep.since} because nobody asked it: change the annotation "
        f"{WAKE_ANNOTATION}, or the spec, to bring it back",
    )


def going(view: DeploymentView, facts: list[Fact]) -> DeploymentDecision:
    """The object is being deleted, and what it made at a provider with it."""
    return DeploymentDecision(_status(view, facts, {"phase": "Deleting", "served_version": None}))


def _billed(view: DeploymentView) -> str:
    """Names of what stands at a provider by the hour, as far as is known."""
    return ", ".join(one.name for one in view.status.hosted or () if one.billed_since is not None)


def not_served(view: DeploymentView, failure: Failure, *, billed: str = "") -> DeploymentDecision:
    """There is nothing to serve, or what serves cannot be made: what serves already is left alone.

    What is `billed` though nothing is to be served is somebody's to end.
    """
    passes = failure.reason in {Reason.NO_VERSION, Reason.MODEL_NOT_FOUND, Reason.CONNECTION_NOT_FOUND}
    passes = passes and not billed
    # Of a field the message says what to write, and a deployment's can be changed.
    said = failure.message if failure.reason is Reason.SPEC_INVALID else failure.sentences
    if billed:
        said = f"{said.rstrip('.')}. {billed} stands at the provider meanwhile, and is billed until this is deleted"
    facts = (reconciling if passes else stalled)(failure.reason, said)
    # What answers elsewhere is not asked for without its connection, and is none the worse for that.
    served = view.status.served_version if view.status.engine in _AT_PROVIDERS.values() else _answering(view)
    answers = view.serving.available > 0 or served is not None
    phase: DeploymentPhase = "Degraded" if answers else ("Pending" if passes else "Failed")
    fields = {"phase": phase, "replicas": view.serving.available, "served_version": served}
    return DeploymentDecision(_status(view, facts, fields))


def _status(view: DeploymentView, facts: list[Fact], fields: dict[str, Any]) -> ModelDeploymentStatus:
    if view.idle is not None:
        facts = [*facts, view.idle]
    if view.retires:
        facts = [*facts, Fact("Retiring", "True", Reason.MODEL_RETIRES, view.retires)]
    conditions = merge(view.status.conditions, facts, generation=view.generation, now=view.now)
    return view.status.model_copy(update={**fields, "conditions": conditions, "observed_generation": view.generation})


def differs_in_cost_alone(before: ModelDeploymentStatus, now: ModelDeploymentStatus) -> bool:
    """Whether nothing but its cost has changed, which grows by itself: written, and no reason to look again."""
    return before.model_copy(update={"cost": now.cost}) == now


def read_serving(deployment: Manifest | None, pods: Sequence[Manifest]) -> Serving:
    """The state of a server from its apps/v1 Deployment and its pods."""
    if deployment is None:
        return Serving("Absent")
    spec, status = deployment["spec"], deployment.get("status", {})
    version = _version(spec["template"]["metadata"].get("labels", {}))
    wanted = spec.get("replicas", 1)
    available = status.get("availableReplicas", 0)
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    if wanted == 0:
        return Serving("Idle", version, available)
    rolled = (
        seen
        and status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
        and available >= wanted
    )
    answers = _oldest_ready(pods)
    if rolled:
        return Serving("Serving", version, available, answers=answers)
    of_version = [pod for pod in pods if _version(pod["metadata"].get("labels", {})) == version and not _is_over(pod)]
    failure = _serving_failure(status if seen else {}, of_version)
    if failure is not None:
        return Serving("Failing", version, available, failure, answers=answers)
    return Serving("Rolling", version, available, note=_waiting_for(of_version), answers=answers)


def _oldest_ready(pods: Sequence[Manifest]) -> int | None:
    """Version of the oldest server that is ready: while a new one is rolled out, that is the one before."""
    up = [pod for pod in pods if pod["metadata"].get("deletionTimestamp") is None and _is_ready(pod)]
    oldest = min(up, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), default=None)
    return _version(oldest["metadata"].get("labels", {})) if oldest else None


def _is_over(pod: Manifest) -> bool:
    """Whether it was evicted, or not run by its node: it stays to be read, and what it was is not tried again."""
    return pod.get("status", {}).get("phase") in {"Failed", "Succeeded"}


def _is_ready(pod: Manifest) -> bool:
    ours = [one for one in pod.get("status", {}).get("containerStatuses") or () if is_ours(one)]
    return bool(ours) and all(one.get("ready") for one in ours)


def _version(labels: Manifest) -> int | None:
    text = str(labels.get(SERVED_VERSION_LABEL, ""))
    return int(text) if text.isdecimal() else None


def _serving_failure(status: Manifest, pods: Sequence[Manifest]) -> Failure | None:
    """Why pods of the new version do not come up; a pod that still starts, or waits for room, is no failure."""
    for pod in pods:
        if found := _pod_failure(pod):
            return found
    conditions: list[Manifest] = status.get("conditions") or []
    refused = next((c for c in conditions if c["type"] == "ReplicaFailure" and c["status"] == "True"), None)
    if refused:
        return Failure.because(Reason.POD_REJECTED, str(refused.get("message", "")))
    late = next((c for c in conditions if c.get("reason") == "ProgressDeadlineExceeded"), None)
    if late is None:
        return None
    waits = next((found for pod in pods if (found := unplaced(pod))), None)
    return waits or Failure.because(Reason.DEPLOYMENT_FAILED, f"{late.get('message', '')}{_behind(pods)}")


def _pod_failure(pod: Manifest) -> Failure | None:
    found = obstacle(pod)
    if found is not None and found.reason is not Reason.UNSCHEDULABLE:
        return found
    return next((crash for one in containers(pod) if _ends_again_and_again(one) and (crash := _crash(one))), None)


def _ends_again_and_again(container: Manifest) -> bool:
    """Whether it does, be it up again just now; one that has worked for long may end once."""
    if waiting(container).get("reason") == "CrashLoopBackOff":
        return True
    return container.get("restartCount", 0) > 1 and not container.get("ready") and _was_short(ended_before(container))


def _was_short(ended: Manifest) -> bool:
    started, finished = ended.get("startedAt"), ended.get("finishedAt")
    return started is not None and finished is not None and moment(finished) - moment(started) < LONG_ENOUGH


def _crash(container: Manifest) -> Failure | None:
    """How a container of ours has ended; what is not ours is told while it waits."""
    ended = terminated(container) or ended_before(container)
    if not ended or not is_ours(container):
        return None
    if ended.get("reason") == "OOMKilled":
        limit = memory_limit(container)
        message = f"the server used more memory than its limit{f' of {limit}' if limit else ''}"
        step = "Ask for more memory in spec.huggingFace.resources."
        return Failure(reason=Reason.OUT_OF_MEMORY, message=message, next_step=step)
    if found := never_ran(ended):
        return found
    if found := crashed_by_signal(ended):
        message = f"the server was ended by {found.message}. {found.next_step}"
        return Failure.because(Reason.DEPLOYMENT_FAILED, message)
    said = str(ended.get("message") or f"the server ended with exit code {ended.get('exitCode')}").strip()
    return Failure.because(Reason.DEPLOYMENT_FAILED, _last_line_first(said[-800:]))


def _last_line_first(said: str) -> str:
    """Where a server has left no sentence, this is the end of its log, of which lists show the first line."""
    before, _, last = said.rpartition("\n")
    return f"{last.strip()}\n{before}" if before else said


def _waiting_for(pods: Sequence[Manifest]) -> str:
    """What pods that do not answer (yet) do instead, where it is known."""
    waits = next((found for pod in pods if (found := unplaced(pod))), None)
    if waits is not None:
        return f"; a pod waits for a node: {waits.message}"
    crashes = (_crash(one) for pod in pods for one in containers(pod) if not one.get("ready"))
    crash = next((found for found in crashes if found), None)
    return f"; a server ended and is started again: {crash.message}" if crash else _behind(pods)


def _behind(pods: Sequence[Manifest]) -> str:
    """What of somebody else's runs in pods before the server can begin."""
    name = next((found["name"] for pod in pods if (found := held_up(pod))), None)
    said = "which a policy of the cluster has put before the server, has yet to end or to be up"
    return f"; container {name}, {said}" if name else ""
