"""Every metric of the operator, with its help text. Records nothing itself."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from finetune_api.reasons import NEXT_STEP

disable_created_metrics()  # type: ignore[no-untyped-call] # an extra series for each series, which nobody reads
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_FAST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SLOW = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

API_REQUESTS = Counter(
    "finetune_api_requests",
    "Requests to the Kubernetes API server, by verb, resource and HTTP code (0: no answer).",
    ("verb", "resource", "code"),
    registry=REGISTRY,
)
API_SECONDS = Histogram(
    "finetune_api_request_seconds",
    "Seconds until the Kubernetes API server had answered, without the wait for the client's own rate limit.",
    ("verb",),
    buckets=_FAST,
    registry=REGISTRY,
)
API_THROTTLED_SECONDS = Counter(
    "finetune_api_throttled_seconds",
    "Seconds that requests waited for the operator's own rate limit; raise the chart's settings.kubeQps when it grows.",
    registry=REGISTRY,
)

QUEUE_READY = Gauge("finetune_queue_ready", "Objects that wait for a free worker now.", registry=REGISTRY)
QUEUE_DELAYED = Gauge("finetune_queue_delayed", "Objects that are due later (resync, backoff).", registry=REGISTRY)
QUEUE_IN_WORK = Gauge("finetune_queue_in_work", "Objects that are being reconciled now.", registry=REGISTRY)
QUEUE_OLDEST_SECONDS = Gauge(
    "finetune_queue_oldest_seconds", "Seconds that the longest waiting object is overdue.", registry=REGISTRY
)
QUEUE_LONGEST_RUNNING_SECONDS = Gauge(
    "finetune_queue_longest_running_seconds", "Seconds that the longest running reconcile has run.", registry=REGISTRY
)
RECONCILE_SECONDS = Histogram(
    "finetune_reconcile_seconds",
    "Seconds per reconcile, by kind.",
    ("kind",),
    buckets=_SLOW,
    registry=REGISTRY,
)
RECONCILES = Counter(
    "finetune_reconciles",
    "Reconciles by kind and outcome: success, requeued, conflict, transient, error, timeout, cancelled.",
    ("kind", "outcome"),
    registry=REGISTRY,
)
RECONCILE_RETRIES = Counter(
    "finetune_reconcile_retries",
    "Reconciles that are repeated because they failed, by kind.",
    ("kind",),
    registry=REGISTRY,
)

OBJECTS = Gauge(
    "finetune_objects",
    "Objects by kind and phase, as the leader last saw them.",
    ("kind", "phase"),
    registry=REGISTRY,
)
FAILURES = Counter("finetune_job_failures", "FineTuneJobs that failed, by reason.", ("reason",), registry=REGISTRY)
for _reason in NEXT_STEP:  # start at 0: `increase` and `rate` ignore a series that starts at 1
    FAILURES.labels(_reason.value)


@dataclass(frozen=True)
class DeploymentRow:
    """The metrics of one ModelDeployment at a provider."""

    namespace: str
    name: str
    billed_while_idle: bool
    cost_per_hour: float | None = None
    """None if no price is known."""
    currency: str = ""


class PerDeployment(Collector):
    """Gauges of each ModelDeployment, computed at each scrape: deleted objects have none."""

    def __init__(self) -> None:
        self.rows: Callable[[], Iterable[DeploymentRow]] = tuple

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges. The label is not `namespace`: scrapers set that to the operator's own."""
        names = ["deployment_namespace", "deployment"]
        cost = GaugeMetricFamily(
            "finetune_deployment_cost_per_hour",
            "List price of an hour of a ModelDeployment at a provider, as the leader last saw it. What several have "
            "is in the price of the one for which it was made.",
            labels=[*names, "currency"],
        )
        idle = GaugeMetricFamily(
            "finetune_deployment_billed_while_idle",
            "1 while a ModelDeployment at a provider is billed and not known to receive requests, else 0.",
            labels=names,
        )
        for row in self.rows():
            if row.cost_per_hour is not None:
                cost.add_metric([row.namespace, row.name, row.currency], row.cost_per_hour)
            idle.add_metric([row.namespace, row.name], float(row.billed_while_idle))
        yield cost
        yield idle


