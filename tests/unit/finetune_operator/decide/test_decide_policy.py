"""What a connection allows, its own status, and the size of a job's status."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from finetune_api.connection import LabelSelector, LLMConnectionSpec, LLMConnectionStatus
from finetune_api.job_status import Failure, FineTuneJobStatus, Loss, LossPoint, ProviderEvaluation, ProviderStatus
from finetune_api.reasons import Reason
from finetune_api.verdict import DatasetVerdict
from finetune_operator.decide import connection as decide_connection
from finetune_operator.decide import policy
from finetune_operator.decide.conditions import Fact, merge
from finetune_operator.decide.connection import Checked
from finetune_operator.decide.job.status_size import LIMIT_BYTES, fit
from tests.contract.statuses import EVALUATION
from tests.unit.finetune_operator.decide.given import (
    NOW,
    at,
    bedrock_connection,
    condition,
    connection,
    job_spec,
    kstatus,
    openai_connection,
    sagemaker_connection,
    stamp,
)


def selector(labels: dict[str, str] | None = None, *expressions: tuple[str, str, list[str] | None]) -> LabelSelector:
    found = [{"key": key, "operator": operator, "values": values} for key, operator, values in expressions]
    return LabelSelector.model_validate({"matchLabels": labels, "matchExpressions": found or None})


@pytest.mark.parametrize(
    ("chosen", "matches"),
    [
        (None, False),
        (selector(), True),
        (selector({"team": "a"}), True),
        (selector({"team": "b"}), False),
        (selector({"team": "a", "tier": "x"}), False),
        (selector(None, ("team", "In", ["a", "b"])), True),
        (selector(None, ("team", "In", ["b"])), False),
        (selector(None, ("tier", "In", ["x"])), False),
        (selector(None, ("team", "NotIn", ["b"])), True),
        (selector(None, ("team", "NotIn", ["a"])), False),
        (selector(None, ("tier", "NotIn", ["x"])), True),
        (selector(None, ("team", "Exists", None)), True),
        (selector(None, ("tier", "Exists", None)), False),
        (selector(None, ("tier", "DoesNotExist", None)), True),
        (selector(None, ("team", "DoesNotExist", None)), False),
        (selector({"team": "a"}, ("tier", "Exists", None)), False),
    ],
)
def test_label_selectors_match_as_in_meta_v1(chosen: LabelSelector | None, matches: bool) -> None:
    assert policy.selects(chosen, {"team": "a"}) is matches


@pytest.mark.parametrize(
    ("globs", "model", "allowed"),
    [
        (None, "a/b", True),
        ([], "a/b", False),
        (["a/*"], "a/b", True),
        (["a/*"], "ab/c", False),
        (["*"], "a/b", True),
        (["a/b"], "a/b", True),
        (["A/b"], "a/b", False),
        (["x/*", "a/b*"], "a/b-7B", True),
        (["a/b-?B"], "a/b-7B", True),
    ],
)
def test_globs_of_models(globs: list[str] | None, model: str, allowed: bool) -> None:
    assert policy.model_allowed(globs, model) is allowed


CODE = {"configMapRef": {"name": "my-recipe", "key": "train.py"}}


@pytest.mark.parametrize(
    ("code", "chosen", "reason"),
    [
        (CODE, connection(), Reason.CODE_NOT_ALLOWED),
        (CODE, connection(fineTuning={"allowCode": True}), None),
        (None, connection(), None),
        (CODE, openai_connection(), Reason.PROVIDER_NOT_SUPPORTED),
        (CODE, sagemaker_connection(), Reason.CODE_NOT_ALLOWED),
        (CODE, sagemaker_connection(allowCode=True), None),
    ],
)
def test_own_code_runs_where_an_admin_has_said_so(
    code: dict[str, Any] | None, chosen: LLMConnectionSpec, reason: Reason | None
) -> None:
    refusal = policy.refusal(policy.Request(job_spec(code=code), "team-a", {"team": "a"}, chosen))
    assert (refusal.reason if refusal else None) == reason
    if refusal and reason is Reason.CODE_NOT_ALLOWED:
        assert "spec.code" in refusal.message
        assert "fineTuning.allowCode" in str(refusal.next_step)
    if reason is Reason.PROVIDER_NOT_SUPPORTED:
        assert refusal is not None
        assert "huggingFace or sageMaker block" in str(refusal.next_step), "openAI's own is not the way out"


def test_who_may_not_use_a_connection_learns_nothing_about_it() -> None:
    closed = connection(namespaceSelector=None, fineTuning={"enabled": False, "allowedModels": ["secret/model"]})
    refusal = policy.refusal(policy.Request(job_spec(), "team-a", {}, closed))
    assert refusal is not None
    assert refusal.reason is Reason.NAMESPACE_NOT_ALLOWED
    assert "secret" not in refusal.message
    assert refusal.next_step


def test_the_order_of_the_checks() -> None:
    assert [check.__name__ for check in policy.CHECKS] == [
        "namespace_may_use",
        "fine_tuning_is_on",
        "base_model_is_allowed",
        "code_is_allowed",
        "fields_fit_the_provider",
        "endpoints_are_allowed",
        "pushes_are_possible",
    ]


AIR_GAPPED = {"airGapped": True, "modelCache": {"volume": {"emptyDir": {}}}}


@pytest.mark.parametrize(
    ("url", "air_gapped", "globs", "allowed"),
    [
        ("https://api.example.com/v1", False, None, True),
        ("https://api.example.com/v1", True, None, False),
        ("https://api.example.com/v1", True, ["https://api.example.com/*"], True),
        ("https://api.example.com", True, ["https://api.example.com/*"], True),
        ("https://api.example.com.evil.org/v1", True, ["https://api.example.com/*"], False),
        ("https://api.example.com/v1", False, ["https://other.example.com/*"], False),
        ("https://api.example.com/v1", False, [], False),
        ("http://rag.team-b.svc/v1", True, None, True),
        ("http://rag.team-b.svc.cluster.local:8000/v1", True, None, True),
        ("http://rag.svc/v1", True, [], True),
        ("https://rag.svc.evil.org/v1", True, None, False),
        ("https://evil.org/rag.team-b.svc/v1", True, None, False),
    ],
)
def test_where_a_test_set_may_be_sent_to(url: str, air_gapped: bool, globs: list[str] | None, allowed: bool) -> None:
    endpoint = {"endpoint": {"name": "rag", "url": url, "model": "m"}}
    limits = connection(AIR_GAPPED if air_gapped else None, fineTuning={"allowedEndpoints": globs})
    for evaluation, called in (
        ({"baselines": [{"zeroShot": {}}, endpoint]}, "endpoint rag"),
        ({"judge": {"url": url, "model": "m"}}, "judge"),
    ):
        refusal = policy.refusal(policy.Request(job_spec(evaluation=evaluation), "team-a", {}, limits))
        assert (refusal is None) is allowed
        if refusal is not None:
            assert refusal.reason is Reason.ENDPOINT_NOT_ALLOWED
            assert f"spec.evaluation: {called} is outside the cluster" in refusal.message


@pytest.mark.parametrize(
    ("spec", "reason", "for_tools"),
    [
        (connection(), "Ready", "Current"),
        (connection(namespaceSelector=None), "Ready", "Current"),
        (connection(fineTuning={"enabled": False}), "FineTuningDisabled", "Current"),
        (bedrock_connection(), "ProviderNotSupported", "Failed"),
        (None, "SpecInvalid", "Failed"),
    ],
)
def test_the_status_of_a_connection(spec: LLMConnectionSpec | None, reason: str, for_tools: str) -> None:
    status = decide_connection.decide(spec, "spec.x: wrong", LLMConnectionStatus(), generation=3, now=NOW)
    assert condition(status, "Ready").reason == reason
    assert kstatus(status, 3) == for_tools
    assert decide_connection.decide(spec, "spec.x: wrong", status, generation=3, now=at(60)) == status


CHECKS = {
    "good": (Checked(), "Ready", "True"),
    "bad": (Checked(Failure.because(Reason.CREDENTIALS_INVALID, "the key is refused")), "CredentialsInvalid", "False"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_status_of_a_connection_to_a_provider_follows_the_check_of_its_credentials(name: str) -> None:
    checked, reason, state = CHECKS[name]
    status = decide_connection.decide(
        openai_connection(), "", LLMConnectionStatus(), generation=1, now=NOW, checked=checked, retires="it closes"
    )
    ready = condition(status, "Ready")
    assert (ready.reason, ready.status, status.last_checked) == (reason, state, stamp())
    assert condition(status, "Retiring").message == "it closes"
    later = decide_connection.decide(openai_connection(), "", status, generation=1, now=NOW, checked=checked)
    assert (condition(later, "Retiring").status, condition(later, "Ready")) == ("False", ready)
    wait = decide_connection.check_is_due(status, generation=1, now=at(50))
    assert wait == (3550 if state == "True" else 10)
    assert decide_connection.check_is_due(status, generation=2, now=at(50)) == 0


def test_a_day_that_an_admin_has_put_right_is_not_told_of_any_more() -> None:
    told, checked = LLMConnectionStatus(), Checked()
    for retires, state in (("it closes", "True"), (None, "False"), (None, "False"), ("it closes", "True")):
        told = decide_connection.decide(
            openai_connection(), "", told, generation=1, now=NOW, checked=checked, retires=retires
        )
        said = condition(told, "Retiring")
        assert (said.status, said.message) == (state, retires or "no last day is known")
    unknown = decide_connection.decide(None, "spec.x: wrong", told, generation=2, now=NOW)
    assert condition(unknown, "Retiring").status == "True", "of a spec that cannot be read nothing new is known"


FITTING = {
    "spec.adopt": {"adopt": {"jobID": "j"}},
    "spec.budget": {"budget": {"maxCost": "5"}},
    "spec.hyperparameters.learningRateMultiplier": {"hyperparameters": {"learningRateMultiplier": 2}},
}


@pytest.mark.parametrize("field", FITTING)
def test_what_only_a_provider_can_heed_is_refused_here(field: str) -> None:
    asked = policy.Request(job_spec(**FITTING[field]), "team-a", {}, connection())
    found = policy.refusal(asked)
    assert found is not None
    assert found.reason is Reason.SPEC_INVALID
    assert field in found.message
    assert policy.refusal(replace(asked, connection=openai_connection())) is None


def test_conditions_that_are_not_named_stay() -> None:
    first = merge(
        None, [Fact("Ready", "True", Reason.READY), Fact("Failed", "False", Reason.PENDING)], generation=1, now=NOW
    )
    second = merge(first, [Fact("Ready", "False", Reason.QUEUED, "m" * 5000)], generation=2, now=at(9))
    by_type = {c.type: c for c in second}
    assert by_type["Failed"] == first[1].model_copy(update={"observed_generation": 2})
    ready = by_type["Ready"]
    assert (ready.last_transition_time, ready.observed_generation, len(ready.message)) == (stamp(9), 2, 4096)


def huge(letter: str) -> FineTuneJobStatus:
    """As much of everything as the fields take, in letters of so many bytes."""
    problem = {"file": letter * 256, "line": 1, "field": letter * 128, "problem": "Missing", "message": letter * 300}
    split: dict[str, Any] = {"file": letter * 256, "format": "CSV", "rows": 10**9, "problems": [problem] * 20}
    shared = {"splits": ["train", "test"], "rows": 5, "examples": [letter * 300] * 5}
    verdict = {
        "valid": False,
        "reason": "DatasetInvalid",
        "message": letter * 4096,
        "nextStep": letter * 1024,
        **dict.fromkeys(("train", "validation", "test"), split),
        "sharedRows": [shared] * 3,
        "warnings": [letter * 512] * 16,
    }
    failure = Failure.because(Reason.TRAINER_CRASHED, letter * 4096).model_copy(
        update={"log_tail": letter * 4096, "next_step": letter * 1024}
    )
    points = [LossPoint(step=10**9 + n, value=1.2345678901234567) for n in range(100)]
    kinds = ("Ready", "Reconciling", "Stalled", "DatasetValid", "Complete", "Failed", "Suspended", "Evaluated")
    facts = [Fact(kind, "True", Reason.TRAINER_CRASHED, letter * 4096) for kind in kinds]
    return FineTuneJobStatus(
        conditions=merge(None, facts, generation=1, now=NOW),
        loss=Loss(train=points, validation=points),
        dataset=DatasetVerdict.model_validate(verdict),
        evaluation=EVALUATION,
        failure=failure,
        provider=ProviderStatus(
            last_failure=failure, artifact_uri="u" * 1024, evaluation=ProviderEvaluation(failure=failure)
        ),
    )


@pytest.mark.parametrize("letter", ["x", "é", "語", "🦙", '"'])
def test_the_largest_status_fits_and_is_still_valid(letter: str) -> None:
    before = huge(letter)
    assert len(orjson.dumps(before.wire())) > LIMIT_BYTES
    status = fit(before)
    assert len(orjson.dumps(status.wire())) <= LIMIT_BYTES
    assert FineTuneJobStatus.model_validate(status.wire()) == status
    assert fit(status) == status
    assert status.failure is not None
    assert status.failure.reason is Reason.TRAINER_CRASHED
    assert status.dataset is not None
    assert status.dataset.train is not None
    assert status.dataset.train.rows == 10**9


def test_a_status_that_fits_is_left_as_it_is() -> None:
    status = FineTuneJobStatus(phase="Running", failure=Failure.because(Reason.EVICTED, "x" * 4096))
    assert fit(status) is status


HUB = {"huggingFace": {"repository": "team/a", "tokenSecretRef": {"name": "hub", "key": "token"}}}
REGISTRY = {"oci": {"uri": "oci://registry.internal/team/a:1"}}


@pytest.mark.parametrize(
    ("where", "push", "said"),
    [
        (connection(), HUB | REGISTRY, None),
        (connection(AIR_GAPPED), REGISTRY, None),
        (connection(AIR_GAPPED), HUB, "artifact.push.huggingFace: LLMConnection local is air-gapped"),
        (openai_connection(), REGISTRY, "artifact.push: LLMConnection local keeps its models at the provider"),
        (openai_connection(), None, None),
    ],
)
def test_where_an_artifact_may_be_pushed_to(where: LLMConnectionSpec, push: Any, said: str | None) -> None:
    spec = job_spec(artifact={"push": push})
    found = policy.pushes_are_possible(policy.Request(spec, "team-a", {}, where))
    assert (found is None) if said is None else found is not None and said in found.message
