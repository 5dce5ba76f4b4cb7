"""Lives with special events at a provider: idle models, failures, deletions, and resources of other users."""

from finetune_api.manifest import Manifest
from finetune_api.names import WAKE_ANNOTATION
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, MODEL_DEPLOYMENTS
from tests.chaos.cloud_site import HOUR, MINUTE, CloudSite
from tests.lives import strangers

DAY = 24 * HOUR
IDLE = {"afterSeconds": 2 * HOUR, "action": "Delete"}
MODEL = "sentiment"
BY_THE_HOUR = {"bedrock": {"type": "ProvisionedThroughput", "modelUnits": 1, "commitment": "NoCommitment"}}
"""Bedrock's hourly billed deployment type; at other providers all are."""


def _by_the_hour(site: CloudSite) -> Manifest:
    return BY_THE_HOUR if site.cloud.name == "bedrock" else {}


async def sleeps(site: CloudSite) -> None:
    """A model is idle for three hours, so its deployment is deleted; it is woken, and answers for another hour."""
    await site.serves(idle=IDLE, **_by_the_hour(site))
    endpoint = (await site.status(MODEL_DEPLOYMENTS, MODEL))["endpoint"]
    strangers.count_a_question(site.cloud, endpoint["model"], site.clocks.own())
    await site.passes(3 * HOUR)
    await site.phase("Idle", MODEL, MODEL_DEPLOYMENTS)
    await site.says(lambda status: not status.get("hosted"), "gone there", MODEL_DEPLOYMENTS, MODEL)
    await site.annotate(MODEL, WAKE_ANNOTATION, "please")
    await site.answers()
    await site.passes(HOUR)


async def fails(site: CloudSite) -> None:
    """The provider's job fails; the user sets retryNonce, and the second one succeeds."""
    await site.connects()
    await site.model(deployment={"template": site.cloud.template})
    strangers.fail_next_job(site.cloud)
    await site.asks_for()
    await site.is_made(await site.check())
    site.advance(HOUR)
    await site.phase("Failed")
    await site.edit(FINE_TUNE_JOBS, "sentiment-1", {"retryNonce": "again"})
    await site.is_tuned(attempt=2)
    await site.answers()


async def is_robbed_of_its_job(site: CloudSite) -> None:
    """The provider's running job is deleted there; the user sets retryNonce, and the second one succeeds."""
    await site.connects()
    await site.model(deployment={"template": site.cloud.template})
    await site.asks_for()
    await site.is_made(await site.check())
    strangers.delete_the_jobs(site.cloud)
    await site.stalls("DeletedAtProvider", FINE_TUNE_JOBS, "sentiment-1")
    await site.edit(FINE_TUNE_JOBS, "sentiment-1", {"retryNonce": "again"})
    await site.is_tuned(attempt=2)
    await site.answers()


async def is_deployed_in_vain(site: CloudSite) -> None:
    """The deployment fails there; the user has it created again."""
    strangers.fail_next_deployment(site.cloud)
    await site.connects()
    await site.model(deployment={"template": site.cloud.template})
    await site.asks_for()
    await site.is_tuned()
    await site.stalls("DeploymentFailed", MODEL_DEPLOYMENTS, MODEL)
    await site.edit(MODEL_DEPLOYMENTS, MODEL, {"retryNonce": "again"})
    await site.answers()
    await site.passes(HOUR)


async def is_robbed(site: CloudSite) -> None:
    """The deployment is deleted there; the user has it created again."""
    await site.serves(**_by_the_hour(site))
    await site.passes(HOUR)
    strangers.delete_what_serves(site.cloud)
    await site.touch(MODEL)
    await _is_missed_and_made_anew(site)


async def expires(site: CloudSite) -> None:
    """Azure deletes a deployment that was idle for 15 days; the user has it created again.

    The days pass for the operator first, and a reconcile ends before they pass at Azure: a concurrent one would take
    its own start for the time of the deletion, or read new metrics for a deployment that still exists.
    """
    await site.serves()
    await site.is_shown()
    site.clocks.pass_time(15 * DAY + 1)
    await site.is_looked_at(calls=("deployments.list", "metrics.list"))
    site.cloud.simulator.advance(15 * DAY + 1)
    await site.is_looked_at()
    await _is_missed_and_made_anew(site)


async def _is_missed_and_made_anew(site: CloudSite) -> None:
    await site.says(_lacks_one, "missed", MODEL_DEPLOYMENTS, MODEL)
    site.clocks.pass_time(2 * MINUTE)
    await site.stalls("Expired", MODEL_DEPLOYMENTS, MODEL)
    await site.edit(MODEL_DEPLOYMENTS, MODEL, {"retryNonce": "again"})
    await site.answers()
    await site.passes(HOUR)


async def is_refused_room(site: CloudSite) -> None:
    """The account has no capacity for an hour; after that the deployment is created automatically."""
    await site.connects()
    await site.model(deployment={"template": {**site.cloud.template, **_by_the_hour(site)}})
    await site.asks_for()
    await site.is_made(await site.check())
    strangers.make_room(site.cloud, 0)
    await site.succeeds_there()

    def is_told(status: Manifest) -> bool:
        return any(c["reason"] == "QuotaExceeded" for c in status.get("conditions") or ())

    await site.says(is_told, "QuotaExceeded", MODEL_DEPLOYMENTS, MODEL)
    strangers.make_room(site.cloud, 5)
    await site.touch(MODEL)
    await site.answers()
    await site.passes(HOUR)


async def is_turned_away(site: CloudSite) -> None:
    """OpenAI takes no new jobs."""
    site.cloud.simulator.set(fine_tuning_closed=True)
    await site.connects()
    await site.asks_for()
    check = await site.check()
    file = await site.until(check.send, "an upload")
    await site.ends(await site.pod_of("sentiment-1"), message=check.checked(file))
    await site.is_over(phase="Failed")


async def is_attached(site: CloudSite) -> None:
    """Another user's deployment is attached and answers; it outlives the object, unless its deletion is requested."""
    strangers.deploy(site.cloud, await site.serves_nothing())
    for policy in ("Retain", "Delete"):
        spec = {"modelRef": {"name": MODEL}, "attach": {"id": strangers.BY_HAND}, "deletionPolicy": policy}
        await site.apply(MODEL_DEPLOYMENTS, "prod", spec)
        await site.ready(MODEL_DEPLOYMENTS, "prod")
        await site.passes(HOUR, "prod")
        await site.kube.delete(MODEL_DEPLOYMENTS, "prod", site.name)
        await site.until(lambda: _is_gone(site), "the end of prod")
        there = [one.name for one in site.cloud.simulator.left() if one.name == strangers.BY_HAND]
        assert bool(there) == (policy == "Retain"), there


async def _is_gone(site: CloudSite) -> bool:
    return await site.kube.get(MODEL_DEPLOYMENTS, "prod", site.name) is None


def _lacks_one(status: Manifest) -> bool:
    return any("unseenSince" in one for one in status.get("hosted") or ())


TURNS = {
    sleeps: ("azure", "bedrock", "sagemaker"),
    expires: ("azure",),
    is_robbed: ("azure", "bedrock", "sagemaker"),
    is_robbed_of_its_job: ("openai", "azure"),
    is_refused_room: ("azure", "bedrock", "sagemaker"),
    is_deployed_in_vain: ("azure", "bedrock", "sagemaker"),
    is_attached: ("azure", "bedrock", "sagemaker"),
    fails: ("openai", "azure", "bedrock", "sagemaker"),
    is_turned_away: ("openai",),
}
"""The longest come first."""
