"""Two operators of one namespace, as two releases with Leases of their own would be: they do not answer each other.

Each polls providers at its own times: what one has seen and the other has not is news, and no reason to put it back.
"""

from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.reasons import Reason
from finetune_operator.providers.calls.errors import Denied, TryLater
from finetune_operator.providers.remote.serving import GOOD_FOR
from finetune_operator.runtime.errors import Conflict, Contested
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, MODEL_DEPLOYMENTS
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.at_providers import At, at, at_work
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT
from tests.unit.finetune_operator.reconcilers.fake_kube import copied

__all__ = ["at", "at_work", "s3_endpoint", "start"]


class Pair:
    """Two processes over one API server and one provider; watches tell both of them."""

    def __init__(self, first: CloudCluster, second: CloudCluster) -> None:
        self.first, self.both = first, (first, second)
        second.kube = first.kube
        second.restart()
        for one in self.both:
            one.hear = self.hear  # type: ignore[method-assign]

    def hear(self) -> None:
        for resource, event_type, obj in self.first.kube.take_events():
            for one in self.both:
                one.watched(resource, event_type, copied(obj))

    async def settle(self) -> int:
        """Until both are at rest; how often the job's status was written."""
        before = self.first.kube.asked("patch_status", FINE_TUNE_JOBS.plural)
        self.hear()
        while any(one.queue for one in self.both):
            for one in self.both:
                with suppress(Contested, Conflict):
                    await one.settle()
        return self.first.kube.asked("patch_status", FINE_TUNE_JOBS.plural) - before

    async def poll(self, which: CloudCluster) -> int:
        await which.accounts.poll()
        return await self.settle()


@pytest.fixture
async def pair(at: At, at_work: CloudCluster) -> Any:
    """With a job at work at the provider."""
    second = at.cluster(at_work.provider, at_work.url)
    made = Pair(at_work, second)
    await second.observer.resync()
    await made.settle()
    for one in made.both:
        await made.poll(one)
    yield made
    await second.aclose()


async def test_what_one_has_seen_of_a_provider_is_not_put_back_by_the_other(pair: Pair) -> None:
    first, second = pair.both
    written, phases = [], set()
    for _ in range(20):
        first.provider.advance(60)
        for one in pair.both:
            one.now += timedelta(seconds=60)
        for one in (second, first):  # as their polls come
            written.append(await pair.poll(one))
            phases.add(first.status()["phase"])
    assert len(phases) > 1, "there was news"
    assert max(written) <= 2


def overwrite(cluster: CloudCluster, number: int) -> None:
    """Somebody, or something, has its own opinion."""
    status = copied(cluster.status())
    said = next(condition for condition in status["conditions"] if condition["type"] == "Reconciling")
    said["message"] = f"by hand {number}"
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status=status)


def is_by_hand(cluster: CloudCluster) -> bool:
    return cluster.condition("Reconciling")["message"].startswith("by hand")


async def test_what_anybody_else_says_of_a_job_at_work_is_put_right_once_its_provider_was_asked(
    at_work: CloudCluster,
) -> None:
    await go_on(at_work, 60)
    overwrite(at_work, 1)
    await at_work.settle()
    assert is_by_hand(at_work), "it may be newer than what was seen"
    await at_work.poll()
    assert not is_by_hand(at_work)


async def test_so_it_is_where_that_never_ends(at_work: CloudCluster) -> None:
    await go_on(at_work, 60)
    right = 0
    for number in range(40):
        at_work.now += timedelta(seconds=20)
        overwrite(at_work, number)
        with suppress(Contested):
            await at_work.settle()
            await at_work.poll()
        right += not is_by_hand(at_work)
    assert right >= 10


@pytest.mark.parametrize("at", ["openai"], indirect=True)
async def test_that_a_model_is_gone_is_not_put_back_by_one_who_saw_it_a_while_ago(pair: Pair) -> None:
    first, second = pair.both
    for _ in range(60):
        first.provider.advance(60)
        for one in pair.both:
            one.now += timedelta(seconds=60)
        await pair.poll(first)
        await pair.poll(second)
    assert first.status(DEPLOYMENT)["phase"] == "Ready"
    for one in pair.both:
        one.now += GOOD_FOR
        one.wake(DEPLOYMENT)
    await pair.settle()
    first.kube.change(MODEL_DEPLOYMENTS, "sentiment", status=copied(first.status(DEPLOYMENT)) | {"replicas": None})
    await pair.settle()
    asked = len(first.provider.calls)
    for one in pair.both:
        one.wake(DEPLOYMENT)
    await pair.settle()
    assert len(first.provider.calls) == asked, "what both agree on is asked of nobody"
    first.provider.models.tuned.clear()
    second.now += GOOD_FOR
    second.wake(DEPLOYMENT)
    before = first.kube.asked("patch_status", MODEL_DEPLOYMENTS.plural)
    await pair.settle()
    assert first.kube.asked("patch_status", MODEL_DEPLOYMENTS.plural) - before <= 2
    assert first.status(DEPLOYMENT)["phase"] == "Failed"


TROUBLES = {
    "a key": Denied(Reason.CREDENTIALS_INVALID, "no Secret openai in namespace other"),
    "a limit": TryLater(Reason.RATE_LIMITED, "too many requests", 30.0),
}


@pytest.mark.parametrize(
    ("at", "trouble"), [("openai", "a key"), ("openai", "a limit"), ("azure", "a limit")], indirect=["at"]
)
async def test_one_that_cannot_ask_the_provider_leaves_what_is_told_to_the_other(
    pair: Pair, at: At, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair.both

    async def refused(_: str) -> Any:
        raise TROUBLES[trouble]

    monkeypatch.setattr(second.accounts._sources.secrets, "of", refused)
    told = Counter[str]()
    for _ in range(30):
        first.provider.advance(60)
        for one in pair.both:
            one.now += timedelta(seconds=60)
        for one in pair.both:
            for key in one.delays:
                one.wake(key)
            await pair.poll(one)
        told["of the job"] += "failure" in first.status()
        served = first.kube.objects.get((MODEL_DEPLOYMENTS, "team-a", "sentiment"), {}).get("status", {})
        told["of the deployment"] += served.get("phase") not in {None, "Pending", "Deploying", "Ready"}
    assert first.status()["phase"] == "Succeeded"
    assert first.status(DEPLOYMENT)["phase"] == "Ready"
    assert max(told.values()) <= 2, told
    assert len(at.jobs(first.provider)) == 1
    first.provider.models.tuned.clear()
    before = first.kube.asked("patch_status", MODEL_DEPLOYMENTS.plural)
    for passes in (GOOD_FOR, timedelta(minutes=1), timedelta(minutes=1)):
        for one in pair.both:
            one.now += passes
        for one in pair.both:
            one.wake(DEPLOYMENT)
            await pair.settle()
    assert first.kube.asked("patch_status", MODEL_DEPLOYMENTS.plural) - before <= 3, "nor that it is gone"
