"""What a job at a provider costs: by tokens or, at SageMaker, by instance time. Pure; estimates, not bills."""

from decimal import Decimal

from finetune_api.aws import SageMaker
from finetune_api.catalogue import AnswerPrices, Price, billed, billed_time, estimate, exceeds, longest_time, unknown
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Cost, Failure
from finetune_api.money import in_cents
from finetune_api.reasons import Reason
from finetune_api.trainer import Checked
from finetune_operator.decide.cloud_job import asking_cost, evaluation_hosts, measuring
from finetune_operator.decide.job.view import JobView

LONGEST_RUN_SECONDS = 2419200
"""28 days, the limit of SageMaker."""


def instance_type(spec: FineTuneJobSpec, settings: SageMaker) -> str:
    """The instance type of a job at SageMaker."""
    return spec.resources.instance_type or settings.instance_types[0]


def longest_seconds(spec: FineTuneJobSpec, settings: SageMaker) -> int:
    """After how many seconds SageMaker stops the job."""
    return min(spec.active_deadline_seconds or settings.max_runtime_seconds, LONGEST_RUN_SECONDS)


def expected(view: JobView, checked: Checked) -> Cost | None:
    """Expected cost of an attempt or, if billed by time, its maximum; None if the spec cannot be read.

    What has no known price is left out, and the basis says so.
    """
    if view.spec is None:
        return None
    settings = view.connection.sage_maker if view.connection else None
    if settings is not None:
        return _of_instances(view, view.spec, settings)
    price, prices = _price_of_tokens(view), _price_of_answers(view)
    evaluated = checked.evaluation is not None and measuring.is_wanted(view)
    if price is None:
        tuning, answers = f"tuning {view.spec.base_model}", ("its answers to the test set",) if evaluated else ()
        return unknown(view.facts.hosting_currency, tuning, *answers)
    cost = estimate(checked.tokens, view.spec.hyperparameters.epochs, price)
    if checked.evaluation is None or not evaluated:
        return cost
    if prices is None:
        return asking_cost.without(cost, "the evaluation, of which no price is known")
    train = view.run.report.dataset.train if view.run.report and view.run.report.dataset else None
    row_tokens = checked.tokens / train.rows if train and train.rows else 0.0
    versions = evaluation_hosts.compares_versions(view)
    amount = asking_cost.expected(view.spec, checked.evaluation, row_tokens, prices, versions=versions)
    return asking_cost.with_expected(cost, amount, _an_hour(view, cost), checked.evaluation, prices)


def _of_instances(view: JobView, spec: FineTuneJobSpec, settings: SageMaker) -> Cost:
    sku, facts = instance_type(spec, settings), view.facts
    per_hour = facts.price_per_hour(spec.base_model, sku)
    if per_hour is None:
        return unknown(facts.hosting_currency, f"an hour of {sku}")
    return longest_time(facts, sku, per_hour, longest_seconds(spec, settings), spec.resources.nodes)


def unpriced(view: JobView) -> Failure | None:  # noqa: PLR0911 - a table
    """Why the budget cannot be enforced: some price of the job is not known in the budget's currency."""
    spec, connection = view.spec, view.connection
    if spec is None or spec.budget is None or spec.adopt is not None or connection is None:
        return None
    facts, currency = view.facts, spec.budget.currency
    price, answers = _price_of_tokens(view), _price_of_answers(view)
    if connection.sage_maker is not None:
        sku = instance_type(spec, connection.sage_maker)
        known = facts.price_per_hour(spec.base_model, sku) is not None and facts.hosting_currency == currency
        return None if known else _no_price_of(f"an hour of {sku}", view)
    if price is None or price.currency != currency:
        return _no_price_of(f"tuning {spec.base_model}", view)
    if spec.dataset.test is None or connection.provider not in measuring.MEASURED_AT:
        return None
    if answers is None:
        return _no_price_of(f"asking {spec.base_model}", view)
    hour = evaluation_hosts.price_of_an_hour(view)
    if hour is None or (hour and facts.hosting_currency != currency):
        return _no_price_of("an hour of the evaluation's deployments", view)
    return None


def _no_price_of(what: str, view: JobView) -> Failure:
    currency = view.spec.budget.currency if view.spec and view.spec.budget else ""
    failure = Failure.because(Reason.PRICE_UNKNOWN, f"spec.budget: no price of {what} in {currency} is known")
    step = (
        f"Ask an admin to add it to {view.facts.where}, and set spec.retryNonce when the operator has read it, two "
        "minutes later; or apply the job under a new name without budget."
    )
    return failure.model_copy(update={"next_step": step})


