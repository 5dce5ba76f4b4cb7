"""One observation of a hosted ModelDeployment, and what follows from it: the plan, the price, the last use."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finetune_api.catalogue import ProviderFacts
from finetune_api.deployment import DeploymentUsage, HostedDeployment, ModelDeploymentSpec, ModelDeploymentStatus, Sleep
from finetune_api.manifest import Manifest, annotations_of, wants_deletion
from finetune_api.model import ModelVersion
from finetune_api.money import of_units
from finetune_api.names import WAKE_ANNOTATION
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import moment
from finetune_operator.decide.deployment import attached, hosted_record, hosting_cost, idle, token_prices
from finetune_operator.decide.deployment import hosted as decide
from finetune_operator.decide.deployment.decision import DeploymentView
from finetune_operator.decide.deployment.hosted import Plan, Wanted
from finetune_operator.decide.deployment.hosted_record import Hosted
from finetune_operator.decide.deployment.hosting_cost import Rate
from finetune_operator.decide.deployment.hosting_terms import terms_of
from finetune_operator.decide.deployment.serving_target import Target
from finetune_operator.decide.deployment.token_prices import TokenPrices
from finetune_operator.providers.remote import hosting
from finetune_operator.reconcilers.watched.indexes import has_hosted
from finetune_operator.reconcilers.watched.reading import parse_status
from finetune_operator.runtime.kube import MODEL_DEPLOYMENTS
from finetune_operator.runtime.store import Store


@dataclass(frozen=True)
class Observation:
    """One observation of a ModelDeployment."""

    deployment: Manifest
    view: DeploymentView
    spec: ModelDeploymentSpec
    target: Target
    wanted: Wanted
    found: dict[str, Hosted]
    facts: ProviderFacts

    @property
    def usage(self) -> DeploymentUsage | None:
        """Its last use as status has it; waking it up counts as use."""
        before = self.view.status
        wakes = before.asleep is not None and not idle.is_asleep(before.asleep, self.view.generation, self.wake)
        return idle.woken(before.usage, self.view.now) if wakes else before.usage

    @property
    def wake(self) -> str | None:
        """The annotation that wakes a sleeping deployment."""
        return wake_of(self.deployment)

    def plan(self, recorded: Sequence[HostedDeployment], asleep: Sleep | None) -> Plan:
        """What to do with the existing deployments."""
        now = self.view.now
        if asleep is not None:
            return decide.sleep(recorded, self.found, self.wanted, now)
        if self.spec.attach is not None:
            return attached.plan(recorded, self.found, self.wanted, self._served(), now)
        return decide.plan(recorded, self.found, self.wanted, now, failed=self._has_failed())

    def answering(self, plan: Plan) -> HostedDeployment | None:
        """The record of the deployment that answers, even if the provider does not list it at the moment."""
        return hosted_record.answering(plan.recorded, self.found, self.wanted.name)

    def before(self, plan: Plan, status: ModelDeploymentStatus) -> ModelDeploymentStatus:
        """The status to write before deployments are created or changed.

        An existing one keeps its old terms there until the new ones are requested: repeating that changes nothing.
        """
        if not plan.make or hosted_record.whole(self.found, self.wanted.name) is None:
            return status
        kept = hosted_record.on_terms_of(status.hosted or (), self.view.status.hosted or (), self.wanted.name)
        return status.model_copy(update={"hosted": list(kept)})

    def _has_failed(self) -> bool:
        """Whether status says that the wanted version has failed."""
        status, view = self.view.status, self.view
        is_same = status.observed_generation == view.generation and status.target_version == self.wanted.version
        return is_same and any(
            c.type == "Stalled" and c.status == "True" and c.reason == Reason.DEPLOYMENT_FAILED
            for c in status.conditions or ()
        )

    def _served(self) -> attached.KnownVersions:
        versions = (self.view.model.versions if self.view.model else None) or ()
        names = {
            hosting.named(version.artifact): version.version
            for version in versions
            if hosting.named(version.artifact) and self._is_in_same_place(version)
        }
        names |= {hosting.named(self.target.version.artifact): self.target.version.version}  # if several have the model
        return attached.KnownVersions(self.spec.model_ref.name, names, self.target.connection.azure_open_ai is None)

    def _is_in_same_place(self, version: ModelVersion) -> bool:
        """Whether a version's model is in the same place as the wanted one."""
        return version.connection == self.wanted.connection and version.place in {None, self.target.version.place}

    def price(self, there: Hosted) -> Rate | None:
        """Price of a deployment as the provider shows it, else as it was requested; None: not billed by the hour."""
        terms, base_model = terms_of(self.spec), self.target.version.base_model
        sku, units = (there.sku, there.units) if there.sku else (terms.sku, terms.units)
        if not sku:
            return None
        price = self.facts.price_per_hour(base_model, sku)
        amount = None if price is None else of_units(price, units)
        return Rate(f"{units} {sku}" if units > 1 else sku, amount, self.facts.price_is_of(base_model, sku))

    def answers(self, serves: str | None) -> TokenPrices:
        """Token prices of the deployment that answers, or of the one being created."""
        if serves is None and self.spec.attach is not None:
            return TokenPrices("", self.facts.hosting_currency)  # nothing answers, and nothing will be created
        there = next((one for one in self.found.values() if serves in {one.name, one.address}), None)
        sku = there.sku if there and there.sku else terms_of(self.spec).sku
        if not token_prices.are_billed(self.target.connection.provider, sku):
            return TokenPrices("", self.facts.hosting_currency)
        return token_prices.of_tuned(self.facts, self.target.version.base_model, sku)

    def basis(self, recorded: Sequence[HostedDeployment]) -> str | None:
        """How the hourly price is computed; the previous text if the provider's list lacks a billed deployment."""
        billed, before = [one for one in recorded if one.billed_since], self.view.status.cost
        if before is not None and any(one.name not in self.found for one in billed):
            return before.basis
        standing = [self.found[one.name] for one in billed if one.name in self.found]
        rates = [rate for there in standing if (rate := self.price(there)) is not None]
        return hosting_cost.basis(rates, self.facts.hosting_currency)


