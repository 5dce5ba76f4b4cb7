"""What it costs to evaluate models at a provider: the maximum number of requests, and their price. Pure."""

from decimal import ROUND_UP, Decimal

from finetune_api.catalogue import AnswerPrices, ModelFacts, TokenPrice
from finetune_api.job import Budget, FineTuneJobSpec
from finetune_api.job_status import Cost, ProviderEvaluation, TokenUsage
from finetune_api.money import in_cents, of_tokens
from finetune_api.trainer import EvaluationSize
from finetune_api.words import counted

SPARE = 8
"""Requests may exceed the need by one in this many, for answers that were lost and are requested again."""


def contestants(spec: FineTuneJobSpec, *, versions: bool) -> int:
    """How often each row of the test set is sent to the provider; `versions`: the active version is compared too."""
    return 1 + spec.evaluation.has("zeroShot") + spec.evaluation.has("fewShot") + versions


def allowance(spec: FineTuneJobSpec, rows: int, evaluation: ProviderEvaluation) -> int:
    """The number of requests to let through: for each pod rows times contestants, and a few for lost answers."""
    once = rows * contestants(spec, versions=evaluation.active_version is not None)
    return evaluation.tries * (once + once // SPARE + SPARE)


def expected(
    spec: FineTuneJobSpec, size: EvaluationSize, row_tokens: float, prices: AnswerPrices, *, versions: bool
) -> Decimal:
    """Expected cost of the answers. `row_tokens`: tokens of a training row, for the few-shot examples."""
    said = size.completion_tokens
    tuned = _of(prices.tuned, size.prompt_tokens, said) * (1 + versions)
    shown = spec.evaluation.few_shot
    zero_shot = _of(prices.base, size.prompt_tokens, said) if spec.evaluation.has("zeroShot") else Decimal(0)
    if shown is None:
        return tuned + zero_shot
    examples = round(size.rows * shown.examples * row_tokens)
    return tuned + zero_shot + _of(prices.base, size.prompt_tokens + examples, said)


def spent(evaluation: ProviderEvaluation | None, prices: AnswerPrices) -> Decimal:
    """Cost of the requests so far, at list price."""
    if evaluation is None:
        return Decimal(0)
    return _asked(evaluation.tuned, prices.tuned) + _asked(evaluation.base, prices.base)


def is_spent(budget: Budget, cost: Cost, trained_tokens: int | None, facts: ModelFacts, asked: Decimal) -> bool:
    """Whether training and answers have used up the budget: by billed tokens, else by the training's estimate."""
    if trained_tokens is not None and facts.training is not None:
        training = of_tokens(trained_tokens, facts.training.per_million_tokens)
    else:
        training = Decimal(cost.estimated or "0") - Decimal(cost.evaluation or "0")
    return training + asked >= Decimal(budget.max_cost)


def with_expected(
    cost: Cost, amount: Decimal, an_hour: Decimal | None, size: EvaluationSize, prices: AnswerPrices
) -> Cost:
    """The estimate plus the evaluation: its answers, and one hour of its deployments if their price is known."""
    basis = (
        f"{cost.basis}; evaluation of {counted(size.rows, 'row')} {in_cents(amount, ROUND_UP)} {prices.currency}, "
        f"list prices of {prices.as_of}"
    )
    if an_hour:
        basis += f", and an hour of its deployments {in_cents(an_hour, ROUND_UP)}"
        amount += an_hour
    whole = in_cents(Decimal(cost.estimated or "0") + amount, ROUND_UP)
    of_it = {"estimated": whole, "evaluation": in_cents(amount, ROUND_UP), "basis": basis[:512]}
    expected = cost.model_copy(update=of_it)
    unknown = "the hours of its deployments, of which no price is known"
    return without(expected, unknown) if an_hour is None else expected


def without(cost: Cost, what: str) -> Cost:
    """The cost with a note of what it does not include: if nothing were said, that would look as if it were free."""
    ending = f"; without {what}"
    return cost.model_copy(update={"basis": cost.basis[: 512 - len(ending)] + ending})


def with_spent(cost: Cost, answers: Decimal, hosting: Decimal) -> Cost:
    """The bill plus the evaluation: its answers, and the hours of its deployments."""
    if hosting:
        cost = cost.model_copy(update={"hosting": in_cents(hosting)})
    if cost.actual is None or not answers + hosting:
        return cost
    return cost.model_copy(update={"actual": in_cents(Decimal(cost.actual) + answers + hosting)})


def _asked(asked: TokenUsage | None, price: TokenPrice) -> Decimal:
    return _of(price, asked.prompt_tokens, asked.completion_tokens) if asked else Decimal(0)


def _of(price: TokenPrice, prompt: int, completion: int) -> Decimal:
    return of_tokens(prompt, price.input) + of_tokens(completion, price.output)
