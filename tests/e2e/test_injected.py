"""Containers that a policy of the cluster puts beside the trainer, or before it, and that never end."""

from collections.abc import Callable

import pytest

from tests.cluster import images
from tests.e2e.injector import LABEL, container, injecting
from tests.e2e.site import Site, condition, eventually

FOR_EVER = "from signal import *; pthread_sigmask(SIG_BLOCK, {SIGTERM}); sigwait({SIGTERM})"
"""Until it is told to end, as sidecars do: a container's first process gets no signal that it has not asked for."""


@pytest.fixture(scope="module")
def make_labelled(make_site: Callable[..., Site]) -> Callable[[str], Site]:
    """Makes namespaces of that name whose pods are changed by the policy of that name."""

    def make(name: str) -> Site:
        labels = {"pod-security.kubernetes.io/enforce": "restricted", "finetune": "yes", LABEL: name}
        site = make_site(name, labels)
        site.model("colours", deployment={"mode": "Manual"})
        return site

    return make


def test_a_sidecar_that_never_ends_holds_up_nothing_and_goes_with_the_job(
    make_labelled: Callable[[str], Site], built: images.BuiltImages
) -> None:
    site = make_labelled("sidecar")
    agent = container("agent", built.check, FOR_EVER)
    # First in the pod: what speaks of "the container" must not take it for the trainer.
    with injecting(site.cluster, "sidecar", {"op": "add", "path": "/spec/containers/0", "value": agent}):
        site.job("tuned")
        status = site.succeeded("tuned")
    assert (status["modelVersion"], status["provider"]["attempt"]) == (1, 1)
    eventually(lambda: not site.pods("finetune.dev/job=tuned"), "the pod to go", 60)


def test_what_never_ends_before_the_trainer_is_named_and_the_job_goes_on_without_it(
    make_labelled: Callable[[str], Site], built: images.BuiltImages
) -> None:
    site = make_labelled("held-up")
    setup = container("setup", built.check, FOR_EVER)
    with injecting(site.cluster, "held-up", {"op": "add", "path": "/spec/initContainers", "value": [setup]}):
        site.job("tuned")
        said = "container setup, which a policy of the cluster has put before the trainer"
        status = site.wait("job", "tuned", lambda s: said in condition(s, "Ready").get("message", ""), "to say so", 90)
        assert status["phase"] == "Queued"
    (pod,) = site.pods("finetune.dev/job=tuned")
    site.cluster.kubectl("-n", site.name, "delete", "pod", pod["metadata"]["name"])
    # Its trainer has read the data, which is enough: what comes of one that has is seen above.
    status = site.wait("job", "tuned", lambda s: s.get("dataset"), "to go on")
    assert (status["provider"]["attempt"], status["provider"]["interruptions"]) == (2, 1)
    site.delete("job", "tuned")