def wake_of(deployment: Manifest) -> str | None:
    """The value of the annotation that wakes a sleeping deployment."""
    value = annotations_of(deployment).get(WAKE_ANNOTATION)
    return None if value is None else str(value)[:253]


def others_with(store: Store, view: DeploymentView, one: HostedDeployment, *, made: bool = False) -> list[str]:
    """Other objects that have a deployment in their status.

    `made`: only the one that it was made for, not those that attached it.
    """
    found = set()
    for other in _others(store, (view.namespace, view.name), one, made=made):
        own, name = other["namespace"] == view.namespace, other["name"]
        found.add(f"ModelDeployment {name}" if own else "a ModelDeployment of another namespace")
    return sorted(found)


def _others(store: Store, address: tuple[str, str], one: HostedDeployment, *, made: bool) -> Iterator[Manifest]:
    """Metadata of those objects."""
    named = (one.name.casefold(), one.place)
    for other in store.select(MODEL_DEPLOYMENTS, has_hosted(one.name)):
        metadata = other["metadata"]
        if wants_deletion(other) or (metadata["namespace"], metadata["name"]) == address:
            continue
        theirs = [held for held in other["status"]["hosted"] if not (made and held.get("attached", True))]
        if any((held["name"].casefold(), held.get("place")) == named for held in theirs):
            yield metadata


def without_copied(store: Store, deployment: Manifest) -> Manifest:
    """The object, without deployments in its status that were made for an earlier object, of which this is a copy.

    A backup that is restored with statuses into another namespace creates such copies. It must not delete what serves
    the original. Names chosen by users are the same in both, so recorded names do not tell whose a deployment is.
    """
    if not (deployment.get("status") or {}).get("hosted"):
        return deployment
    status, metadata = parse_status(ModelDeploymentStatus, deployment), deployment["metadata"]
    address = metadata["namespace"], metadata["name"]
    copied = {
        one.name
        for one in status.hosted or ()
        if not one.attached
        and any(
            moment(other["creationTimestamp"]) < moment(metadata["creationTimestamp"])
            for other in _others(store, address, one, made=True)
        )
    }
    if not copied:
        return deployment
    hosted = [one for one in deployment["status"]["hosted"] if one.get("name") not in copied]
    return {**deployment, "status": {**deployment["status"], "hosted": hosted}}


def left_behind(view: DeploymentView, left: Sequence[HostedDeployment]) -> ModelDeploymentStatus:
    """The status while deployments exist that no version needs any more, or whose object is being deleted.

    If nothing was recorded (None), that stays so: an empty list would say that there is nothing.
    """
    before, status = view.status.cost, view.status
    currency = before.currency if before else "USD"
    cost = hosting_cost.total(before, status.hosted or (), left, currency, view.now)
    cost = token_prices.as_before(cost and cost.model_copy(update={"basis": before and before.basis}), before)
    recorded = None if status.hosted is None and not left else list(left)
    return status.model_copy(update={"hosted": recorded, "cost": cost})


def as_recorded(_: Hosted) -> None:
    """A rate of None: the price is in the record, as the terms it was made by are not in the spec any more."""
