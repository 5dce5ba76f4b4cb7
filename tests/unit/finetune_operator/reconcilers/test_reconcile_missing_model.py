"""A ModelDeployment of a model that is not there: it says what is awaited, or which names there are."""

import pytest

from finetune_operator.decide.deployment.decision import Alternatives, decide
from finetune_operator.runtime.kube import FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from finetune_operator.runtime.queue import Key
from tests.unit.finetune_operator.decide.deployment.given_deployments import view
from tests.unit.finetune_operator.decide.given import condition
from tests.unit.finetune_operator.reconcilers.fake_cluster import with_running_job

MISSPELT = Key(MODEL_DEPLOYMENTS.kind, "team-a", "mine")

MISSING: dict[str, tuple[Alternatives, str]] = {
    "a job makes it": (
        Alternatives(["tickets"], ["sentiment-1"]),
        "spec.modelRef: FineTunedModel sentiment does not exist yet; it is made when FineTuneJob sentiment-1 succeeds.",
    ),
    "several jobs make it": (
        Alternatives([], ["sentiment-1", "sentiment-2", "sentiment-3"]),
        "spec.modelRef: FineTunedModel sentiment does not exist yet; it is made when FineTuneJob sentiment-1, or "
        "another of 3, succeeds.",
    ),
    "a job would have": (
        Alternatives(["tickets"], [], ["sentiment-2", "sentiment-1"]),
        "spec.modelRef: FineTunedModel sentiment does not exist; FineTuneJob sentiment-1 and 1 more, which would have "
        "made it, failed. See why (kubectl describe ftj sentiment-1), and retry it or apply another; the rest "
        "follows automatically.",
    ),
    "a name that nobody has": (
        Alternatives(["tickets", "sentimnet"], []),
        "spec.modelRef: FineTunedModel sentiment does not exist, and no FineTuneJob that is under way names it in "
        "spec.modelRef; this namespace has sentimnet, tickets. Name a FineTunedModel of this namespace (kubectl get "
        "ftm).",
    ),
    "more names than anybody reads": (
        Alternatives([f"m{n:02}" for n in range(12)], []),
        "spec.modelRef: FineTunedModel sentiment does not exist, and no FineTuneJob that is under way names it in "
        "spec.modelRef; this namespace has m00, m01, m02, m03, m04, m05, m06, m07, m08, m09 and 2 more. Name a "
        "FineTunedModel of this namespace (kubectl get ftm).",
    ),
    "an empty namespace": (
        Alternatives([], []),
        "spec.modelRef: FineTunedModel sentiment does not exist, and no FineTuneJob that is under way names it in "
        "spec.modelRef; this namespace has none. Name a FineTunedModel of this namespace (kubectl get ftm).",
    ),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_model_that_is_not_there_is_told_with_what_is_awaited_or_the_names_there_are(name: str) -> None:
    beside, told = MISSING[name]
    status = decide(view(model=None, beside=beside)).status
    assert condition(status, "Reconciling").message == told


async def test_it_names_the_job_that_makes_the_model_and_else_the_models_of_its_own_namespace() -> None:
    cluster = await with_running_job()
    for namespace, name in (("team-a", "tickets"), ("team-b", "secret")):
        cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": name, "namespace": namespace}, "spec": {}})
    for name, model in (("mine", "sentimnet"), ("awaits", "sentiment")):
        metadata = {"name": name, "namespace": "team-a"}
        cluster.kube.put(MODEL_DEPLOYMENTS, {"metadata": metadata, "spec": {"modelRef": {"name": model}}})
    await cluster.settle()
    awaits = Key(MODEL_DEPLOYMENTS.kind, "team-a", "awaits")
    assert "when FineTuneJob sentiment-1 succeeds" in cluster.condition("Reconciling", awaits)["message"]
    assert "this namespace has tickets." in cluster.condition("Reconciling", MISSPELT)["message"]
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "reviews", "namespace": "team-a"}, "spec": {}})
    await cluster.wait(60)
    assert "this namespace has reviews, tickets." in cluster.condition("Reconciling", MISSPELT)["message"]
    cluster.end_pod(65)
    await cluster.settle()
    await cluster.wait(60)
    assert "FineTuneJob sentiment-1, which would have" in cluster.condition("Reconciling", awaits)["message"]
