"""Why the API server takes no pod: told without the name of the try, with what helps. In Kubernetes 1.34's words."""

import pytest

from finetune_api.reasons import NEXT_STEP, Reason
from finetune_operator.decide.pods.refused import counts_ended_objects, refusal_of_pod, refusal_of_write

FORBIDDEN = 'Error creating: pods "a-1-7d577" is forbidden: '
INVALID = 'Error creating: Pod "a-1-7d577" is invalid: spec.containers[0].resources.requests: Invalid value: "300Mi": '


@pytest.mark.parametrize(
    ("said", "step"),
    [
        (FORBIDDEN + "exceeded quota: q, requested: requests.memory=300Mi, used: requests.memory=0, limited: "
         "requests.memory=100Mi", "waiting does not help"),
        (FORBIDDEN + "exceeded quota: q, requested: pods=1,requests.nvidia.com/gpu=8, used: pods=0,"
         "requests.nvidia.com/gpu=0, limited: pods=9,requests.nvidia.com/gpu=4", "waiting does not help"),
        (FORBIDDEN + "exceeded quota: q, requested: limits.cpu=2, used: limits.cpu=1500m, limited: limits.cpu=2",
         "other pods of the namespace end"),
        ('jobs.batch "a-1" is forbidden: exceeded quota: q, requested: count/jobs.batch=1, used: count/jobs.batch=1',
         "Delete Jobs of the namespace that have ended"),
        ('jobsets.jobset.x-k8s.io "a-1" is forbidden: exceeded quota: q, requested: '
         "count/jobsets.jobset.x-k8s.io=1, used: count/jobsets.jobset.x-k8s.io=1", "Delete Jobs of the namespace that"),
        ('services "a" is forbidden: exceeded quota: q, requested: services=1, used: services=3, limited: services=3',
         "no longer needed (a Service or Deployment of this operator by its ModelDeployment)"),
        ('deployments.apps "a" is forbidden: exceeded quota: q, requested: count/deployments.apps=1, used: '
         "count/deployments.apps=3, limited: count/deployments.apps=3", "by its ModelDeployment"),
        (FORBIDDEN + "exceeded quota: q, requested: pods=1,requests.nvidia.com/gpu=1, used: pods=3,"
         "requests.nvidia.com/gpu=3, limited: pods=3,requests.nvidia.com/gpu=3", "other pods of the namespace end"),
        (FORBIDDEN + "failed quota: q: must specify limits.memory for: trainer", "podTemplate.resources"),
        (FORBIDDEN + "minimum memory usage per Container is 1Gi, but request is 300Mi", "LimitRange allows"),
        (FORBIDDEN + "maximum cpu usage per Pod is 2, but limit is 4", "LimitRange allows"),
        (FORBIDDEN + "cpu max limit to request ratio per Container is 2, but provided ratio is 10.000000",
         "LimitRange allows"),
        (INVALID + "must be less than or equal to memory limit of 200Mi", "LimitRange allows"),
        (FORBIDDEN + 'violates PodSecurity "restricted:latest": restricted volume types (volume "v2" uses '
         'restricted volume type "hostPath")', "modelCache.volume"),
        (FORBIDDEN + 'unable to validate against any security context constraint: [provider "restricted-v2": '
         "Forbidden: not usable by user or serviceaccount]", "use the SCC nonroot-v2"),
        (FORBIDDEN + "no PriorityClass with name batch was found", "podTemplate of the connection"),
        (FORBIDDEN + 'error looking up service account a/tr: serviceaccount "tr" not found', "podTemplate of the conn"),
        ('Internal error occurred: failed calling webhook "mjobset.kb.io": failed to call webhook: Post '
         '"https://10.0.0.1/mutate": dial tcp 10.0.0.1:443: connect: connection refused', "does not answer"),
        (FORBIDDEN + 'pod rejected: RuntimeClass "gvisor" not found', "podTemplate of the connection"),
    ],
)  # fmt: skip
def test_what_kubernetes_own_admission_refuses_is_told_with_a_step_of_its_own(said: str, step: str) -> None:
    failure = refusal_of_pod(said)
    assert failure.reason is Reason.POD_REJECTED
    assert step in (failure.next_step or "")
    assert "a-1-7d577" not in failure.message, "the next try has another name: no news"


def test_what_a_policy_says_has_the_step_of_the_reason() -> None:
    said = FORBIDDEN + 'ValidatingAdmissionPolicy "images" denied the request: image is not signed'
    assert refusal_of_pod(said).next_step == NEXT_STEP[Reason.POD_REJECTED]


@pytest.mark.parametrize("kind", ["finetunedmodels", "modeldeployments"])
def test_a_quota_of_our_own_kinds_is_told_with_what_makes_room(kind: str) -> None:
    counted = f"count/{kind}.finetune.dev"
    said = f'{kind}.finetune.dev "a" is forbidden: exceeded quota: q, requested: {counted}=1, used: {counted}=2'
    failure = refusal_of_write(f"{said}, limited: {counted}=2")
    assert failure.reason is Reason.WRITE_REFUSED
    assert "kubectl describe resourcequota" in (failure.next_step or "")
    assert "pods" not in (failure.next_step or "")


@pytest.mark.parametrize(
    ("asked", "ended"),
    [("count/jobs.batch", True), ("count/pods", True), ("count/jobsets.jobset.x-k8s.io", True), ("pods", False),
     ("requests.memory", False), ("count/services", False)],
)  # fmt: skip
def test_only_a_quota_of_objects_counts_attempts_that_have_ended(asked: str, ended: bool) -> None:
    said = (
        f'jobs.batch "a-2" is forbidden: exceeded quota: q, requested: {asked}=1, used: {asked}=1, limited: {asked}=1'
    )
    assert counts_ended_objects(refusal_of_pod(said)) is ended


def test_a_webhook_that_does_not_answer_is_told_from_one_that_refuses_whatever_is_written() -> None:
    said = 'failed calling webhook "policy.example.com": failed to call webhook: Post "https://policy/": i/o timeout'
    for failure in (refusal_of_pod(said), refusal_of_write(said)):
        assert failure.next_step is not None
        assert failure.next_step.startswith("Ask an admin: the webhook that the message names does not answer.")
    refused = refusal_of_write('admission webhook "policy.example.com" denied the request: no')
    assert refused.next_step is not None
    assert "does not answer" not in refused.next_step


@pytest.mark.parametrize(
    "tried",
    [
        "context deadline exceeded",
        "context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
        "net/http: request canceled (Client.Timeout exceeded while awaiting headers)",
        "net/http: request canceled (Client.Timeout exceeded while reading body)",
    ],
)
def test_a_silent_webhook_is_told_in_the_same_words_at_each_try(tried):
    said = 'failed calling webhook "a.example.com": failed to call webhook: Post "https://10.0.0.1/v?timeout=30s": '
    assert refusal_of_pod(said + tried).message == f"{said}context deadline exceeded"
    assert refusal_of_write(said + tried).message == f"{said}context deadline exceeded"


def test_a_time_limit_that_is_no_webhooks_is_told_as_it_is():
    said = "etcdserver: net/http: request canceled"
    assert refusal_of_write(said).message == said
