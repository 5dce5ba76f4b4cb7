"""Lives of a job, from `kubectl apply` until everything is settled: the steps of user and kubelet."""

from collections.abc import Awaitable, Callable

from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNE_JOBS, FINE_TUNED_MODELS, SECRETS, Kube
from tests.chaos.site import Site, make_connection

Life = Callable[[Site], Awaitable[None]]


async def succeeds(site: Site) -> None:
    """The model is tuned, registered and served; then by two pods, which a drain must not evict together."""
    await site.job()
    await site.succeeds()
    await site.phase("Succeeded")
    await site.served()
    await site.edit(FINE_TUNED_MODELS, "sentiment", {"deployment": {"template": {"huggingFace": {"replicas": 2}}}})
    await site.serves_with(2)


async def retries(site: Site) -> None:
    """The first attempt runs out of memory, the second succeeds. The operator finds broken certificates."""
    broken = {"metadata": {"name": "finetune-operator-tls", "namespace": site.name}, "data": {"tls.crt": "eA=="}}
    await site.kube.create(SECRETS, broken)
    await _unserved_model(site)
    await site.job()
    await site.ends(await site.trainer(), 137, "OOMKilled")
    await site.succeeds(attempt=2)
    await site.phase("Succeeded")
    await site.ready(FINE_TUNED_MODELS)


async def fails(site: Site) -> None:
    """The trainer fails permanently; later the user sets retryNonce, and the second attempt succeeds."""
    await _unserved_model(site)
    await site.job()
    await site.ends(await site.trainer(), 1, message="Segmentation fault")
    await site.phase("Failed")
    await site.no_jobs()
    await site.edit(FINE_TUNE_JOBS, "sentiment-1", {"retryNonce": "again"})
    await site.succeeds(attempt=2)
    await site.phase("Succeeded")
    await site.ready(FINE_TUNED_MODELS)


async def is_suspended(site: Site) -> None:
    """A job is suspended while it runs, resumed, and deleted as soon as it has succeeded; its version stays."""
    await _unserved_model(site)
    await site.job(ttlSecondsAfterFinished=0)
    await site.trainer()
    await site.phase("Validating")
    await site.suspends()
    await site.edit(FINE_TUNE_JOBS, "sentiment-1", {"suspend": False})
    await site.succeeds(attempt=2)
    await site.until(lambda: _is_gone(site.kube, site.name), "the job's deletion after its time to live")
    await site.no_jobs()
    await site.ready(FINE_TUNED_MODELS)


async def is_on_nodes(site: Site) -> None:
    """Two nodes: suspended while they run, resumed, and both pods succeed. JobSet's own controller creates them."""
    await _unserved_model(site)
    await site.job(resources={"nodes": 2})
    await site.trainers(2)
    await site.phase("Validating")
    await site.suspends()
    await site.edit(FINE_TUNE_JOBS, "sentiment-1", {"suspend": False})
    first, second = await site.trainers(2, attempt=2)
    await site.phase("Validating")
    await site.ends(second)
    await site.ends(first, message=await site.result("sentiment-1", 2))
    await site.phase("Succeeded")
    await site.ready(FINE_TUNED_MODELS)


async def is_forgotten(site: Site) -> None:
    """A second version replaces the first one in a history of one."""
    await _unserved_model(site, historyLimit=1)
    for name in ("sentiment-1", "sentiment-2"):
        await site.job(name)
        await site.succeeds(job=name)
        await site.phase("Succeeded", name)
    await site.prunes()
    await site.says(
        lambda status: [version["version"] for version in status.get("versions") or ()] == [2],
        "only version 2", FINE_TUNED_MODELS, "sentiment",
    )  # fmt: skip


async def is_connected(site: Site) -> None:
    """A connection of its own, whose status every other operator on the control plane writes as well."""
    await make_connection(site.kube, site.name)
    await site.ready(CONNECTIONS, site.name)


LIVES: dict[str, Life] = {
    life.__name__: life for life in (retries, is_forgotten, is_on_nodes, is_suspended, fails, succeeds, is_connected)
}
"""The longest come first."""


async def _unserved_model(site: Site, **spec: object) -> None:
    await site.apply(FINE_TUNED_MODELS, "sentiment", {"deployment": {"mode": "Manual"}, **spec})


async def _is_gone(kube: Kube, namespace: str) -> bool:
    return await kube.get(FINE_TUNE_JOBS, "sentiment-1", namespace) is None
