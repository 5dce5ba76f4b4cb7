"""Why the API server takes no pod: told without the name of the try, with what helps. In Kubernetes 1.34's words."""

import pytest

from finetune_api.reasons import NEXT_STEP, Reason
from finetune_operator.decide.pods.refused import refusal_of_pod

FORBIDDEN = 'Error creating: pods "a-1-7d577" is forbidden: '
INVALID = 'Error creating: Pod "a-1-7d577" is invalid: spec.containers[0].resources.requests: Invalid value: "300Mi": '


@pytest.mark.parametrize(
    ("said", "step"),
    [
        (FORBIDDEN + "exceeded quota: q, requested: requests.memory=300Mi, used: requests.memory=0, limited: "
         "requests.memory=100Mi", "larger ResourceQuota"),
        ('jobs.batch "a-1" is forbidden: exceeded quota: q, requested: count/jobs.batch=1, used: count/jobs.batch=1',
         "Delete Jobs of the namespace that have ended"),
        (FORBIDDEN + "failed quota: q: must specify limits.memory for: trainer", "podTemplate.resources"),
        (FORBIDDEN + "minimum memory usage per Container is 1Gi, but request is 300Mi", "LimitRange allows"),
        (FORBIDDEN + "maximum cpu usage per Pod is 2, but limit is 4", "LimitRange allows"),
        (FORBIDDEN + "cpu max limit to request ratio per Container is 2, but provided ratio is 10.000000",
         "LimitRange allows"),
        (INVALID + "must be less than or equal to memory limit of 200Mi", "LimitRange allows"),
        (FORBIDDEN + 'violates PodSecurity "restricted:latest": restricted volume types (volume "v2" uses '
         'restricted volume type "hostPath")', "modelCache.volume"),
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