def over_budget(view: JobView, cost: Cost | None) -> Failure | None:
    """Checks the budget again after the pod did, before it sent data: a pod's report must not decide what is paid."""
    budget = view.spec.budget if view.spec else None
    refusal = unpriced(view)
    if refusal is not None or budget is None or cost is None or not exceeds(cost, budget.max_cost):
        return refusal
    figures = f"the estimate of {cost.estimated} {cost.currency} is above maxCost {budget.max_cost}"
    return Failure.because(Reason.BUDGET_EXCEEDED, f"spec.budget: {figures}: {cost.basis}")


def with_bill(view: JobView) -> Cost | None:
    """The cost in status with what the provider has billed, as far as known, for this attempt and earlier ones."""
    cost = view.status.cost
    if cost is None or view.spec is None:
        return cost
    bill = _bill(view, view.spec, cost.model_copy(update={"actual": None}))
    if bill.actual is None:
        return bill.model_copy(update={"actual": cost.actual})
    return bill.model_copy(update={"actual": in_cents(Decimal(bill.actual) + Decimal(cost.earlier or "0"))})


def _bill(view: JobView, spec: FineTuneJobSpec, cost: Cost) -> Cost:
    """The bill of this attempt only."""
    settings = view.connection.sage_maker if view.connection else None
    if settings is not None:
        per_hour = view.facts.price_per_hour(spec.base_model, instance_type(spec, settings))
        seconds = view.run.billed_seconds  # of each instance
        if per_hour is None or seconds is None or cost.estimated is None:
            return cost
        return billed_time(cost, per_hour, seconds * spec.resources.nodes)
    result = (view.run.report and view.run.report.result) or view.status.result
    price, tokens = _price_of_tokens(view), result.tokens if result else view.run.billed_tokens
    if price is not None and tokens is not None and price.currency == cost.currency and cost.estimated is not None:
        cost = billed(cost, tokens, price)
    prices, evaluation = _price_of_answers(view), view.provider.evaluation
    answers = asking_cost.spent(evaluation, prices) if prices else Decimal(0)
    in_currency = view.facts.hosting_currency == cost.currency
    hosting = evaluation_hosts.cost(evaluation, view.now) if in_currency else Decimal(0)
    return asking_cost.with_spent(cost, answers, hosting)


def left_behind(view: JobView) -> Cost | None:
    """The cost when another attempt follows: what was billed for this one remains part of the job's cost.

    If the attempt was still at work a moment ago, what is known of it is not its whole bill.
    """
    cost = view.status.cost if view.run.state in {"Queued", "Active"} else with_bill(view)
    if cost is None:
        return None
    earlier, unknown = cost.actual, cost.unknown_attempts
    if earlier is None:
        known = Decimal(cost.earlier or "0") + Decimal(cost.hosting or "0")
        earlier, unknown = in_cents(known) if known else None, (unknown or 0) + 1
    fields = {"earlier": earlier, "unknown_attempts": unknown, "actual": None, "hosting": None}
    return cost.model_copy(update=fields)


def after(before: Cost | None, cost: Cost | None) -> Cost | None:
    """Expected cost of an attempt, with the cost of earlier attempts."""
    if before is None or cost is None:
        return cost
    cost = cost.model_copy(update={"unknown_attempts": before.unknown_attempts})
    if before.earlier is None or before.currency == cost.currency:
        return cost.model_copy(update={"earlier": before.earlier})
    return asking_cost.without(cost, f"earlier attempts, {before.earlier} {before.currency}")


def _an_hour(view: JobView, cost: Cost) -> Decimal | None:
    """Hourly price of the evaluation's deployments; None if it is not known in the cost's currency."""
    price = evaluation_hosts.price_of_an_hour(view)
    return price if not price or view.facts.hosting_currency == cost.currency else None


def _price_of_answers(view: JobView) -> AnswerPrices | None:
    """Only if it is in the currency of the training price: a cost has one currency."""
    facts = view.facts.model(view.spec.base_model) if view.spec else None
    if facts is None or facts.answers is None or facts.training is None:
        return None
    return facts.answers if facts.answers.currency == facts.training.currency else None


def _price_of_tokens(view: JobView) -> Price | None:
    return view.facts.model(view.spec.base_model).training if view.spec else None
