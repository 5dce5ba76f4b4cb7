"""A cluster whose model has versions."""

from typing import Any

from finetune_operator.runtime.kube import DEPLOYMENTS, FINE_TUNED_MODELS
from tests.unit.finetune_operator.reconcilers.fake_cluster import Cluster, with_running_job


async def with_version(**model_spec: Any) -> Cluster:
    """A cluster whose first job has created version 1."""
    cluster = await with_running_job()
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": model_spec})
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    return cluster


async def add_version(cluster: Cluster, number: int) -> None:
    name = f"sentiment-{number}"
    cluster.add_job(name)
    await cluster.settle()
    cluster.run_pod(job=name)
    cluster.end_pod(0, cluster.result(job=name), job=name)
    await cluster.settle()


def served_version(cluster: Cluster) -> str:
    deployment = cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"]
    return str(deployment["spec"]["template"]["metadata"]["labels"]["finetune.dev/version"])
