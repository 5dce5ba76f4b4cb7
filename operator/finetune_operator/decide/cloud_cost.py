"""What a job at a provider costs: by its tokens or, at SageMaker, by an instance's time. Pure; estimates, no bills."""

from decimal import Decimal

from finetune_api.aws import SageMaker
from finetune_api.catalogue import AnswerPrices, Price, billed, billed_time, estimate, exceeds, longest_time
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Cost, Failure
from finetune_api.reasons import Reason
from finetune_api.trainer import Checked
from finetune_operator.decide import asking_cost, evaluation_hosts, measuring
from finetune_operator.decide.job_view import JobView

LONGEST_RUN_SECONDS = 2419200
"""28 days, as long as any job of SageMaker."""


def instance_type(spec: FineTuneJobSpec, settings: SageMaker) -> str:
    """What a job at SageMaker runs on."""
    return spec.resources.instance_type or settings.instance_types[0]


def longest_seconds(spec: FineTuneJobSpec, settings: SageMaker) -> int:
    """When SageMaker stops a job by itself."""
    return min(spec.active_deadline_seconds or settings.max_runtime_seconds, LONGEST_RUN_SECONDS)


def expected(view: JobView, checked: Checked) -> Cost | None:
    """What an attempt is likely to cost or, by time, costs at most; None where no price is known.

    What has no price that is known is not in it, and its basis says so.
    """
    if view.spec is None:
        return None
    settings = view.connection.sage_maker if view.connection else None
    if settings is not None:
        sku, facts, count = instance_type(view.spec, settings), view.facts, view.spec.resources.nodes
        per_hour = facts.price_per_hour(view.spec.base_model, sku)
        return longest_time(facts, sku, per_hour, longest_seconds(view.spec, settings), count) if per_hour else None
    price = _price_of_tokens(view)
    cost = estimate(checked.tokens, view.spec.hyperparameters.epochs, price) if price else None
    prices = _price_of_answers(view)
    if cost is None or checked.evaluation is None or not measuring.is_wanted(view):
        return cost
    if prices is None:
        return asking_cost.without(cost, "the evaluation, of which no price is known")
    train = view.run.report.dataset.train if view.run.report and view.run.report.dataset else None
    row_tokens = checked.tokens / train.rows if train and train.rows else 0.0
    versions = evaluation_hosts.compares_versions(view)
    amount = asking_cost.expected(view.spec, checked.evaluation, row_tokens, prices, versions=versions)
    return asking_cost.with_expected(cost, amount, _an_hour(view, cost), checked.evaluation, prices)


def over_budget(view: JobView, cost: Cost | None, checked: Checked) -> Failure | None:
    """The pod has refused what it could before it sent anything; a pod's word is not what money is spent on."""
    if view.spec is None or view.spec.budget is None:
        return None
    budget = view.spec.budget
    if cost is None or cost.currency != budget.currency:
        settings = view.connection.sage_maker if view.connection else None
        what = f"an hour of {instance_type(view.spec, settings)}" if settings else f"tuning {view.spec.base_model}"
        message = f"spec.budget: no price of {what} in {budget.currency} is known"
        return Failure.because(Reason.PRICE_UNKNOWN, message)
    prices = _price_of_answers(view)
    if checked.evaluation is not None and measuring.is_wanted(view) and prices is None:
        message = f"spec.budget: no price of asking {view.spec.base_model} in {budget.currency} is known"
        return Failure.because(Reason.PRICE_UNKNOWN, message)
    if measuring.is_wanted(view) and _an_hour(view, cost) is None:
        message = f"spec.budget: no price of an hour of the evaluation's deployments in {budget.currency} is known"
        return Failure.because(Reason.PRICE_UNKNOWN, message)
    if not exceeds(cost, budget.max_cost):
        return None
    figures = f"the estimate of {cost.estimated} {cost.currency} is above maxCost {budget.max_cost}"
    return Failure.because(Reason.BUDGET_EXCEEDED, f"spec.budget: {figures}: {cost.basis}")


def with_bill(view: JobView) -> Cost | None:
    """The cost in status with what the provider has billed, as far as it says."""
    cost, report = view.status.cost, view.run.report
    if cost is None or view.spec is None:
        return cost
    settings = view.connection.sage_maker if view.connection else None
    if settings is not None:
        per_hour = view.facts.price_per_hour(view.spec.base_model, instance_type(view.spec, settings))
        seconds = view.run.billed_seconds  # of each instance
        if per_hour is None or seconds is None:
            return cost
        return billed_time(cost, per_hour, seconds * view.spec.resources.nodes)
    result = (report and report.result) or view.status.result
    price, tokens = _price_of_tokens(view), result.tokens if result else None
    if price is None or tokens is None or price.currency != cost.currency:
        return cost
    prices = _price_of_answers(view)
    asked = asking_cost.spent(view.provider.evaluation, prices) if prices else Decimal(0)
    if view.facts.hosting_currency == cost.currency:
        asked += evaluation_hosts.cost(view.provider.evaluation, view.now)
    return asking_cost.with_spent(billed(cost, tokens, price), asked)


def _an_hour(view: JobView, cost: Cost) -> Decimal | None:
    """Of the deployments that the evaluation needs; None where that is not known in the cost's currency."""
    price = evaluation_hosts.price_of_an_hour(view)
    return price if not price or view.facts.hosting_currency == cost.currency else None


def _price_of_answers(view: JobView) -> AnswerPrices | None:
    """In the currency of the training's price: one figure cannot have two."""
    facts = view.facts.model(view.spec.base_model) if view.spec else None
    if facts is None or facts.answers is None or facts.training is None:
        return None
    return facts.answers if facts.answers.currency == facts.training.currency else None


def _price_of_tokens(view: JobView) -> Price | None:
    return view.facts.model(view.spec.base_model).training if view.spec else None
