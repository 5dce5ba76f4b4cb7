"""A job that is being stopped at its provider: it has stopped before anything else is done, and is known to be ours."""

from datetime import timedelta
from decimal import Decimal

import pytest

from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB
from tests.unit.finetune_operator.reconcilers.sagemaker import begin, provider

__all__ = ["begin", "provider", "s3_endpoint", "start"]

CENT = Decimal("0.01")


async def pass_while_it_stops(cluster):
    await cluster.settle()
    for _ in range(8):
        await cluster.pass_time(30)


async def test_a_suspended_attempt_has_a_bill(provider, begin):
    cluster = await begin()
    await cluster.pass_time(400)
    cluster.change_job(suspend=True)
    await pass_while_it_stops(cluster)
    status = cluster.status()
    assert (status["phase"], status["cost"]["earlier"]) == ("Suspended", f"{provider.cost():.2f}")
    assert Decimal(status["cost"]["earlier"]) > 0
    assert "unknownAttempts" not in status["cost"]


@pytest.mark.alike
@pytest.mark.parametrize("seconds", [0, 15, 60])
async def test_a_job_that_is_wanted_again_while_it_stops_goes_on_with_the_next_attempt(provider, begin, seconds):
    cluster = await begin()
    await cluster.pass_time(400)
    cluster.change_job(suspend=True)
    await cluster.settle()
    await cluster.pass_time(seconds)
    cluster.change_job(suspend=False)
    await pass_while_it_stops(cluster)
    assert cluster.status()["phase"] != "Failed", cluster.status()["failure"]
    billed = provider.cost().quantize(CENT)
    await cluster.check(attempt=2)
    await cluster.settle()
    await cluster.pass_time(3600)
    cost = cluster.status()["cost"]
    assert (cluster.status()["phase"], Decimal(cost["earlier"])) == ("Succeeded", billed)
    assert abs(Decimal(cost["actual"]) - provider.cost()) <= CENT


async def test_a_deadline_is_told_as_such_though_the_stop_takes_a_while_and_has_a_bill(provider, begin):
    cluster = await begin(activeDeadlineSeconds=600)
    await cluster.pass_time(400)
    provider.advance(220)
    cluster.now += timedelta(seconds=220)
    cluster.wake(JOB)
    await cluster.settle()
    assert provider.training.found[cluster.status()["provider"]["jobID"]].status == "Stopping"
    provider.advance(300)
    await cluster.poll()
    status = cluster.status()
    assert (status["phase"], status["failure"]["reason"]) == ("Failed", "DeadlineExceeded")
    assert abs(Decimal(status["cost"]["actual"]) - provider.cost()) <= CENT


async def test_what_somebody_else_cancels_later_is_no_stop_of_ours(provider, begin):
    """A suspension that was not to be had is over once the job is wanted again."""
    cluster = await begin()
    await cluster.pass_time(400)
    provider.fault("StopTrainingJob", status=500, code="InternalServerException", times=100)
    cluster.change_job(suspend=True)
    await cluster.settle()
    cluster.change_job(suspend=False)
    provider.faults.clear()
    await cluster.pass_time(60)
    assert cluster.status()["phase"] == "Running"
    cluster.now += timedelta(hours=1)
    provider.training.stop({"TrainingJobName": cluster.status()["provider"]["jobID"]})
    provider.advance(300)
    await cluster.poll()
    assert cluster.status()["failure"]["reason"] == "CancelledAtProvider"
