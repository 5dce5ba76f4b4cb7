"""Lives of jobs at providers outside of the cluster, up to where nothing moves any more; then the team deletes all."""

from collections.abc import Awaitable, Callable

from finetune_operator.runtime.kube import FINE_TUNE_JOBS
from tests.chaos.cloud_site import HOUR, CloudSite

CloudLife = Callable[[CloudSite], Awaitable[None]]


async def is_served(site: CloudSite) -> None:
    """A model is tuned, registered, deployed where that is needed, and answers for an hour."""
    await site.connects()
    await site.model(deployment={"template": site.cloud.template})
    await site.asks_for()
    await site.is_tuned()
    await site.answers()
    site.cloud.simulator.advance(HOUR)


async def is_renewed(site: CloudSite) -> None:
    """A second version is deployed, and then the first one's deployment goes."""
    await is_served(site)
    await site.asks_for("sentiment-2")
    await site.is_tuned(job="sentiment-2")
    await site.answers(2)


async def is_suspended(site: CloudSite) -> None:
    """Suspended while it runs at the provider, and resumed: the second attempt is another job there."""
    await site.connects()
    await site.model(deployment={"mode": "Manual"})
    await site.asks_for()
    await site.is_made()
    await site.edit(FINE_TUNE_JOBS, "sentiment-1", {"suspend": True})
    await site.phase("Suspended")
    await site.edit(FINE_TUNE_JOBS, "sentiment-1", {"suspend": False})
    await site.is_tuned(attempt=2)


LIVES: dict[str, tuple[CloudLife, str]] = {
    f"{life.__name__} at {provider}": (life, provider)
    for life, providers in {
        is_renewed: ("azure", "bedrock", "sagemaker"),
        is_suspended: ("openai", "azure", "bedrock", "sagemaker"),
        is_served: ("openai", "azure", "bedrock", "sagemaker"),
    }.items()
    for provider in providers
}
"""By name, with the provider; those that take longest come first."""
