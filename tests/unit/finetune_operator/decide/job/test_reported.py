"""What a report says in words: what the trainer does, and whether tuning was worth it."""

from typing import Any

import pytest

from finetune_api.evaluation import EvaluationResult
from finetune_api.job_status import ArtifactRef, Failure, TrainingResult
from finetune_api.memory import MemoryUse
from finetune_api.reasons import Reason
from finetune_api.trainer import Report
from finetune_operator.decide.job.reported import evaluation_facts, in_words
from finetune_operator.decide.job.steps import decide
from tests.unit.finetune_operator.decide.given import condition, report, run, running, verdict, view

MEASURED = "the tuned model was measured on dataset.test"
WHY = "problem in status.evaluation.baselines says why"
SENTENCES: dict[str, tuple[dict[str, Any], str]] = {
    "better than its base": (
        {"verdict": "Better", "baselines": {"zeroShot": {"exactMatch": 0.0}}},
        f"{MEASURED}: Better. exactMatch 0.775 on 1,200 rows, beside zeroShot 0.000",
    ),
    "beside all, one of which could not be asked": (
        {
            "verdict": "NoDifference",
            "baselines": {
                "zeroShot": {"exactMatch": 0.1},
                "fewShot": {"exactMatch": 0.7},
                "activeVersion": {"problem": "there was none"},
                "endpoints": [{"name": "rag", "rows": 9, "exactMatch": 0.8}],
            },
        },
        f"{MEASURED}: NoDifference. exactMatch 0.775 on 1,200 rows, beside zeroShot 0.100, fewShot 0.700, rag 0.800. "
        f"Incomplete: activeVersion (1 of 4 baselines); {WHY}",
    ),
    "beside one that answered too few rows for a verdict": (
        {"baselines": {"endpoints": [{"name": "rag", "rows": 1, "exactMatch": 1.0, "problem": "no verdict by …"}]}},
        f"{MEASURED}. exactMatch 0.775 on 1,200 rows, beside rag 1.000 (no verdict). "
        f"Incomplete: rag (1 of 1 baseline); {WHY}",
    ),
    "beside endpoints that did not answer": (
        {
            "baselines": {
                "zeroShot": {"exactMatch": 0.1},
                "endpoints": [{"name": one, "rows": 0, "errors": 1200, "problem": "HTTP 503"} for one in ("rag", "b")],
            }
        },
        f"{MEASURED}. exactMatch 0.775 on 1,200 rows, beside zeroShot 0.100. "
        f"Incomplete: rag, b (2 of 3 baselines); {WHY}",
    ),
    "without a baseline": ({"baselines": {}}, f"{MEASURED}. exactMatch 0.775 on 1,200 rows"),
    "without the measure": ({"tuned": {}, "baselines": {"zeroShot": {"exactMatch": 0.1}}}, MEASURED),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_the_verdict_is_told_with_the_figures_that_decide_it(name: str) -> None:
    fields, sentence = SENTENCES[name]
    body = {"rows": 1200, "metric": "exactMatch", "tuned": {"exactMatch": 0.775}}
    assert in_words(EvaluationResult.model_validate(body | fields)) == sentence


def test_a_model_that_could_not_be_measured_says_why_and_what_to_do() -> None:
    failure = Failure(reason=Reason.OUT_OF_MEMORY, message="memory was not enough", next_step="Use a larger GPU.")
    result = TrainingResult(artifact=ArtifactRef(), steps=9, evaluation_failure=failure)
    (fact,) = evaluation_facts(Report(namespace="a", name="b", uid="c", attempt=1, phase="Succeeded", result=result))
    assert (fact.type, fact.status, fact.reason) == ("Evaluated", "False", Reason.OUT_OF_MEMORY)
    assert fact.message.startswith(
        "the model was made and is not measured: memory was not enough. Use a larger GPU. The version can be used"
    )
    assert fact.message.endswith("a job under a new name is evaluated again.")


def test_a_large_model_that_is_being_loaded_is_not_told_as_data_that_are_being_read() -> None:
    read = report("Validating", dataset=verdict())
    said = [
        condition(decide(view(run("Active", report=one), running())).status, "Reconciling").message
        for one in (read, read.model_copy(update={"memory": MemoryUse.model_construct(device="GPU")}))
    ]
    assert said == ["the dataset is being read", "the dataset is read, and the base model is being loaded"]