DEPLOYMENTS = PerDeployment()
REGISTRY.register(DEPLOYMENTS)


class PerObject(Collector):
    """A gauge with value 1 for each object in a certain state, computed at each scrape; other objects have none."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self.rows: Callable[[], Iterable[tuple[str, str, str]]] = tuple
        """Kind, namespace and name of each of these objects."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, with labels like those of deployments."""
        found = GaugeMetricFamily(self._name, self._text, labels=["kind", "object_namespace", "object"])
        for row in self.rows():
            found.add_metric(row, 1.0)
        yield found


UNRELEASED = PerObject(
    "finetune_deployment_unreleased",
    "1 while deployments that an object had at a provider, and that may be billed, cannot be deleted.",
)
REGISTRY.register(UNRELEASED)
UNCLEANED = PerObject(
    "finetune_leftovers",
    "1 while data of an object at a provider, or weights of a model, that were to be deleted cannot be.",
)
REGISTRY.register(UNCLEANED)


class Stuck(Collector):
    """The number of stuck objects by kind, namespace and reason, computed at each scrape."""

    def __init__(self) -> None:
        self.rows: Callable[[], Iterable[tuple[str, str, str, int]]] = tuple
        """Kind, namespace, reason, and how many."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges; none if nothing is stuck."""
        found = GaugeMetricFamily(
            "finetune_stuck_objects",
            "Objects that have not ended and are stuck, by the reason in their status; what waits for a ResourceQuota "
            "counts as `Unschedulable`.",
            labels=["kind", "object_namespace", "reason"],
        )
        for *labels, number in self.rows():
            found.add_metric([str(label) for label in labels], number)
        yield found


STUCK = Stuck()
REGISTRY.register(STUCK)

UNWATCHED = Gauge(
    "finetune_namespace_unwatched",
    "1 while a namespace of watchNamespaces may not be watched, so that nothing is done there.",
    ("object_namespace",),
    registry=REGISTRY,
)
LEADER = Gauge("finetune_leader", "1 while this replica holds the Lease, else 0.", registry=REGISTRY)
LEASE_TRANSITIONS = Counter(
    "finetune_lease_transitions", "Times that this replica gained or lost the Lease.", ("change",), registry=REGISTRY
)

REPORTS = Counter(
    "finetune_reports", "Reports from training pods, by HTTP code of the answer.", ("code",), registry=REGISTRY
)
REPORT_SECONDS = Histogram(
    "finetune_report_seconds", "Seconds to answer a report of a training pod.", buckets=_FAST, registry=REGISTRY
)
UPLOADS = Counter("finetune_uploads", "Files for providers, by HTTP code of the answer.", ("code",), registry=REGISTRY)
QUESTIONS = Counter(
    "finetune_questions",
    "Questions of evaluations for models at providers, by HTTP code of the answer.",
    ("code",),
    registry=REGISTRY,
)
CONNECTIONS_CLOSED = Counter(
    "finetune_connections_closed",
    "Connections to the operator that it closed itself: idle without a whole request, or too-many.",
    ("why",),
    registry=REGISTRY,
)
TOKEN_REVIEWS = Counter(
    "finetune_token_reviews",
    "Tokens of training pods looked at, by outcome: cached, valid, invalid, malformed, throttled.",
    ("outcome",),
    registry=REGISTRY,
)

CERTIFICATE_EXPIRY = Gauge(
    "finetune_certificate_expiry_timestamp_seconds",
    "Unix time at which a certificate of the report server ends, by certificate (serving, ca).",
    ("certificate",),
    registry=REGISTRY,
)
EVENTS = Counter(
    "finetune_events",
    "Kubernetes Events by outcome: posted, repeated, dropped, failed.",
    ("outcome",),
    registry=REGISTRY,
)
