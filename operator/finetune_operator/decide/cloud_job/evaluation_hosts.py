"""Deployments for an evaluation, where a provider's models answer only through deployments. Pure.

    needed ─▶ recorded ─▶ requested ─▶ ready there ─▶ answers ─▶ the pod uses it ─▶ released ─▶ gone, and forgotten
       ╰─ the model has a deployment already: that one is used, and left alone

Each is named after its job, attempt and candidate, so it is created only once, however often it is requested.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from finetune_api.asking import CANDIDATES, Candidate
from finetune_api.catalogue import ProviderFacts
from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import AzureServing, BedrockServing, DeploymentTemplate
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import EvaluationDeployment, FineTuneJobStatus, ProviderEvaluation
from finetune_api.money import of_units
from finetune_operator.decide.conditions import moment, timestamp
from finetune_operator.decide.deployment.hosted_record import GOING, MISSED, Hosted, changes, existed_until, is_missed
from finetune_operator.decide.deployment.hosting_terms import terms_of
from finetune_operator.decide.job.remote import SETTLE
from finetune_operator.decide.job.view import JobView

IN_DEPLOYMENTS: Mapping[str, frozenset[Candidate]] = {
    "azureOpenAI": frozenset(CANDIDATES),
    "bedrock": frozenset({"tuned", "activeVersion"}),
}
"""By provider block, the candidates that answer only through deployments. Others are called by model name."""

ONE_AT_A_TIME = frozenset({"azureOpenAI"})
"""Providers whose accounts allow only one change at a time."""

WAIT_LIMIT = timedelta(hours=2)
"""How long the next pod waits for deployments."""

LIFETIME = timedelta(hours=24)
"""How long a deployment of an evaluation may exist, whatever the pod does: it may be billed by the hour."""

_ENDINGS: Mapping[Candidate, str] = {"tuned": "t", "base": "b", "activeVersion": "a"}
_NO_HOURS = Decimal(0)
_LATE = f"deployment does not answer after {WAIT_LIMIT // timedelta(hours=1)} hours"


@dataclass(frozen=True)
class Wanted:
    """A deployment that an evaluation needs."""

    candidate: Candidate
    model: str
    """The model to serve, by the provider's name."""
    name: str
    """Its name if it has to be created."""
    per_hour: str | None = None


@dataclass(frozen=True)
class BringUp:
    """The new record, and then what to do: deployments by name."""

    recorded: tuple[EvaluationDeployment, ...]
    make: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()


@dataclass(frozen=True)
class TearDown:
    """The new record of what is left, what to delete then, and the cost of those that are gone."""

    recorded: tuple[EvaluationDeployment, ...]
    delete: tuple[str, ...]
    cost: Decimal | None
    """None if none of those that are gone was billed, which is not the same as a cost near zero."""


def models(spec: FineTuneJobSpec, status: FineTuneJobStatus) -> dict[Candidate, str]:
    """The provider's names of the models that a job compares."""
    active = status.provider.evaluation.active_version if status.provider and status.provider.evaluation else None
    asks_base = spec.evaluation.has("zeroShot") or spec.evaluation.has("fewShot")
    named: dict[Candidate, str | None] = {
        "tuned": status.result.artifact.provider_model_id if status.result else None,
        "base": spec.base_model if asks_base else None,
        "activeVersion": active.model if active else None,
    }
    return {candidate: name for candidate, name in named.items() if name is not None}


def needed(spec: FineTuneJobSpec, status: FineTuneJobStatus, provider: str | None) -> dict[Candidate, str]:
    """Those of them that answer only through deployments."""
    there = IN_DEPLOYMENTS.get(provider or "", frozenset())
    return {candidate: name for candidate, name in models(spec, status).items() if candidate in there}


def prefix(beginning: str) -> str:
    """Prefix of the names of a job's deployments, for all its attempts."""
    return f"{beginning}-e"


def name(beginning: str, attempt: int, candidate: Candidate) -> str:
    """The name of one deployment."""
    return f"{prefix(beginning)}{attempt}{_ENDINGS[candidate]}"


def template(connection: LLMConnectionSpec, candidate: Candidate) -> DeploymentTemplate:
    """The settings of one: as cheap per hour as the connection allows."""
    azure = connection.azure_open_ai
    if azure is None:
        return DeploymentTemplate(bedrock=BedrockServing())
    sku = azure.evaluation.sku or azure.training_type
    if candidate == "base" and sku == "DeveloperTier":
        sku = "GlobalStandard"  # the developer tier is for tuned models
    return DeploymentTemplate(azure_open_ai=AzureServing(sku=sku, capacity=azure.evaluation.capacity))


def per_hour(
    connection: LLMConnectionSpec, facts: ProviderFacts, base_model: str, candidate: Candidate
) -> tuple[bool, str | None]:
    """Whether a deployment is billed by the hour, and its price, if known. A base model's is not."""
    terms = terms_of(template(connection, candidate))
    if candidate == "base" or not terms.sku:
        return False, None
    price = facts.price_per_hour(base_model, terms.sku)
    return True, None if price is None else of_units(price, terms.units)


