"""What attempts cost at a provider that came to nothing: a part of what the job costs, as far as it is known."""

from decimal import Decimal
from typing import Any

from finetune_operator.providers.remote.training import CloudTraining
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.sagemaker import begin, provider

__all__ = ["begin", "provider", "s3_endpoint", "start"]

CENT = Decimal("0.01")
LACK = "CapacityError: Unable to provision requested ML compute capacity."


async def again(cluster, attempt):
    await cluster.pass_time(60)
    await cluster.check(attempt=attempt)
    await cluster.settle()


async def test_an_attempt_that_failed_and_was_billed_is_part_of_the_bill(provider, begin):
    cluster = await begin()
    provider.set(fail_next_job=LACK)
    await cluster.pass_time(900)
    first = cluster.status()["cost"]
    assert (first["earlier"], first.get("actual")) == (f"{provider.cost():.2f}", None)
    assert Decimal(first["earlier"]) > 0
    await again(cluster, 2)
    assert cluster.status()["cost"]["earlier"] == first["earlier"], "while the next one runs"
    await cluster.pass_time(3600)
    status = cluster.status()
    assert status["phase"] == "Succeeded"
    assert abs(Decimal(status["cost"]["actual"]) - provider.cost()) <= CENT
    assert (status["cost"]["earlier"], status["cost"].get("unknownAttempts")) == (first["earlier"], None)


async def test_one_that_was_suspended_is_part_of_the_bill(provider, begin):
    cluster = await begin()
    await cluster.pass_time(400)
    cluster.change_job(suspend=True)
    await cluster.settle()
    for _ in range(6):
        await cluster.pass_time(30)
    status, stopped = cluster.status(), f"{provider.cost():.2f}"
    assert (status["phase"], status["cost"]["earlier"]) == ("Suspended", stopped)
    assert "unknownAttempts" not in status["cost"]
    cluster.change_job(suspend=False)
    await again(cluster, 2)
    await cluster.pass_time(3600)
    cost = cluster.status()["cost"]
    assert (cost["earlier"], "unknownAttempts" in cost) == (stopped, False)
    assert abs(Decimal(cost["actual"]) - provider.cost()) <= CENT


async def test_what_nobody_has_told_is_counted_and_not_taken_for_nothing(provider, begin, monkeypatch):
    """A provider may have no bill of a job that was stopped: OpenAI has none."""

    async def untold(self: CloudTraining, *_: Any) -> None:
        """As of a job that does not show any more when it has stopped."""

    monkeypatch.setattr(CloudTraining, "_ended", untold)
    cluster = await begin()
    await cluster.pass_time(400)
    cluster.change_job(suspend=True)
    await cluster.settle()
    for _ in range(6):
        await cluster.pass_time(30)
    status = cluster.status()
    assert (status["phase"], status["cost"]["unknownAttempts"]) == ("Suspended", 1)
    assert "earlier" not in status["cost"]
    monkeypatch.undo()
    stopped = provider.cost()
    cluster.change_job(suspend=False)
    await again(cluster, 2)
    await cluster.pass_time(3600)
    cost = cluster.status()["cost"]
    assert (cost["unknownAttempts"], Decimal(cost["actual"])) == (1, (provider.cost() - stopped).quantize(CENT))


async def test_one_that_is_tried_again_by_hand_goes_on_with_what_was_billed(provider, begin):
    provider.set(fail_next_job="AlgorithmError: ExitCode 1")
    cluster = await begin()
    await cluster.pass_time(3600)
    first = cluster.status()["cost"]["actual"]
    assert Decimal(first) > 0
    cluster.change_job(retryNonce="again")
    await again(cluster, 2)
    assert (cluster.status()["cost"]["earlier"], cluster.status()["cost"].get("actual")) == (first, None)
    await cluster.pass_time(3600)
    cost = cluster.status()["cost"]
    assert abs(Decimal(cost["actual"]) - provider.cost()) <= CENT
    assert cost["earlier"] == first
