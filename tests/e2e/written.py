"""Everything that the operator says of its work."""

from collections.abc import Iterator

from tests.cluster import Cluster

METRICS = "/api/v1/namespaces/finetune-system/pods/{}:8080/proxy/metrics"


def written(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Each body that it wrote, statuses and events among them, and of the pods that there are now logs and metrics."""
    with cluster.audit.path.open() as lines:
        yield from (("audit log", line) for line in lines)
    for pod in cluster.get("-n", "finetune-system", "pods", "-l", "app.kubernetes.io/name=finetune-operator")["items"]:
        name: str = pod["metadata"]["name"]
        yield f"log of {name}", cluster.kubectl("-n", "finetune-system", "logs", name)
        yield f"metrics of {name}", cluster.kubectl("get", "--raw", METRICS.format(name))
