"""Which version a deployment serves, with which engine, and what its server's state means."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.deployment import HostedDeployment, ModelDeploymentStatus, Sleep
from finetune_api.job_status import Failure
from finetune_api.model import FineTunedModelStatus, ModelVersion
from finetune_api.reasons import Reason
from finetune_operator.decide.deployment.decision import DeploymentView, decide, not_served
from finetune_operator.decide.deployment.server_state import Serving, read_serving
from finetune_operator.desired.serving import service
from tests.unit.finetune_operator.decide.deployment.given_deployments import spec, view
from tests.unit.finetune_operator.decide.given import (
    at,
    azure_connection,
    bedrock_connection,
    condition,
    connection,
    kstatus,
    sagemaker_connection,
    stamp,
)
from tests.unit.finetune_operator.decide.given_models import version

LABEL = "finetune.dev/version"


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
        "InProgress",
        2,
    ),
    "no connection, a provider answers": (
        view(connections={}, status=ModelDeploymentStatus(served_version=2, engine="AzureOpenAI")),
        "Degraded",
        "ConnectionNotFound",
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


def test_a_provider_that_refuses_a_deployment_leads_to_no_new_job() -> None:
    refused = Failure.because(Reason.PROVIDER_REFUSED, "not in this Region")
    for decision in (not_served(view(), refused), decide(view(Serving("Failing", 2, 0, refused)))):
        told = condition(decision.status, "Stalled").message
        assert ("spec.retryNonce" in told, "apply the job" in told) == (True, False)


def test_idle_with_nothing_to_do_is_no_refusal() -> None:
    assert decide(view(spec=spec(idle={"action": "None"}))).serve is not None


def test_a_number_stays_with_its_version() -> None:
    decision = decide(view(spec=spec(version=1)))
    assert decision.serve is not None
    assert decision.serve.version == 1
    assert decision.status.target_version == 1


def test_the_endpoint() -> None:
    endpoint = decide(view()).status.endpoint
    assert endpoint is not None
    assert (endpoint.url, endpoint.model) == ("http://sentiment.team-a.svc/v1", "sentiment")


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


# Reading the server.


def deployment(replicas: int = 1, version: str = "2", generation: int = 1, **status: Any) -> dict[str, Any]:
    body = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1} | status
    template = {"metadata": {"labels": {LABEL: version}}}
    return {
        "metadata": {"generation": generation},
        "spec": {"replicas": replicas, "template": template},
        "status": body,
    }


def pod(
    waiting: str, version: str = "2", last: dict[str, Any] | None = None, kind: str = "containerStatuses"
) -> dict[str, Any]:
    state = {"state": {"waiting": {"reason": waiting, "message": "m"}}}
    container = state | ({"lastState": {"terminated": last}} if last else {})
    return {"metadata": {"labels": {LABEL: version}}, "status": {kind: [container]}}


NO_CLAIM = '0/1 nodes are available: persistentvolumeclaim "models" not found.'


def unplaced(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"metadata": {"labels": {LABEL: "2"}}, "status": {"phase": "Pending", "conditions": [condition]}}


def test_a_server_without_a_node_says_what_it_waits_for() -> None:
    serving = read_serving(deployment(availableReplicas=0), [unplaced("0/2 nodes: Insufficient nvidia.com/gpu")])
    said = condition(decide(view(serving)).status, "Ready").message
    assert said == "version 2 is being deployed; a pod waits for a node: 0/2 nodes: Insufficient nvidia.com/gpu"


LATE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
REFUSED = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}


@pytest.mark.parametrize(
    ("found", "pods", "state", "reason"),
    [
        (None, [], "Absent", None),
        (deployment(), [], "Serving", None),
        (deployment(replicas=0, replicas_now=0), [], "Idle", None),
        (deployment(generation=2), [], "Rolling", None),
        (deployment(updatedReplicas=0), [], "Rolling", None),
        (deployment(availableReplicas=0), [], "Rolling", None),
        ({**deployment(), "status": {}}, [], "Rolling", None),
        (deployment(replicas=2, updatedReplicas=1), [pod("ContainerCreating")], "Rolling", None),
        (deployment(availableReplicas=0), [pod("ImagePullBackOff")], "Failing", Reason.IMAGE_PULL_FAILED),
        (deployment(availableReplicas=0), [pod("ImagePullBackOff", version="1")], "Rolling", None),
        (
            deployment(availableReplicas=0),
            [pod("CreateContainerConfigError")],
            "Failing",
            Reason.CONTAINER_CONFIG_INVALID,
        ),
        (
            deployment(availableReplicas=0),
            [pod("CrashLoopBackOff", last={"reason": "OOMKilled"})],
            "Failing",
            Reason.OUT_OF_MEMORY,
        ),
        (
            deployment(availableReplicas=0),
            [pod("CrashLoopBackOff", last={"reason": "Error", "message": "no model"})],
            "Failing",
            Reason.DEPLOYMENT_FAILED,
        ),
        (
            deployment(availableReplicas=0),
            [pod("CrashLoopBackOff", last={"message": "ModelUnusable: …"}, kind="initContainerStatuses")],
            "Failing",
            Reason.DEPLOYMENT_FAILED,
        ),
        (deployment(availableReplicas=0, conditions=[LATE]), [], "Failing", Reason.DEPLOYMENT_FAILED),
        (deployment(availableReplicas=0), [unplaced("0/2 nodes")], "Rolling", None),
        (deployment(availableReplicas=0), [unplaced(NO_CLAIM)], "Failing", Reason.CONTAINER_CONFIG_INVALID),
        (deployment(availableReplicas=0, conditions=[LATE]), [unplaced("0/2")], "Failing", Reason.UNSCHEDULABLE),
        (deployment(availableReplicas=0, conditions=[REFUSED]), [], "Failing", Reason.POD_REJECTED),
        (deployment(availableReplicas=0, generation=2, conditions=[LATE]), [], "Rolling", None),
    ],
)
def test_the_state_of_a_server(found: Any, pods: Any, state: str, reason: Reason | None) -> None:
    serving = read_serving(found, pods)
    assert serving.state == state
    assert (serving.failure.reason if serving.failure else None) is reason
    if found is not None:
        assert serving.version == 2


def server(restarts: int = 0, ready: bool = False, ran: int | None = None, **fields: Any) -> dict[str, Any]:
    """A pod whose server is up, and ended before after it had run for so many seconds."""
    last = {"exitCode": 137, "reason": "OOMKilled", "startedAt": stamp(-(ran or 0)), "finishedAt": stamp()}
    container = {"name": "server", "ready": ready, "restartCount": restarts, "state": {"running": {}}}
    container |= {"lastState": {"terminated": last}} if ran is not None else {}
    return {"metadata": {"labels": {LABEL: "2"}}, "status": {"containerStatuses": [container | fields]}}


@pytest.mark.parametrize(
    ("its_pod", "state"),
    [
        pytest.param(server(), "Rolling", id="starts"),
        pytest.param(server(1, ran=5), "Rolling", id="ended once"),
        pytest.param(server(2, ran=5), "Failing", id="ended twice, and tries again"),
        pytest.param(server(2, ran=599), "Failing", id="ended twice, the last time not at once"),
        pytest.param(server(7, ran=600), "Rolling", id="had worked for long"),
        pytest.param(server(2, ready=True, ran=5), "Rolling", id="answers at last"),
    ],
)
def test_a_server_that_ends_again_and_again_is_failing_between_its_ends_too(its_pod: Any, state: str) -> None:
    assert read_serving(deployment(availableReplicas=0), [its_pod]).state == state


def test_what_an_evicted_server_was_before_is_not_said_of_the_one_that_follows() -> None:
    over = server(3, ran=5, state={"terminated": {"exitCode": 137, "reason": "Error"}})
    over["status"] |= {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    serving = read_serving(deployment(availableReplicas=0), [over, pod("ContainerCreating")])
    assert (serving.state, serving.note) == ("Rolling", "")


def test_a_server_whose_image_is_for_another_processor_says_so() -> None:
    crash = {"exitCode": 255, "message": "exec /usr/local/bin/finetune-trainer: exec format error"}
    serving = read_serving(deployment(availableReplicas=0), [pod("CrashLoopBackOff", last=crash)])
    said = condition(decide(view(serving)).status, "Stalled").message
    assert "for another processor architecture" in said
    assert "kubernetes.io/arch" in said


def test_of_a_log_the_last_line_is_told_first() -> None:
    crash = {"exitCode": 1, "message": "INFO starting\nTraceback (most recent call last):\nRuntimeError: no GPU\n"}
    serving = read_serving(deployment(availableReplicas=0), [pod("CrashLoopBackOff", last=crash)])
    said = condition(decide(view(serving)).status, "Stalled").message
    assert said.startswith("version 2 cannot be served: RuntimeError: no GPU\nINFO starting")


def of_version(number: int, seconds: float = 0, *, ready: bool = True, going: bool = False) -> dict[str, Any]:
    its_pod = server(ready=ready)
    its_pod["metadata"] = {"labels": {LABEL: str(number)}, "creationTimestamp": stamp(seconds)}
    its_pod["metadata"] |= {"deletionTimestamp": stamp()} if going else {}
    return its_pod


@pytest.mark.parametrize(
    ("pods", "answers"),
    [
        pytest.param([], None, id="none"),
        pytest.param([of_version(2, ready=False)], None, id="not yet"),
        pytest.param([of_version(2)], 2, id="the only one"),
        pytest.param([of_version(2, 60), of_version(1)], 1, id="the one before, while the new one comes"),
        pytest.param([of_version(1, 60), of_version(2)], 2, id="the same on the way back"),
        pytest.param([of_version(2, 60), of_version(1, going=True)], 2, id="the old one is on its way out"),
    ],
)
def test_which_version_answers_is_seen_by_the_servers_that_are_ready(pods: Any, answers: int | None) -> None:
    assert read_serving(deployment(availableReplicas=0), pods).answers == answers
    assert read_serving(deployment(), pods).answers == answers


def test_a_server_that_is_back_with_fewer_pods_than_asked_for_says_so() -> None:
    said = condition(decide(view(Serving("Rolling", 2, 1, answers=2), 2)).status, "Ready").message
    assert said == "version 2 is being deployed; it answers already"


def test_a_server_that_ended_and_comes_back_says_why_it_ended() -> None:
    serving = read_serving(deployment(availableReplicas=0), [server(1, ran=900)])
    said = condition(decide(view(serving)).status, "Ready").message
    assert said.endswith("; a server ended and is started again: the server used more memory than its limit")


def test_a_server_whose_weights_were_cut_short_says_so() -> None:
    cut = pod("CrashLoopBackOff", last={"reason": "Error", "exitCode": 135, "message": "loading"})
    failure = read_serving(deployment(availableReplicas=0), [cut]).failure
    assert failure is not None
    assert failure.reason is Reason.DEPLOYMENT_FAILED
    assert failure.message.startswith("the server was ended by SIGBUS: a file that it was reading was truncated")
    assert (
        "have the volume looked at"
        in condition(decide(view(read_serving(deployment(availableReplicas=0), [cut]))).status, "Stalled").message
    )


def test_a_server_that_used_too_much_memory_is_told_how_much_there_was() -> None:
    short = {"name": "server", "resources": {"limits": {"memory": "600Mi"}}, "restartCount": 3}
    short |= {
        "lastState": {"terminated": {"reason": "OOMKilled"}},
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    }
    its_pod = {"metadata": {"labels": {LABEL: "2"}}, "status": {"containerStatuses": [short]}}
    failure = read_serving(deployment(availableReplicas=0), [its_pod]).failure
    assert failure is not None
    assert failure.message == "the server used more memory than its limit of 600Mi"


@pytest.mark.parametrize(
    ("pods", "step"),
    [
        ([pod("CrashLoopBackOff", last={"reason": "OOMKilled"})], "Ask for more memory in spec.huggingFace.resources."),
        ([pod("ErrImagePull")], "Ask an admin to check the connection's image and its pull secret."),
        ([pod("CreateContainerConfigError")], "Make the Secret, ConfigMap or volume that the message names"),
        ([unplaced(NO_CLAIM)], "Make the Secret, ConfigMap or volume that the message names"),
    ],
)
def test_a_deployment_that_fails_says_what_to_do(pods: Any, step: str) -> None:
    serving = read_serving(deployment(availableReplicas=0), pods)
    assert step in condition(decide(view(serving)).status, "Stalled").message


@pytest.mark.parametrize(("conditions", "kind"), [([], "Ready"), ([LATE], "Stalled")])
def test_a_container_of_somebody_else_that_runs_before_a_server_for_ever_is_named(conditions: Any, kind: str) -> None:
    waits = {"name": "server", "ready": False, "state": {"waiting": {"reason": "PodInitializing"}}}
    before = {"name": "warm-up", "ready": False, "state": {"running": {"startedAt": stamp(-60)}}}
    status = {"phase": "Pending", "containerStatuses": [waits], "initContainerStatuses": [before]}
    its_pod = {"metadata": {"labels": {LABEL: "2"}}, "status": status}
    serving = read_serving(deployment(availableReplicas=0, conditions=conditions), [its_pod])
    said = condition(decide(view(serving)).status, kind).message
    assert "container warm-up, which a policy of the cluster has put before the server" in said


def test_a_container_of_somebody_else_that_keeps_a_server_down_is_named() -> None:
    proxy = {"name": "proxy", "ready": False, "restartCount": 9, "lastState": {"terminated": {"exitCode": 1}}}
    proxy |= {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    its_pod = server(ready=True)
    its_pod["status"]["containerStatuses"].append(proxy)
    failure = read_serving(deployment(availableReplicas=0), [its_pod]).failure
    assert failure is not None
    assert (failure.reason, "container proxy" in failure.message) == (Reason.SIDECAR_FAILED, True)


@pytest.mark.parametrize(
    ("server_is_ready", "proxy", "said"),
    [
        (False, {"ready": True, "restartCount": 2}, ": it ended with exit code 3, and was started again"),
        (True, {"ready": False, "restartCount": 2}, ": it ended with exit code 3, and was started again"),
        (True, {"ready": False}, ": it is not ready, and so the pod is not"),
        (False, {"ready": False}, ""),
        (False, {"ready": True}, ""),
    ],
)
def test_a_container_of_somebody_else_is_named_while_it_is_up_as_well(
    server_is_ready: bool, proxy: dict[str, Any], said: str
) -> None:
    """One that ends again and again is up for moments: between them nothing was said of it."""
    last = {"lastState": {"terminated": {"exitCode": 3, "reason": "Error"}}} if "restartCount" in proxy else {}
    its_pod = server(ready=server_is_ready)
    its_pod["status"]["containerStatuses"].append({"name": "proxy", "state": {"running": {}}, **proxy, **last})
    serving = read_serving(deployment(availableReplicas=0), [its_pod])
    named = f"; container proxy, which a policy of the cluster has put into the pod{said}" if said else ""
    assert (serving.state, serving.note) == ("Rolling", named)


def test_a_provider_s_deployment_that_was_scaled_by_kubectl_says_what_has_written_the_field() -> None:
    scaled = view(connections={"local": azure_connection()}, spec=spec(huggingFace={"replicas": 3}))
    message = condition(decide(scaled).status, "Stalled").message
    assert message.startswith("spec.huggingFace: version 2 is served by azureOpenAI")
    assert "leave it out. kubectl scale and autoscalers write it: they are for servers on the cluster" in message
