"""Keeps a FineTuneJob's status within its size limit by shortening the least useful parts first."""

from collections.abc import Callable
from typing import Any

import orjson

from finetune_api.job_status import Failure, FineTuneJobStatus, Loss, TrainingResult
from finetune_api.trainer import thin
from finetune_api.verdict import SPLITS, DatasetVerdict, SharedRows, SplitVerdict
from finetune_api.words import cut

LIMIT_BYTES = 60 * 1024
"""A status stays under 64 KiB; the rest is for what is added after a decision."""


def fit(status: FineTuneJobStatus) -> FineTuneJobStatus:
    """The status, shortened step by step until it fits."""
    for shorten in STEPS:
        if len(orjson.dumps(status.wire())) <= LIMIT_BYTES:
            return status
        status = shorten(status)
    return status


def _fewer_problems(status: FineTuneJobStatus) -> FineTuneJobStatus:
    return _with_dataset(status, lambda verdict: _shortened(verdict, problems=5, warnings=4, text=4096))


def _no_old_log(status: FineTuneJobStatus) -> FineTuneJobStatus:
    provider, result = status.provider, status.result
    if result is not None:
        failure = _without_log(result.evaluation_failure)
        status = status.model_copy(update={"result": result.model_copy(update={"evaluation_failure": failure})})
    if provider is None:
        return status
    evaluation = provider.evaluation
    if evaluation is not None:
        evaluation = evaluation.model_copy(update={"failure": _without_log(evaluation.failure)})
    return status.with_provider(last_failure=_without_log(provider.last_failure), evaluation=evaluation)


def _without_log(failure: Failure | None) -> Failure | None:
    return failure and failure.model_copy(update={"log_tail": None, "message": cut(failure.message, 512)})


def _thinner_curves(status: FineTuneJobStatus) -> FineTuneJobStatus:
    loss = status.loss
    if loss is None:
        return status
    return status.model_copy(update={"loss": Loss(train=thin(loss.train, 20), validation=thin(loss.validation, 20))})


def _shorter_texts(status: FineTuneJobStatus) -> FineTuneJobStatus:
    conditions = [c.model_copy(update={"message": cut(c.message, 512)}) for c in status.conditions or ()]
    failure = _short_failure(status.failure) if status.failure else None
    result = status.result and _short_result(status.result)
    return status.model_copy(update={"conditions": conditions, "failure": failure, "result": result})


def _short_result(result: TrainingResult) -> TrainingResult:
    failure = result.evaluation_failure
    if failure is not None:
        failure = failure.model_copy(update={"message": cut(failure.message, 256), "next_step": None})
    warnings = result.warnings and result.warnings[:1]
    return result.model_copy(update={"evaluation_failure": failure, "warnings": warnings})


def _short_failure(failure: Failure) -> Failure:
    log_tail = failure.log_tail[-1024:] if failure.log_tail else None
    return failure.model_copy(update={"message": cut(failure.message, 1024), "log_tail": log_tail})


def _no_problems(status: FineTuneJobStatus) -> FineTuneJobStatus:
    return _with_dataset(status, lambda verdict: _shortened(verdict, problems=0, warnings=0, text=1024))


def _compact_evaluation(status: FineTuneJobStatus) -> FineTuneJobStatus:
    return status.model_copy(update={"evaluation": status.evaluation.compact()}) if status.evaluation else status


STEPS: tuple[Callable[[FineTuneJobStatus], FineTuneJobStatus], ...] = (
    _fewer_problems,
    _no_old_log,
    _thinner_curves,
    _shorter_texts,
    _no_problems,
    _compact_evaluation,
)


def _with_dataset(status: FineTuneJobStatus, shorten: Callable[[DatasetVerdict], DatasetVerdict]) -> FineTuneJobStatus:
    return status.model_copy(update={"dataset": shorten(status.dataset)}) if status.dataset else status


def _shortened(verdict: DatasetVerdict, *, problems: int, warnings: int, text: int) -> DatasetVerdict:
    """With fewer rows listed one by one. The counts stay."""
    fields: dict[str, Any] = {
        "message": cut(verdict.message, text),
        "warnings": verdict.warnings[:warnings],
        "shared_rows": [_short_shared(shared, problems) for shared in verdict.shared_rows],
    }
    for name in SPLITS:
        split: SplitVerdict | None = getattr(verdict, name)
        if split is not None:
            fields[name] = split.model_copy(update={"problems": split.problems[:problems]})
    return verdict.model_copy(update=fields)


def _short_shared(shared: SharedRows, examples: int) -> SharedRows:
    return shared.model_copy(update={"examples": shared.examples[:examples]})
