"""Everything that the operator writes."""

from collections.abc import Iterator

from tests.cluster import Cluster

METRICS = "/api/v1/namespaces/finetune-system/pods/{}:8080/proxy/metrics"


def written(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Each request body, including statuses and Events, and logs and metrics of the current pods."""
    with cluster.audit.path.open() as lines:
        yield from (("audit log", line) for line in lines)
    for pod in cluster.get("-n", "finetune-system", "pods", "-l", "app.kubernetes.io/name=finetune-operator")["items"]:
        name: str = pod["metadata"]["name"]
        yield f"log of {name}", cluster.kubectl("-n", "finetune-system", "logs", name)
        yield f"metrics of {name}", cluster.kubectl("get", "--raw", METRICS.format(name))
