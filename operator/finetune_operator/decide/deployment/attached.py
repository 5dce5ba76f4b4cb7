"""A deployment made by somebody else, which a ModelDeployment names: observed, tested once, never changed. Pure.

It must serve a version of the model, so that nobody can attach, and then delete, deployments of others in the account.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from finetune_api.deployment import HostedDeployment
from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import moment, nearest, timestamp
from finetune_operator.decide.deployment.hosted import LONG, Plan, Wanted, unshown
from finetune_operator.decide.deployment.hosted_record import (
    Hosted,
    address,
    billed,
    changes,
    deletable,
    is_missed,
    is_ready,
    ours,
    released,
    unseen,
    whole,
)
from finetune_operator.decide.deployment.server_state import Serving

_MOST_NAMES = 3

EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
"""No provider had deployments of tuned models before this date."""


@dataclass(frozen=True)
class KnownVersions:
    """The names of the model's versions where the deployment is."""

    model: str
    """Name of the FineTunedModel."""
    versions: Mapping[str, int]
    """Versions by the provider's name of their tuned model, for the deployment's connection only."""
    names_have_case: bool = True
    """Whether names are case-sensitive."""

    def version_of(self, model: str) -> int | None:
        """The version with this provider's name."""
        if self.names_have_case:
            return self.versions.get(model)
        known = {name.casefold(): version for name, version in self.versions.items()}
        return known.get(model.casefold())


def plan(
    recorded: Sequence[HostedDeployment],
    found: Mapping[str, Hosted],
    wanted: Wanted,
    served: KnownVersions,
    now: datetime,
) -> Plan:
    """What to do next. Deployments made for the object before are deleted once the attached one answers."""
    made = tuple(one for one in ours(recorded, found, wanted.prefix, now) if not one.attached)
    others = tuple(one for one in made if one.name != wanted.name)
    before = next((one for one in others if one.answered and is_ready(found, one.name)), None)
    serves = address(found, before.name) if before else None
    there = _there(found, wanted)
    entry = _entry(recorded, wanted, served, there, now)
    kept = others if entry is None else (*others, entry)
    failure = _failure(wanted, served, there, entry) if there or entry else _not_found(wanted, served, found)
    if there is None and entry is not None and entry.answered and not is_missed(entry, now):
        held = unshown(wanted) if entry.version == wanted.version else _meanwhile("Rolling", wanted, before)
        return Plan(kept, held, serves)
    if there is None or entry is None or there.state == "Failed" or there.units < 1:
        return Plan(kept, _meanwhile("Failing", wanted, before, failure), serves)
    if there.state != "Ready" or not entry.answered:
        asks = there.state == "Ready"
        silent = _silence(entry) if asks and _is_silent_for_long(entry, now) else None
        return Plan(kept, _meanwhile("Failing" if silent else "Rolling", wanted, before, silent), serves, ask=asks)
    if failure is not None:
        answers = Serving("Failing", wanted.version, 1, failure, answers=entry.version)
        return Plan(kept, answers, address(found, wanted.name))
    busy = wanted.one_at_a_time and changes(found)
    delete = () if busy else deletable(others, found, now)
    return Plan(
        released(kept, delete, now), Serving("Serving", wanted.version, 1), address(found, wanted.name), delete=delete
    )


def _meanwhile(
    state: Literal["Failing", "Rolling"],
    wanted: Wanted,
    before: HostedDeployment | None,
    failure: Failure | None = None,
) -> Serving:
    """The attached deployment does not answer, but an earlier one may."""
    available, version = (1, before.version) if before else (0, None)
    return Serving(state, wanted.version, available, failure, answers=version)


def _there(found: Mapping[str, Hosted], wanted: Wanted) -> Hosted | None:
    """The deployment, unless it is only what SageMaker keeps of a deleted endpoint."""
    there = whole(found, wanted.name)
    return there if there is not None and there.connection == wanted.connection else None


