"""What a report says in words: whether tuning was worth it."""

from typing import Any

import pytest

from finetune_api.evaluation import EvaluationResult
from finetune_operator.decide.job.reported import in_words

MEASURED = "the tuned model was measured on dataset.test"
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
        f"{MEASURED}: NoDifference. exactMatch 0.775 on 1,200 rows, beside zeroShot 0.100, fewShot 0.700, rag 0.800",
    ),
    "without a baseline": ({"baselines": {}}, f"{MEASURED}. exactMatch 0.775 on 1,200 rows"),
    "without the measure": ({"tuned": {}, "baselines": {"zeroShot": {"exactMatch": 0.1}}}, MEASURED),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_the_verdict_is_told_with_the_figures_that_decide_it(name: str) -> None:
    fields, sentence = SENTENCES[name]
    body = {"rows": 1200, "metric": "exactMatch", "tuned": {"exactMatch": 0.775}}
    assert in_words(EvaluationResult.model_validate(body | fields)) == sentence
