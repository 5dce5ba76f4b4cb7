"""What a job cannot ask of SageMaker, field by field."""

from typing import Any

import pytest

from finetune_operator.decide.cloud_job.cloud_policy import unsupported
from tests.unit.finetune_operator.decide.given import job_spec, sagemaker_connection

CONNECTION = sagemaker_connection()
PUSH = {"oci": {"uri": "oci://registry.example.com/models/mood:1"}}
JUDGE = {"url": "https://judge.example.com/v1", "model": "m"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"resources": {"gpusPerNode": 2}}, "spec.resources: the instance type says what an instance has"),
        ({"resources": {"instanceType": "ml.p5.48xlarge"}}, "the connection has ml.g5.xlarge, ml.g5.2xlarge"),
        ({"evaluation": {"judge": JUDGE}}, "use zeroShot, fewShot, activeVersion"),
        ({"artifact": {"push": PUSH}}, "spec.artifact.push: the keys for it"),
        ({"trackers": {"tensorBoard": {}}}, "spec.trackers: their keys and claims"),
        (
            {
                "adopt": {"jobID": "x-1"},
                "dataset": {"train": {"uri": "pvc://data/a.csv"}, "test": {"uri": "pvc://data/b.csv"}},
            },
            "spec.dataset.test: the data of a job that is adopted are not read",
        ),
        ({"hyperparameters": {"learningRateMultiplier": 2}}, "write learningRate"),
        ({"hubTokenSecretRef": {"name": "hub", "key": "token"}}, "modelCache may hold gated models"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_has_no_meaning_is_refused(fields: dict[str, Any], said: str) -> None:
    assert said in str(unsupported(job_spec(**fields), CONNECTION))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"method": "QLoRA", "lora": {"r": 8}, "hyperparameters": {"epochs": 0.5, "learningRate": 1e-4}},
        {"method": "Full", "resources": {"instanceType": "ml.g5.2xlarge"}},
        {"artifact": {"merge": True}, "evaluation": {"baselines": [{"zeroShot": {}}, {"fewShot": {}}]}},
        {"evaluation": {"baselines": [{"activeVersion": {}}]}},
        {"dataset": {"train": {"uri": "pvc://data/a.csv"}, "test": {"uri": "pvc://data/b.csv"}}},
        {"adopt": {"jobID": "someone-elses-job"}},
        {"resources": {"instanceType": "ml.g5.2xlarge", "nodes": 4}},
        {"code": {"configMapRef": {"name": "my-recipe", "key": "train.py"}}},
    ],
    ids=str,
)
def test_what_the_trainer_can_do_is_allowed(fields: dict[str, Any]) -> None:
    assert unsupported(job_spec(**fields), CONNECTION) is None
