"""The state of a server, read from its Deployment and its pods: what answers, and what keeps it from answering."""

from typing import Any

import pytest

from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.deployment.decision import decide
from finetune_operator.decide.deployment.server_state import Serving, read_serving
from tests.unit.finetune_operator.decide.deployment.given_deployments import view
from tests.unit.finetune_operator.decide.given import at, condition, stamp

LABEL = "finetune.dev/version"


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


QUOTA = {"message": "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"}


@pytest.mark.parametrize(("age", "state"), [(59, "Rolling"), (60, "Failing")])
def test_a_secret_that_comes_a_little_later_than_its_server_is_no_failure(age: float, state: str) -> None:
    waits = pod("CreateContainerConfigError")
    waits["metadata"]["creationTimestamp"] = stamp(-age)
    serving = read_serving(deployment(availableReplicas=0), [waits], at(0))
    assert (serving.state, "; a pod waits: m" in serving.note) == (state, state == "Rolling")


def test_a_quota_that_others_use_is_waited_for_until_the_deadline() -> None:
    first = deployment(updatedReplicas=0, availableReplicas=0, conditions=[REFUSED | QUOTA])
    waits = read_serving(first, [])
    assert (waits.state, waits.note) == ("Rolling", f"; {QUOTA['message']}")
    first["status"]["conditions"].append(LATE)
    assert read_serving(first, []).state == "Failing"


def test_a_quota_that_the_server_itself_may_fill_is_not_waited_for() -> None:
    failure = read_serving(deployment(updatedReplicas=0, conditions=[REFUSED | QUOTA]), []).failure
    assert "needs room beside those" in ((failure and failure.next_step) or "")


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
        pytest.param([of_version(2, 60), of_version(1, going=True)], 2, id="the old one is being deleted"),
    ],
)
def test_which_version_answers_is_seen_by_the_servers_that_are_ready(pods: Any, answers: int | None) -> None:
    assert read_serving(deployment(availableReplicas=0), pods).answers == answers
    assert read_serving(deployment(), pods).answers == answers


def test_a_server_that_is_back_with_fewer_pods_than_asked_for_says_so() -> None:
    said = condition(decide(view(Serving("Rolling", 2, 1, answers=2), 2)).status, "Ready").message
    assert said == "version 2 is being deployed; it answers already"


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("NewReplicaSetAvailable", "version 2 was deployed; 0 of 1 servers are ready"),
        ("ReplicaSetUpdated", "version 2 is being deployed"),
    ],
)
def test_a_server_that_was_up_and_does_not_answer_is_not_said_to_be_deployed_just_now(reason: str, said: str) -> None:
    silent = deployment(availableReplicas=0, conditions=[{"type": "Progressing", "status": "True", "reason": reason}])
    assert condition(decide(view(read_serving(silent, [server()]))).status, "Ready").message == said


def silent_since(seconds: float, **status: Any) -> dict[str, Any]:
    conditions = [
        {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
        {"type": "Available", "status": "False", "lastTransitionTime": stamp(-seconds)},
    ]
    return deployment(**{"availableReplicas": 0, "conditions": conditions} | status)


def test_a_server_that_was_up_and_fails_its_health_check_for_long_is_a_failure() -> None:
    assert read_serving(silent_since(540), [server()], at(0)).state == "Rolling"
    serving = read_serving(silent_since(660), [server()], at(0))
    found = decide(view(serving, 2)).status
    assert (serving.state, found.phase, condition(found, "Stalled").reason) == ("Failing", "Failed", "DeploymentFailed")
    assert f"has passed its health check since {stamp(-660)}" in condition(found, "Stalled").message


def test_one_of_several_that_answers_is_no_failure() -> None:
    assert read_serving(silent_since(660, availableReplicas=1), [server()], at(0)).failure is None


def test_a_server_that_was_up_and_finds_no_node_for_long_says_that() -> None:
    serving = read_serving(silent_since(660), [unplaced("0/2 nodes: Insufficient nvidia.com/gpu")], at(0))
    assert serving.failure is not None
    assert serving.failure.reason is Reason.UNSCHEDULABLE


@pytest.mark.parametrize(("seconds", "state"), [(540, "Rolling"), (660, "Failing")])
def test_a_server_that_was_up_and_finds_its_quota_used_by_others_waits_a_while(seconds: float, state: str) -> None:
    found = silent_since(seconds)
    found["status"] |= {"replicas": 0, "updatedReplicas": 0}
    found["status"]["conditions"].append(REFUSED | QUOTA)
    assert read_serving(found, [], at(0)).state == state


def test_a_version_that_answers_is_not_said_to_be_unservable_where_its_new_server_fails() -> None:
    failing = Serving("Failing", 2, 1, Failure.because(Reason.OUT_OF_MEMORY, "too large"), answers=2)
    found = decide(view(failing, 2)).status
    assert (found.phase, found.served_version) == ("Degraded", 2)
    said = condition(found, "Stalled").message
    assert said.startswith("version 2 answers, and is not deployed as spec says now: too large")


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
        ([pod("CreateContainerConfigError")], "Create the Secret, ConfigMap or volume that the message names"),
        ([unplaced(NO_CLAIM)], "Create the Secret, ConfigMap or volume that the message names"),
    ],
)
def test_a_deployment_that_fails_says_what_to_do(pods: Any, step: str) -> None:
    serving = read_serving(deployment(availableReplicas=0), pods)
    assert step in condition(decide(view(serving)).status, "Stalled").message


def test_a_server_that_is_late_and_still_loads_is_told_as_one_that_may_come_up() -> None:
    for pods, said in (([], "timed out"), ([server()], "timed out It still loads, and serves once it is up.")):
        found = read_serving(deployment(availableReplicas=0, conditions=[LATE]), pods).failure
        assert found is not None
        assert found.message == said


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
