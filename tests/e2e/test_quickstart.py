"""The quickstart as a user plays it: a real pretrained model, real human-rated data, and better answers afterwards."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import Cluster

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def played(operator: Cluster) -> subprocess.CompletedProcess:
    """`make demo` on the cluster of these tests, to its end."""
    command = [sys.executable, "-m", "demo", "--name", operator.name]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=900, check=False)


def test_the_demo_plays_to_its_end_and_shows_both_losses(played: subprocess.CompletedProcess) -> None:
    assert played.returncode == 0, played.stdout[-3000:] + played.stderr[-3000:]
    for word in ("Validating", "Running", "Evaluating", "Succeeded", "curl"):
        assert word in played.stdout


@pytest.mark.usefixtures("played")
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


def test_the_deployed_model_answers_with_a_label(played: subprocess.CompletedProcess) -> None:
    answered = played.stdout.rpartition("answered:")[2]
    assert answered.split()[0].strip(".").lower() in {"positive", "negative", "neutral"}
