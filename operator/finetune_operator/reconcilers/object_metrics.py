"""Metrics about objects, computed from the store at each scrape."""

from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import partial
from typing import Any, get_args

from finetune_api.deployment import DeploymentPhase
from finetune_api.job_status import JobPhase
from finetune_api.manifest import has_condition
from finetune_api.reasons import Reason
from finetune_operator.reconcilers.watched.indexes import UNCLEANED, UNRELEASED, in_phase, stuck_by
from finetune_operator.runtime import metrics
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, OWN_KINDS
from finetune_operator.runtime.store import Store

Address = tuple[str, str]
"""Namespace and name."""


def register_object_metrics(store: Store) -> None:
    """Connect the metrics to the objects of a store."""
    for resource, phases in ((FINE_TUNE_JOBS, get_args(JobPhase)), (MODEL_DEPLOYMENTS, get_args(DeploymentPhase))):
        for phase in phases:
            gauge = metrics.OBJECTS.labels(resource.kind, phase)
            gauge.set_function(partial(store.count, resource, in_phase(phase)))
    metrics.STUCK.rows = partial(_stuck, store)
    metrics.DEPLOYMENTS.rows = partial(_deployment_rows, store)
    metrics.UNRELEASED.rows = partial(_unreleased, store)
    metrics.UNCLEANED.rows = partial(_uncleaned, store)


def _stuck(store: Store) -> Iterator[tuple[str, str, str, int]]:
    """How many objects are stuck, by kind, namespace and reason."""
    for resource in OWN_KINDS:
        for reason in Reason:
            found = Counter(namespace for namespace, _ in store.addresses(resource, stuck_by(reason)))
            yield from ((resource.kind, namespace, reason, number) for namespace, number in found.items())


def _deployment_rows(store: Store) -> Iterator[metrics.DeploymentRow]:
    """Cost of each deployment at a provider. One shared by several objects counts for only one, so costs add up."""
    found = {
        address: (store.get(MODEL_DEPLOYMENTS, address[1], address[0]) or {}).get("status") or {}
        for address in store.addresses(MODEL_DEPLOYMENTS)
    }
    payers = _payers(found)
    for (namespace, name), status in found.items():
        cost = status.get("cost") or {}
        if cost or status.get("hosted"):
            reasons = {one["reason"] for one in status.get("conditions") or () if one["status"] != "False"}
            is_unknown = Reason.USAGE_UNKNOWN in reasons and "warnedAt" in (status.get("usage") or {})
            billed = is_unknown or Reason.BILLED_WHILE_IDLE in reasons
            standing = [one for one in status.get("hosted") or () if one.get("billedSince")]
            own = [one for one in standing if payers[_identity(one)] == (namespace, name)]
            per_hour = float(cost["perHour"]) if "perHour" in cost else None
            if per_hour is not None and len(own) < len(standing):
                per_hour = float(sum((Decimal(one.get("perHour", "0")) for one in own), Decimal(0)))
            yield metrics.DeploymentRow(namespace, name, billed, per_hour, cost.get("currency", ""))


def _payers(statuses: Mapping[Address, Mapping[str, Any]]) -> dict[tuple[str, str], Address]:
    """The object that pays for each billed deployment: the one it was made for, else the first that attached it."""
    having = sorted(
        (one.get("attached", True), address, _identity(one))
        for address, status in statuses.items()
        for one in status.get("hosted") or ()
        if one.get("billedSince")
    )
    payers: dict[tuple[str, str], Address] = {}
    for _, address, identity in having:
        payers.setdefault(identity, address)
    return payers


def _identity(one: Mapping[str, Any]) -> tuple[str, str]:
    """Identifies a deployment at a provider across objects; ARM's names are case-insensitive."""
    return one["name"].casefold(), one.get("place") or one["connection"]


def _unreleased(store: Store) -> Iterator[tuple[str, str, str]]:
    """Objects whose deployments at a provider cannot be deleted."""
    for namespace, name in store.addresses(FINE_TUNE_JOBS, UNRELEASED):
        yield FINE_TUNE_JOBS.kind, namespace, name
    for namespace, name in store.addresses(MODEL_DEPLOYMENTS, in_phase("Deleting")):
        if has_condition(store.get(MODEL_DEPLOYMENTS, name, namespace) or {}, "Stalled", "True"):
            yield MODEL_DEPLOYMENTS.kind, namespace, name


def _uncleaned(store: Store) -> Iterator[tuple[str, str, str]]:
    """Objects with other leftovers."""
    for resource in (FINE_TUNE_JOBS, FINE_TUNED_MODELS):
        for namespace, name in store.addresses(resource, UNCLEANED):
            yield resource.kind, namespace, name
