"""What a connection allows."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_api import policy
from finetune_api.connection import LabelSelector, LLMConnectionSpec
from finetune_api.reasons import Reason
from tests.unit.finetune_operator.decide.given import (
    connection,
    job_spec,
    openai_connection,
    sagemaker_connection,
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


CACHED = connection({"modelCache": {"volume": {"persistentVolumeClaim": {"claimName": "cache"}}}})


@pytest.mark.parametrize(
    ("name", "where", "said"),
    [
        ("a/b", connection(), None),
        ("b", connection(), None),
        ("a/b/c", CACHED, None),
        ("a/b/c", connection(), "no model of a hub is called 'a/b/c', and LLMConnection local has no model cache"),
        ("a/b@main", CACHED, "'a/b@main' is not a name of a model"),
        ("a/b:latest", connection(), "'a/b:latest' is not a name of a model"),
        ("huggingface.co/a/b/tree/main", CACHED, "'huggingface.co/a/b/tree/main' is not a name of a model"),
        ("a/b@main", sagemaker_connection(), "'a/b@main' is not a name of a model"),
        ("accounts/a/models/b", openai_connection(), None),
        ("ft:gpt:org::id", openai_connection(), None),
    ],
)
def test_what_no_hub_and_no_cache_can_have_is_refused_before_a_pod_is_made(
    name: str, where: LLMConnectionSpec, said: str | None
) -> None:
    """A GPU would be waited for, and an image of gigabytes pulled, to say that a revision is no part of a name."""
    found = policy.refusal_of(job_spec(baseModel=name), where)
    assert (found.message if found else None) == (said and f"spec.baseModel: {said}")
    assert found is None or (found.reason, "under a new name" in (found.next_step or "")) == (Reason.SPEC_INVALID, True)


def test_the_page_of_a_model_is_answered_with_its_name() -> None:
    found = policy.refusal_of(job_spec(baseModel="huggingface.co/a/b/tree/main"), connection())
    assert found is not None
    assert (found.next_step or "").startswith("Write a/b, without the hub's host.")


@pytest.mark.parametrize(("model", "told"), [("huggingfacetb/smol", True), ("other/smol", False)])
def test_a_model_that_differs_from_what_is_allowed_in_capital_letters_alone_is_told_so(model: str, told: bool) -> None:
    allowed = connection(fineTuning={"allowedModels": ["HuggingFaceTB/*"]}, namespaceSelector={})
    refusal = policy.refusal(policy.Request(job_spec(baseModel=model), "team-a", {}, allowed))
    assert refusal is not None
    assert refusal.reason is Reason.MODEL_NOT_ALLOWED
    assert ("names are case-sensitive" in refusal.message) is told


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
        "base_model_name_is_valid",
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
            assert f"{called.partition(' ')[0]} out of evaluation" in (refusal.next_step or "")


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
