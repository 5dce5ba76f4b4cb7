"""The termination message: any report in the kubelet's 4096 bytes, and read back as a report."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.base import ApiModel
from finetune_api.evaluation import (
    ENDPOINTS,
    FIELD_OF_METRIC,
    METRICS,
    ActiveVersionScores,
    Baselines,
    Compared,
    Differences,
    EndpointScores,
    EvaluationResult,
    FewShotScores,
    Interval,
    Judged,
    Scores,
    TokensPerAnswer,
)
from finetune_api.job_status import ArtifactRef, Failure, Loss, LossPoint, Progress, TrainingResult
from finetune_api.names import TERMINATION_MESSAGE_MAX_BYTES
from finetune_api.reasons import Reason
from finetune_api.trainer import Report, read_termination_message, termination_message, thin
from finetune_api.verdict import DatasetVerdict, RowProblem, SplitVerdict

numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)
counts = st.integers(0, 2**53)


def words(limit: int) -> st.SearchStrategy[str]:
    """Any text, long ones and ones whose JSON is six times as long among them."""
    awkward = st.sampled_from(["\x00", '"', "é", "漢", "😀"]).map(lambda letter: letter * limit)
    return st.one_of(st.text(max_size=limit), awkward)


def ascii_words(limit: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"\\'), max_size=limit)


def made(model: type[ApiModel], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(fields).map(lambda values: model(**values))


curves = st.lists(made(LossPoint, step=counts, value=numbers), max_size=100)
problems = made(
    RowProblem, file=words(256), line=counts, field=words(128), problem=st.just("Empty"), message=words(300)
)
splits = made(
    SplitVerdict, file=words(256), format=st.just("JSONLines"), rows=counts, problems=st.lists(problems, max_size=20)
)
verdicts = made(
    DatasetVerdict,
    valid=st.booleans(),
    reason=st.sampled_from(Reason),
    message=words(4096),
    next_step=st.none() | words(1024),
    train=st.none() | splits,
    validation=st.none() | splits,
    warnings=st.lists(words(512), max_size=16),
)
failures = made(
    Failure,
    reason=st.sampled_from(Reason),
    message=words(4096),
    next_step=st.none() | words(1024),
    log_tail=st.none() | words(4096),
    exit_code=st.none() | st.integers(0, 255),
)
results = made(
    TrainingResult,
    artifact=made(ArtifactRef, uri=ascii_words(1024), kind=st.just("Adapter"), sha256=st.just("0" * 64)),
    steps=counts,
    train_loss=st.none() | numbers,
)
evaluations = made(
    EvaluationResult,
    rows=counts,
    tuned=made(Scores, exact_match=numbers),
    baselines=made(Baselines),
    verdict=st.just("Better"),
)
reports = made(
    Report,
    namespace=ascii_words(63),
    name=ascii_words(253),
    uid=ascii_words(64),
    attempt=st.integers(1, 99),
    phase=st.sampled_from(["Succeeded", "Failed", "Interrupted"]),
    progress=st.none() | made(Progress, step=counts, total_steps=counts, epoch=numbers),
    loss=st.none() | made(Loss, train=curves, validation=curves),
    dataset=st.none() | verdicts,
    evaluation=st.none() | evaluations,
    result=st.none() | results,
    failure=st.none() | failures,
)


@settings(max_examples=150, deadline=None)
@given(reports)
def test_every_report_fits_and_says_the_same_of_what_matters(report: Report) -> None:
    text = termination_message(report)
    assert len(text.encode()) <= TERMINATION_MESSAGE_MAX_BYTES
    back = read_termination_message(text)
    assert back is not None
    assert (back.uid, back.attempt, back.phase) == (report.uid, report.attempt, report.phase)
    assert back.result == report.result
    assert back.evaluation == report.evaluation
    assert (back.failure is None) == (report.failure is None)
    if report.failure and back.failure:
        assert back.failure.reason == report.failure.reason
        assert back.failure.exit_code == report.failure.exit_code


@pytest.mark.parametrize("letter", ["\x00", '"', "é", "漢", "😀"])
def test_what_is_doubtful_of_a_result_is_told_in_short_at_least(letter: str) -> None:
    failure = Failure.because(Reason.OUT_OF_MEMORY, letter * 4096).model_copy(update={"next_step": letter * 1024})
    artifact = ArtifactRef(uri="u" * 1024, kind="Adapter", sha256="0" * 64)
    result = TrainingResult(artifact=artifact, steps=9, warnings=[letter * 300] * 2, evaluation_failure=failure)
    text = termination_message(a_report(phase="Succeeded", result=result))
    assert len(text.encode()) <= TERMINATION_MESSAGE_MAX_BYTES
    back = read_termination_message(text)
    assert back is not None
    assert back.result is not None
    assert back.result.evaluation_failure is not None
    assert (back.result.artifact, back.result.steps) == (artifact, 9)
    assert (back.result.evaluation_failure.reason, len(back.result.warnings or [])) == (Reason.OUT_OF_MEMORY, 1)


def a_report(**fields: Any) -> Report:
    return Report(**({"namespace": "a", "name": "b", "uid": "c", "attempt": 1, "phase": "Failed"} | fields))


def test_a_short_report_is_kept_whole() -> None:
    report = a_report(failure=Failure(reason=Reason.TRAINER_CRASHED, message="m", log_tail="t", next_step="n"))
    assert read_termination_message(termination_message(report)) == report


def test_long_curves_keep_their_ends_and_the_words_stay() -> None:
    points = [LossPoint(step=step, value=step / 7) for step in range(100)]
    failure = Failure(reason=Reason.TRAINER_CRASHED, message="why", next_step="what to do")
    back = read_termination_message(
        termination_message(a_report(loss=Loss(train=points, validation=points), failure=failure))
    )
    assert back is not None
    assert back.failure == failure
    assert back.loss is not None
    assert (back.loss.train[0], back.loss.train[-1], len(back.loss.train)) == (points[0], points[-1], 10)


def test_of_the_largest_evaluation_the_deciding_numbers_are_left() -> None:
    every = dict.fromkeys(FIELD_OF_METRIC.values(), 0.123456) | {"loss": 1234.567891, "perplexity": 123456.789012}
    intervals = Differences(**dict.fromkeys(FIELD_OF_METRIC.values(), Interval(low=-0.123456, high=0.123456)))
    judged = Judged(wins=10**9, ties=10**9, losses=10**9, errors=10**9, verdict="NoDifference")
    same: dict[str, Any] = every | {
        "verdict": "NoDifference", "difference": intervals, "problem": "x" * 300, "judged": judged,
    }  # fmt: skip
    evaluation = EvaluationResult(
        rows=10**9,
        metric=METRICS[-1],
        tuned=Scores(**every),
        baselines=Baselines(
            zero_shot=Compared(**same),
            few_shot=FewShotScores(**same, examples=63.21),
            active_version=ActiveVersionScores(**same, version=10**6),
            endpoints=[
                EndpointScores(**same, name=str(number) * 40, rows=10**9, errors=10**9) for number in range(ENDPOINTS)
            ],
        ),
        verdict="NoDifference",
        tokens_per_answer=TokensPerAnswer(tuned=12345.67, few_shot=12345.67, saved=0.1234),
        test_sha256="0" * 64,
    )
    failure = Failure(reason=Reason.TRAINER_CRASHED, message="m" * 800)
    text = termination_message(a_report(evaluation=evaluation, failure=failure))
    assert len(text.encode()) <= TERMINATION_MESSAGE_MAX_BYTES
    back = read_termination_message(text)
    assert back is not None
    assert back.evaluation == evaluation.compact()
    assert back.evaluation.tuned.json_fields == evaluation.tuned.json_fields
    assert [one.verdict for one in back.evaluation.baselines.all()] == ["NoDifference"] * 7


def test_a_long_log_goes_before_the_message_does() -> None:
    failure = Failure(reason=Reason.TRAINER_CRASHED, message="why", log_tail="x" * 4096)
    back = read_termination_message(termination_message(a_report(failure=failure)))
    assert back is not None
    assert back.failure is not None
    assert (back.failure.message, back.failure.log_tail) == ("why", None)


@pytest.mark.parametrize("text", ["", "Traceback (most recent call last):", '{"namespace": "a"}', "[1, 2]", '{"na'])
def test_what_is_no_report_is_none(text: str) -> None:
    assert read_termination_message(text) is None


@pytest.mark.parametrize(
    ("count", "limit", "expected"),
    [(3, 5, [0, 1, 2]), (5, 5, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (100, 2, [0, 99]), (0, 3, [])],
)
def test_thinning_keeps_the_ends_and_spreads_the_rest(count: int, limit: int, expected: list[int]) -> None:
    assert thin(list(range(count)), limit) == expected


HEAD = '"namespace":"a","name":"b","uid":"c","attempt":1,"phase":"Succeeded"'
FIVE = ",".join(['{"name":"mlflow"}'] * 5)
RESULT = '"result":{"artifact":{"uri":"pvc://m/x"},"steps":5}'


@pytest.mark.parametrize(
    "figures",
    [
        '"progress":{"step":1,"totalSteps":2,"epoch":NaN}',
        '"progress":{"step":1,"totalSteps":2,"tokensPerSecond":1e999}',
        '"progress":{"step":99999999999999999999,"totalSteps":2}',
        '"loss":{"train":[{"step":1,"value":-Infinity}]}',
    ],
)
def test_a_figure_that_no_status_could_hold_is_left_out_and_the_result_stays(figures: str) -> None:
    report = read_termination_message(f"{{{HEAD},{figures},{RESULT}}}")
    assert report is not None
    assert (report.loss, report.progress) == (None, None)
    assert report.result is not None


@pytest.mark.parametrize(
    "odd",
    [
        '"progress":{"step":1,"totalSteps":2,"updatedAt":"2026-01-31 12:00:00+00:00"}',
        '"progress":{"step":1,"totalSteps":2,"updatedAt":"20260131T120000Z"}',
        f'"trackers":[{FIVE}]',
    ],
)
def test_a_report_with_what_no_status_takes_is_none(odd: str) -> None:
    assert read_termination_message(f"{{{HEAD},{odd},{RESULT}}}") is None


def test_a_result_with_such_a_figure_is_none() -> None:
    broken = RESULT.replace('"steps":5', '"steps":5,"trainLoss":NaN')
    assert read_termination_message(f"{{{HEAD},{broken}}}") is None
