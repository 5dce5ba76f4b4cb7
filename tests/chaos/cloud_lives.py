"""Lives of jobs at providers outside of the cluster, until everything is settled; then the team deletes all."""

from collections.abc import Awaitable, Callable

from finetune_api.manifest import Manifest
from finetune_operator.providers.aws.s3 import PART_BYTES
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS
from tests.chaos.cloud_site import HOUR, CloudSite
from tests.chaos.cloud_turns import BY_THE_HOUR, TURNS

CloudLife = Callable[[CloudSite], Awaitable[None]]


async def is_served(site: CloudSite, template: Manifest | None = None) -> None:
    """A model is tuned, registered, deployed if needed, and answers for an hour."""
    await site.serves(**(template or {}))
    await site.passes(HOUR)
    await site.tells_the_cost_of(HOUR)


async def is_renewed(site: CloudSite) -> None:
    """A second version is deployed, and then the first one's deployment is deleted."""
    await is_served(site)
    await site.asks_for("sentiment-2")
    await site.is_tuned(job="sentiment-2")
    await site.answers(2)


async def is_suspended(site: CloudSite) -> None:
    """A job is suspended while it runs at the provider, and resumed: the second attempt is a new job there."""
    await site.connects()
    await site.model(deployment={"mode": "Manual"})
    await site.asks_for()
    await site.is_made(await site.check())
    await site.edit(FINE_TUNE_JOBS, "sentiment-1", {"suspend": True})
    await site.begins(site.cloud.cancels)
    await site.phase("Suspended")
    await site.edit(FINE_TUNE_JOBS, "sentiment-1", {"suspend": False})
    await site.is_tuned(attempt=2)


async def is_measured(site: CloudSite) -> None:
    """A tuned model is evaluated on a test set, in deployments created for that and deleted after it."""
    await site.connects()
    await site.model(deployment={"mode": "Manual"})
    files = {split: {"uri": f"pvc://data/{split}.jsonl"} for split in ("train", "test")}
    await site.asks_for(dataset=files)
    await site.is_made(await site.check())
    site.advance(HOUR)
    await site.measures()
    await site.is_over()


async def is_adopted(site: CloudSite) -> None:
    """An existing provider job, here of another FineTuneJob, is adopted as the first version of a new model."""
    await site.connects()
    await site.model(deployment={"mode": "Manual"}, activation="Manual")
    await site.asks_for()
    await site.is_made(await site.check())
    made = (await site.status(FINE_TUNE_JOBS, "sentiment-1"))["provider"]["jobID"]
    if site.cloud.deploys:  # where models answer by themselves the job makes its model
        await site.apply(FINE_TUNED_MODELS, "theirs", {"deployment": {"mode": "Manual"}})
    await site.asks_for("theirs-1", adopt={"jobID": made}, modelRef={"name": "theirs"})
    await site.succeeds_there()
    await site.is_over("theirs-1")
    await site.ready(FINE_TUNED_MODELS, "theirs")


async def is_provisioned(site: CloudSite) -> None:
    """A model is served by throughput that is billed by the hour."""
    await is_served(site, BY_THE_HOUR)


async def is_large(site: CloudSite) -> None:
    """Data are uploaded to S3 in parts; the pod aborts in the third part, and starts again."""
    await site.connects()
    await site.model(deployment={"mode": "Manual"})
    await site.asks_for()
    check = await site.check(size=3 * PART_BYTES)

    async def is_given_up() -> bool:
        await check.break_off(2 * PART_BYTES + 1)
        return "AbortMultipartUpload" in site.asked

    await site.until(is_given_up, "the end of an upload that broke off")
    await site.is_made(check)
    await site.succeeds_there()


LIVES: dict[str, tuple[CloudLife, str]] = {
    f"{life.__name__} at {provider}": (life, provider)
    for life, providers in {
        **TURNS,
        is_renewed: ("azure", "bedrock", "sagemaker"),
        is_measured: ("azure", "bedrock"),
        is_adopted: ("openai", "azure", "bedrock", "sagemaker"),
        is_provisioned: ("bedrock",),
        is_large: ("sagemaker",),
        is_suspended: ("openai", "azure", "bedrock", "sagemaker"),
        is_served: ("openai", "azure", "bedrock", "sagemaker"),
    }.items()
    for provider in providers
}
"""By name, with the provider; the longest come first."""
