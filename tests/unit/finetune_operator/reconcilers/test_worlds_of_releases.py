"""What the operators of earlier releases have left is taken over as it is: an upgrade changes nothing that is at rest.

Where a release wants something else of what serves a model, every server is rolled out anew at its upgrade: that is
for its CHANGELOG to say, and for this test to know.
"""

import pytest

from finetune_api import RELEASE
from finetune_operator.runtime import kube
from finetune_operator.runtime.kube import FINE_TUNED_MODELS, JOBS, PODS, Resource
from tests.releases import RELEASES, WORLDS, objects
from tests.unit.finetune_operator.reconcilers.fake_cluster import MODEL, Cluster

RESOURCES = {
    (resource.api_version, resource.kind): resource
    for resource in vars(kube).values()
    if isinstance(resource, Resource)
}
READS = {"get", "list"}


async def taken_over(release: str, world: str) -> Cluster:
    """The present operator, begun anew where that release's was."""
    cluster = Cluster()
    for obj in objects(release, world):
        resource, metadata = RESOURCES[obj["apiVersion"], obj["kind"]], obj["metadata"]
        cluster.kube.objects[resource, metadata.get("namespace", ""), metadata["name"]] = obj
        cluster.kube.revision = max(cluster.kube.revision, int(metadata["resourceVersion"]))
    await cluster.observer.resync()
    await cluster.settle()
    return cluster


def test_a_release_has_left_its_worlds() -> None:
    assert RELEASE in RELEASES, "write them: python -m tests.releases"


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("world", WORLDS)
async def test_what_an_earlier_release_left_is_not_written_again(release: str, world: str) -> None:
    cluster = await taken_over(release, world)
    assert [request for request in cluster.kube.requests if request[0] not in READS] == []
    assert cluster.told == []


@pytest.mark.parametrize("release", RELEASES)
async def test_what_an_earlier_release_began_is_brought_to_its_end_once(release: str) -> None:
    cluster = await taken_over(release, "running")
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)
    assert [version["version"] for version in cluster.status(MODEL)["versions"]] == [1]
    assert cluster.kube.asked("create", "jobs") == 0


@pytest.mark.parametrize("release", RELEASES)
async def test_the_next_attempt_after_an_earlier_release_goes_on_in_the_same_folder(release: str) -> None:
    cluster = await taken_over(release, "retrying")
    before = cluster.status()["provider"]
    await cluster.wait(5)
    assert cluster.kube.asked("create", "jobs") == 1
    assert (JOBS, "team-a", f"sentiment-1-{before['attempt']}") in cluster.kube.objects
    after = cluster.status()["provider"]
    assert [after[name] for name in ("attempt", "artifactURI", "retries")] == [
        before[name] for name in ("attempt", "artifactURI", "retries")
    ]


@pytest.mark.parametrize("release", RELEASES)
async def test_history_of_an_earlier_release_goes_on(release: str) -> None:
    cluster = await taken_over(release, "served")
    cluster.add_job("sentiment-3")
    await cluster.settle()
    cluster.run_pod(job="sentiment-3")
    cluster.end_pod(0, cluster.result(job="sentiment-3"), job="sentiment-3")
    await cluster.settle()
    model = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["status"]
    assert [version["job"] for version in model["versions"]] == ["sentiment-1", "sentiment-2", "sentiment-3"]
    assert model["activeVersion"] == 3
    assert {name for kind, _, name in cluster.kube.objects if kind is PODS} >= {"sentiment-3-1-x"}