def price_of_an_hour(view: JobView) -> Decimal | None:
    """Hourly price of all deployments of an evaluation; None if one of the prices is not known."""
    if view.spec is None or view.connection is None:
        return _NO_HOURS
    parts: dict[Candidate, bool] = {"tuned": True, "activeVersion": compares_versions(view)}
    there = IN_DEPLOYMENTS.get(view.connection.provider, frozenset())
    total = _NO_HOURS
    for candidate in (part for part, is_asked in parts.items() if is_asked and part in there):
        by_the_hour, price = per_hour(view.connection, view.facts, view.spec.base_model, candidate)
        if by_the_hour and price is None:
            return None
        total += Decimal(price or "0")
    return total


def compares_versions(view: JobView) -> bool:
    """Whether the active version is compared too: it is a baseline of the job, or activation depends on it."""
    return view.spec is not None and (view.if_better or view.spec.evaluation.has("activeVersion"))


def bring_up(
    recorded: Sequence[EvaluationDeployment],
    wanted: Sequence[Wanted],
    found: Mapping[str, Hosted],
    now: datetime,
    *,
    one_at_a_time: bool,
) -> BringUp:
    """What to do to have all wanted deployments answer. `found` is everything in the account."""
    busy = one_at_a_time and changes(found)
    kept, make, ask = [], [], []
    for one in wanted:
        entry = _entry(recorded, one, found, now)
        there = found.get(entry.name)
        if entry.released or entry.address or entry.failure:
            pass  # released: it is created again once it is gone; else nothing is left to do
        elif there is None and (entry.ready_at or entry.borrowed):
            gone = "it is not at the provider any more: it was deleted there, or has expired"
            entry = failed(entry, gone) if is_missed(entry, now) else entry
        elif there is None and not busy:
            entry = _with(entry, unseen_since=timestamp(now))
            make.append(entry.name)
            busy = one_at_a_time
        elif there is not None and there.state == "Failed":
            entry = failed(entry, f"it failed at the provider{f': {there.failure}' if there.failure else ''}")
        elif there is not None and there.state == "Ready":
            entry = _with(entry, unseen_since=None, ready_at=entry.ready_at or timestamp(now))
            ask.append(entry.name)
        elif there is not None:
            entry = _with(entry, unseen_since=None)
        kept.append(entry)
    return BringUp(tuple(kept), tuple(make), tuple(ask))


def _entry(
    recorded: Sequence[EvaluationDeployment], wanted: Wanted, found: Mapping[str, Hosted], now: datetime
) -> EvaluationDeployment:
    """The record of a wanted deployment, present or new."""
    entry = next((one for one in recorded if one.candidate == wanted.candidate), None)
    if entry is not None and not _is_over(entry, found, now):
        return _seen(entry, found, now)
    standing = _existing(wanted, found)
    if standing is not None:
        return EvaluationDeployment(
            candidate=wanted.candidate, name=standing.name, created_at=timestamp(now), borrowed=True
        )
    return EvaluationDeployment(
        candidate=wanted.candidate,
        name=wanted.name,
        created_at=timestamp(now),
        borrowed=False,
        per_hour=wanted.per_hour,
    )


def _is_over(entry: EvaluationDeployment, found: Mapping[str, Hosted], now: datetime) -> bool:
    """Whether the recorded deployment is gone and may be replaced."""
    limit = MISSED if entry.borrowed else _limit(entry)
    return (entry.borrowed or entry.released) and entry.name not in found and is_missed(entry, now, limit)


def _existing(wanted: Wanted, found: Mapping[str, Hosted]) -> Hosted | None:
    """An existing deployment of the model. A base model's is not used: it belongs to others, as do its rate limits."""
    if wanted.candidate == "base":
        return None
    serving = [one for one in found.values() if one.state == "Ready" and one.model == wanted.model]
    return next((one for one in serving if not _is_of_an_evaluation(one.name)), None)


def _is_of_an_evaluation(deployment: str) -> bool:
    """Whether it will be deleted when some evaluation has ended."""
    head, _, tail = deployment.rpartition("-e")
    return bool(head) and tail[:-1].isdecimal() and tail[-1:] in _ENDINGS.values()


def tear_down(
    recorded: Sequence[EvaluationDeployment],
    found: Mapping[str, Hosted],
    beginning: str,
    now: datetime,
    *,
    one_at_a_time: bool,
) -> TearDown:
    """What to do to delete everything that was created, including what only its name shows to be the job's."""
    own = [_seen(one, found, now) for one in recorded if not one.borrowed]
    left = [one for one in own if one.name in found or _may_still_show(one, now)]
    known = {one.name for one in own}
    strays = [there for there in found if there.startswith(prefix(beginning)) and there not in known]
    left += [_stray(there, now) for there in strays if _is_of_an_evaluation(there)]
    busy = one_at_a_time and changes(found)
    free = [one.name for one in left if one.name in found and found[one.name].state != "Deleting"]
    gone = [one for one in own if one not in left and one.ready_at and one.per_hour]
    cost = sum((_cost_so_far(one, now) for one in gone), _NO_HOURS) if gone else None
    delete = () if busy else tuple(free[:1] if one_at_a_time else free)
    return TearDown(tuple(_with(one, released=True) if one.name in found else one for one in left), delete, cost)


