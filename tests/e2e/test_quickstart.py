"""The quickstart as a user plays it: a real pretrained model, real human-rated data, and better answers afterwards."""

import json

import pytest

from tests.cluster import Cluster
from tests.e2e.conftest import Demo


@pytest.fixture(scope="module")
def said(demo: Demo) -> str:
    """What the demo has said when it is over."""
    demo.process.wait(900)
    return demo.said.read_text(encoding="utf-8")


def test_the_demo_plays_to_its_end_and_shows_both_losses(demo: Demo, said: str) -> None:
    assert demo.process.returncode == 0, said[-6000:]
    for word in ("Validating", "Running", "Evaluating", "Succeeded", "curl"):
        assert word in said


@pytest.mark.usefixtures("said")
def test_the_tuned_model_is_much_better_than_its_base_on_tweets_it_has_not_seen(operator: Cluster) -> None:
    jobs = operator.get("-n", "quickstart", "ftj")["items"]
    newest = max(jobs, key=lambda job: job["metadata"]["creationTimestamp"])
    status = newest["status"]
    evaluation = status["evaluation"]
    assert evaluation["verdict"] == "Better", json.dumps(evaluation)
    assert evaluation["tuned"]["exactMatch"] >= 0.65
    base = evaluation["baselines"]["zeroShot"]
    assert base["exactMatch"] <= 0.45
    assert base["difference"]["exactMatch"]["low"] > 0
    assert evaluation["tuned"]["perplexity"] < base["perplexity"]
    first, last = status["loss"]["validation"][0]["value"], status["loss"]["validation"][-1]["value"]
    assert last < first
    assert status["loss"]["train"]


def test_the_deployed_model_answers_with_a_label(said: str) -> None:
    answered = said.rpartition("answered:")[2]
    assert answered.split()[0].strip(".").lower() in {"positive", "negative", "neutral"}
