"""What helps against an image that cannot be pulled, by the words of container runtimes and registries."""

import pytest

from finetune_api.job_status import Failure
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_operator.decide.cloud_job.small_pods import worded_for_small_pod
from finetune_operator.decide.pods.containers import obstacle
from tests.unit.finetune_operator.decide.given import pod, waiting

_OF = 'failed to pull and unpack image "ghcr.io/example/trainer:1": '
_RESOLVE = 'failed to resolve reference "ghcr.io/example/trainer:1": '
FULL = f"{_OF}failed to extract layer sha256:0: write /var/lib/containerd/x: no space left on device"


@pytest.mark.parametrize(
    ("said", "helps"),
    [
        (FULL, "DiskPressure"),
        (f"{_OF}failed to copy: httpReadSeeker: unexpected status code 429 Too Many Requests", "takes no more pulls"),
        (f"{_OF}{_RESOLVE}toomanyrequests: You have reached your unauthenticated pull rate limit", "no more pulls"),
        (f"{_OF}no match for platform in manifest: not found", "kubernetes.io/arch"),
        (f"{_OF}{_RESOLVE}failed to authorize: failed to fetch token: unexpected status: 401 Unauthorized", "secret"),
        (f"{_OF}{_RESOLVE}pull access denied, repository does not exist or may require authorization", "secret"),
        (f'{_OF}{_RESOLVE}Head "https://ghcr.io/v2": dial tcp: lookup ghcr.io: no such host', "reach the registry"),
        (f'{_OF}{_RESOLVE}Head "https://r/v2": tls: failed to verify certificate: x509: unknown authority', "trust"),
        (f"{_OF}{_RESOLVE}unexpected status from HEAD request: 503 Service Unavailable", "the registry is down"),
        (f"{_OF}{_RESOLVE}ghcr.io/example/trainer:1: not found", "name and tag"),
        ('couldn\'t parse image name "trainer:": invalid reference format', "name and tag"),
        ('Container image "trainer:1" is not present with pull policy of Never', "imagePullPolicy"),
        ("rpc error: code = Unknown desc = 42", NEXT_STEP[Reason.IMAGE_PULL_FAILED]),
    ],
)
def test_the_words_of_a_failed_pull_say_what_helps(said: str, helps: str) -> None:
    found = obstacle(pod("Pending", **waiting("ErrImagePull", said)))
    assert found is not None
    assert found.reason is Reason.IMAGE_PULL_FAILED
    assert helps in str(found.next_step)


def test_so_it_is_of_a_pod_that_checks_data() -> None:
    found = obstacle(pod("Pending", **waiting("ErrImagePull", FULL)))
    assert found is not None
    assert worded_for_small_pod(found).next_step == found.next_step
    unknown = Failure.because(Reason.IMAGE_PULL_FAILED, "42")
    assert "checkPod.image" in str(worded_for_small_pod(unknown).next_step)