def _entry(
    recorded: Sequence[HostedDeployment], wanted: Wanted, served: KnownVersions, there: Hosted | None, now: datetime
) -> HostedDeployment | None:
    """Its record, once it was seen to serve a version of the model. What it served before does not count."""
    entry = next((one for one in recorded if one.name == wanted.name and one.attached), None)
    version = served.version_of(there.model) if there is not None else None
    if there is None:
        return entry and unseen(entry, now)
    if version is None:
        return None
    entry = entry or HostedDeployment(
        name=wanted.name,
        version=version,
        connection=wanted.connection,
        created_at=timestamp(_made_at(there, now)),
        attached=True,
    )
    silent = (entry.silent_since or timestamp(now)) if there.state == "Ready" and not entry.answered else None
    return entry.model_copy(update={"version": version, "unseen_since": None, "silent_since": silent})


def _is_silent_for_long(entry: HostedDeployment, now: datetime) -> bool:
    """Whether it has failed to answer for as long as a new deployment may take. Its age does not tell that."""
    return entry.silent_since is not None and now - moment(entry.silent_since) >= LONG


def _silence(entry: HostedDeployment) -> Failure:
    said = (
        f"deployment {entry.name}, which is attached, is ready, as the provider says, {billed(entry)}, and has not "
        f"answered since {entry.silent_since}; it is asked again"
    )
    step = "Look there for what is wrong with it, attach another one, or remove spec.attach to have one made."
    return Failure(reason=Reason.DEPLOYMENT_FAILED, message=said, next_step=step)


def _made_at(there: Hosted, now: datetime) -> datetime:
    """Since when it may be billed. The provider's clock may be ahead; a date before all such deployments is ignored."""
    made = there.created_at
    return now if made is None or made < EARLIEST else min(made, now)


def _not_found(wanted: Wanted, served: KnownVersions, found: Mapping[str, Hosted]) -> Failure:
    """Suggests the deployment whose address was given for its name, else those that serve a version of the model."""
    others = (one for one in found.values() if not one.name.startswith(wanted.prefix))
    near = [one for one in others if one.connection == wanted.connection]
    meant = [one.name for one in near if one.address == wanted.name]
    meant = meant or sorted(one.name for one in near if served.version_of(one.model) is not None)
    write = " or ".join(nearest(meant, wanted.name)[:_MOST_NAMES])
    said = f"spec.attach.id: LLMConnection {wanted.connection} has no deployment {wanted.name} at its provider"
    failure = Failure.because(Reason.DEPLOYMENT_NOT_FOUND, said)
    return failure.model_copy(update={"next_step": f"Write {write} into spec.attach.id."}) if write else failure


def _failure(
    wanted: Wanted, served: KnownVersions, there: Hosted | None, entry: HostedDeployment | None
) -> Failure | None:
    name = wanted.name
    if there is None:
        said = (
            f"deployment {name}, which was attached, is not at the provider any more: it was deleted there, or has "
            "expired"
        )
        step = "Name another one in spec.attach.id, or remove spec.attach to have one made."
        return Failure(reason=Reason.DELETED_AT_PROVIDER, message=said, next_step=step)
    if entry is None:
        model = there.model or "a model that the provider does not name"
        said = f"spec.attach.id: deployment {name} serves {model}, not a version of FineTunedModel {served.model}"
        step = "Adopt its job, attach another one, or remove spec.attach to have one made."
        return Failure(reason=Reason.ATTACHED_DIFFERS, message=said, next_step=step)
    if there.state == "Failed":
        return Failure.because(Reason.DEPLOYMENT_FAILED, f"deployment {name}, which is attached, failed there")
    if there.units < 1:
        said = f"deployment {name}, which is attached, has no instance left: somebody has scaled it to zero there"
        step = "Have it scaled up there, attach another one, or remove spec.attach to have one made."
        return Failure(reason=Reason.DEPLOYMENT_FAILED, message=said, next_step=step)
    if entry.version != wanted.version:
        said = f"deployment {name} serves version {entry.version}, and what is attached is never changed"
        step = f"Set spec.version: {entry.version}, attach another one, or remove spec.attach to have one made."
        return Failure(reason=Reason.ATTACHED_DIFFERS, message=said, next_step=step)
    return None