def _seen(one: EvaluationDeployment, found: Mapping[str, Hosted], now: datetime) -> EvaluationDeployment:
    """The record after a list. A list may lack a deployment that exists, though nobody has requested its deletion."""
    if one.name in found:
        return _with(one, unseen_since=None)
    return one if one.unseen_since else _with(one, unseen_since=timestamp(now))


def _may_still_show(one: EvaluationDeployment, now: datetime) -> bool:
    """Whether it has been missing from lists only briefly."""
    return one.unseen_since is not None and not is_missed(one, now, _limit(one))


def _limit(one: EvaluationDeployment) -> timedelta:
    """How long a released one must be missing to count as gone: longer if it has never been listed."""
    return GOING if one.ready_at else SETTLE


def _stray(deployment: str, now: datetime) -> EvaluationDeployment:
    part = next(candidate for candidate, ending in _ENDINGS.items() if deployment.endswith(ending))
    return unrecorded(deployment, part, now)


def unrecorded(deployment: str, candidate: Candidate, now: datetime) -> EvaluationDeployment:
    """The record of one that exists without a record, and is to be deleted."""
    return EvaluationDeployment(candidate=candidate, name=deployment, created_at=timestamp(now), borrowed=False)


def failed(entry: EvaluationDeployment, why: str) -> EvaluationDeployment:
    """The record of one that could not be created."""
    return _with(entry, failure=f"deployment {entry.name}: {why}"[:512])


def answering(
    recorded: Iterable[EvaluationDeployment], deployment: str, address: str
) -> tuple[EvaluationDeployment, ...]:
    """The record once one has answered."""
    return tuple(_with(one, address=address) if one.name == deployment else one for one in recorded)


def to_be_tested_again(recorded: Iterable[EvaluationDeployment] | None) -> list[EvaluationDeployment] | None:
    """The record before another pod: whether they still answer is tested again."""
    return [_with(one, address=None) for one in recorded] if recorded else None


def are_settled(recorded: Iterable[EvaluationDeployment] | None, wanted: Iterable[Candidate]) -> bool:
    """Whether the pod can start: each of them answers, or has failed."""
    settled = {one.candidate for one in recorded or () if not one.released and (one.address or one.failure)}
    return settled >= set(wanted)


def of(recorded: Iterable[EvaluationDeployment] | None, candidate: Candidate) -> EvaluationDeployment | None:
    """The record of one candidate."""
    return next((one for one in recorded or () if one.candidate == candidate), None)


def made(evaluation: ProviderEvaluation | None) -> list[EvaluationDeployment]:
    """Those that were created for it, and are not known to be gone."""
    return [one for one in (evaluation and evaluation.deployments) or () if not one.borrowed]


def released(recorded: Iterable[EvaluationDeployment] | None) -> list[EvaluationDeployment] | None:
    """The record once those that were created are to be deleted."""
    return [one if one.borrowed else _with(one, released=True) for one in recorded] if recorded else None


def is_late(evaluation: ProviderEvaluation, now: datetime) -> bool:
    """Whether the time to wait for deployments is over."""
    since = evaluation.deploying_since
    return since is not None and now - moment(since) >= WAIT_LIMIT


def given_up(recorded: Iterable[EvaluationDeployment]) -> list[EvaluationDeployment]:
    """The record with those that do not answer marked as failed: these baselines are missing."""
    return [one if one.address or one.failure else _with(one, failure=f"its {_LATE}") for one in recorded]


def overdue(evaluation: ProviderEvaluation, now: datetime) -> str | None:
    """Why not to wait any longer, or None."""
    tuned = of(evaluation.deployments, "tuned")
    if is_late(evaluation, now) and not (tuned and tuned.address):
        return f"the tuned model's {_LATE}"
    for one in made(evaluation):
        if one.ready_at is not None and now - moment(one.ready_at) >= LIFETIME:
            return f"deployment {one.name} has existed for {LIFETIME // timedelta(hours=1)} hours, and may be billed"
    return None


def cost(evaluation: ProviderEvaluation | None, now: datetime) -> Decimal:
    """What deployments have cost so far, by hours at list price."""
    if evaluation is None:
        return _NO_HOURS
    standing = sum((_cost_so_far(one, now) for one in made(evaluation)), _NO_HOURS)
    return Decimal(evaluation.hosting or "0") + standing


def _cost_so_far(one: EvaluationDeployment, now: datetime) -> Decimal:
    if one.ready_at is None or one.per_hour is None:
        return _NO_HOURS
    seconds = (existed_until(one, now) - moment(one.ready_at)).total_seconds()
    return Decimal(one.per_hour) * Decimal(max(0.0, seconds)) / 3600


def _with(one: EvaluationDeployment, **fields: object) -> EvaluationDeployment:
    return one.model_copy(update=fields)
