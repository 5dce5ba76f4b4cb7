"""Dashboard and alerts ask for labels that their metrics have: a query by another one draws nothing, silently."""

import json
import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase

from finetune_api.manifest import Manifest
from finetune_api.reasons import NEXT_STEP
from finetune_operator.runtime import metrics
from tests.unit.helm.charts import only, render

pytestmark = pytest.mark.cluster

OF_PROMETHEUS = {"namespace", "pod"}
"""Added by whoever scrapes; `le` is that of a histogram's buckets."""

QUERY = re.compile(r"\b((?:finetune|process)_\w+)(?:\{([^}]*)\})?")
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
GROUPED = re.compile(r"\b(?:by|on|without|group_left)\s*\(([^)]*)\)")
RATED = re.compile(r"\b(?:rate|increase|irate)\(\s*(\w+)")
DEPLOYMENT = metrics.DeploymentRow("namespace", "name", billed_while_idle=True, cost_per_hour=1.0, currency="USD")
READ_ANEW: list[tuple[Any, Any]] = [
    (metrics.DEPLOYMENTS, DEPLOYMENT),
    (metrics.UNRELEASED, ("kind", "namespace", "name")),
    (metrics.UNCLEANED, ("kind", "namespace", "name")),
    (metrics.STUCK, ("kind", "namespace", "reason", 1)),
]
"""Gauges that have labels only while there is something of theirs, with something of theirs."""


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """The labels of each metric, by the names that Prometheus has for it."""
    found: dict[str, set[str]] = {}
    for collector, row in READ_ANEW:
        monkeypatch.setattr(collector, "rows", lambda row=row: [row])
        found |= {sample.name: set(sample.labels) for family in collector.collect() for sample in family.samples}
    for one in vars(metrics).values():
        if type(one) is not type and issubclass(type(one), MetricWrapperBase):
            for family, end in product(one.describe(), ("", "_total", "_bucket", "_sum", "_count")):
                found[f"{family.name}{end}"] = {*one._labelnames, "le"}
    return found


def queries() -> Iterator[tuple[str, str]]:
    """Where each query stands, and the query."""
    values = {"metrics": {"prometheusRule": {"enabled": True}, "dashboard": {"enabled": True}}}
    made: list[Manifest] = render(values)
    for group in only(made, "PrometheusRule")["spec"]["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])
    (text,) = [one["data"]["finetune-operator.json"] for one in made if "finetune-operator.json" in one.get("data", {})]
    for panel in json.loads(text)["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])


def test_rates_are_of_what_only_grows_and_all_that_only_grows_is_asked_for_its_rate() -> None:
    kinds = {family.name: family.type for family in metrics.REGISTRY.collect()}
    ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    growing = {f"{name}{end}" for name, kind in kinds.items() for end in ends.get(kind, ())}
    wrong = list[str]()
    for place, query in queries():
        named = {name for name, _ in QUERY.findall(query)}
        rated = set(RATED.findall(query))
        wrong += [f"{place}: {one}" for one in sorted(rated ^ (named & growing))]
    assert wrong == []


def test_a_first_failure_is_seen_by_whoever_asks_how_many_there_were_in_an_hour() -> None:
    """Prometheus takes the first value of a series for where it began: a failure with which it begins is none to it."""
    (family,) = metrics.FAILURES.collect()
    assert {sample.labels["reason"] for sample in family.samples} >= {reason.value for reason in NEXT_STEP}


def test_queries_name_labels_that_their_metrics_have(labels: dict[str, set[str]]) -> None:
    wrong = list[str]()
    for place, query in queries():
        asked = QUERY.findall(query)
        assert asked, place
        for name, matchers in asked:
            lacking = set(LABEL.findall(matchers)) - labels.get(name, set()) - OF_PROMETHEUS
            wrong += [f"{place}: {name} has no {one}" for one in sorted(lacking)]
        of_all = OF_PROMETHEUS.union(*(labels.get(name, set()) for name, _ in asked))
        grouped = {one.strip() for words in GROUPED.findall(query) for one in words.split(",")} - {""}
        wrong += [f"{place}: none of its metrics has {one}" for one in sorted(grouped - of_all)]
    assert wrong == []
