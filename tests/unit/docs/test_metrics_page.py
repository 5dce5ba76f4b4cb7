"""docs/reference/metrics.md: each metric that the operator and the servers have, with its labels and its own text."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from finetune_operator.runtime.metrics import REGISTRY
from finetune_trainer.serving.metrics import ServerMetrics
from tests.unit.docs.pages import ROOT

PAGE = ROOT / "docs/reference/metrics.md"


def families(registry: CollectorRegistry) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """Those of this project, with the names of their labels."""
    for collector in registry._collector_to_names:
        for family in collector.collect():
            if family.name.startswith("finetune_"):
                yield family, tuple(getattr(collector, "_labelnames", getattr(family, "_labelnames", ())))


def rows(registry: CollectorRegistry) -> list[str]:
    """As the page has them, in the order of their names."""
    found = []
    for family, labels in families(registry):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        said = ", ".join(f"`{label}`" for label in labels)
        found.append(f"| `{name}` | {family.type} | {said} | {family.documentation} |")
    return sorted(found)


def test_every_metric_is_on_the_page_with_its_labels_and_what_it_means() -> None:
    told = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `finetune_")]
    server = ServerMetrics(waiting=lambda: 0, running=lambda: 0)
    assert told == [*rows(REGISTRY), *rows(server._registry)]
