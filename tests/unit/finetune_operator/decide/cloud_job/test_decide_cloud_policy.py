"""What a provider outside of the cluster cannot heed, and what it has ceased to offer."""

from datetime import date
from typing import Any

import pytest

from finetune_api.job import FineTuneJobSpec, Hyperparameters
from finetune_api.reasons import Reason
from finetune_operator.decide.cloud_job import cloud_policy
from tests.unit.finetune_operator.decide.cloud_job.given_cloud_jobs import facts, spec
from tests.unit.finetune_operator.decide.given import azure_connection, bedrock_connection, openai_connection

NOVA = "amazon.nova-micro-v1:0:128k"

RETIRED = {
    "the day before": (date(2027, 1, 5), None),
    "the day": (date(2027, 1, 6), Reason.FINE_TUNING_CLOSED),
}


@pytest.mark.parametrize("name", RETIRED)
def test_a_provider_closes_on_its_day(name: str) -> None:
    today, reason = RETIRED[name]
    found = cloud_policy.retired("gpt-4o-mini", facts(closes="2027-01-06"), today)
    assert (found.reason if found else None) == reason


MEANINGLESS = {
    "method": {"method": "Full"},
    "lora": {"lora": {"r": 8}},
    "preference.beta": {"preference": {"beta": 3}},
    "preference.labelSmoothing": {"preference": {"labelSmoothing": 0.1}},
    "hyperparameters.learningRate": {"hyperparameters": {"learningRate": 0.1}},
    "hyperparameters.epochs": {"hyperparameters": {"epochs": 2.5}},
    "hyperparameters.seed": {"hyperparameters": {"seed": 2**31}},
    "hyperparameters.microBatchSize": {"hyperparameters": {"microBatchSize": 4}},
    "hyperparameters.maxSequenceLength": {"hyperparameters": {"maxSequenceLength": 512}},
    "hyperparameters.warmupRatio": {"hyperparameters": {"warmupRatio": 0.1}},
    "hyperparameters.schedule": {"hyperparameters": {"schedule": "Linear"}},
    "hyperparameters.weightDecay": {"hyperparameters": {"weightDecay": 0.01}},
    "hyperparameters.maxGradNorm": {"hyperparameters": {"maxGradNorm": 0.5}},
    "hyperparameters.precision": {"hyperparameters": {"precision": "BFloat16"}},
    "hyperparameters.packing": {"hyperparameters": {"packing": False}},
    "hyperparameters.checkpointSteps": {"hyperparameters": {"checkpointSteps": 10}},
    "code": {"code": {"configMapRef": {"name": "recipe", "key": "train.py"}}},
    "artifact": {"artifact": {"merge": True}},
    "resources": {"resources": {"gpusPerNode": 1}},
    "trackers": {"trackers": {"tensorBoard": {}}},
    "hubTokenSecretRef": {"hubTokenSecretRef": {"name": "hub", "key": "token"}},
}
HEEDED = {
    "connectionRef", "baseModel", "modelRef", "adopt", "budget", "suspend", "activeDeadlineSeconds",
    "ttlSecondsAfterFinished", "retryNonce", "dataset", "evaluation",
    "hyperparameters.batchSize", "hyperparameters.learningRateMultiplier",
}  # fmt: skip
"""Fields that mean the same at a provider."""

HUB_DATA = {"train": {"uri": "hf://datasets/team/tone/train.jsonl"}}

PREFERENCES: dict[str, tuple[str, list[str] | None, str | None]] = {
    "one of them": ("gpt-4.1-mini-2025-04-14", ["gpt-4.1*"], None),
    "tuned at OpenAI from one of them": ("ft:gpt-4.1-mini-2025-04-14:org:tone:abc12", ["gpt-4.1*"], None),
    "tuned at Azure from one of them": ("gpt-4o-2024-08-06.ft-0123456789abcdef-tone", ["gpt-4o-2024-08-06"], None),
    "nobody knows": ("a-new-model", None, None),
    "another one": (
        "gpt-4o-mini",
        ["gpt-4.1*", "gpt-4o-2024-08-06"],
        "spec.preference: gpt-4o-mini does not learn from two answers at this provider; "
        "set baseModel to one that does (gpt-4.1*, gpt-4o-2024-08-06), or leave preference out",
    ),
    "tuned from another one": (
        "ft:gpt-4o-mini:org::abc12",
        ["gpt-4.1*"],
        "spec.preference: ft:gpt-4o-mini:org::abc12 does not learn from two answers at this provider; "
        "set baseModel to one that does (gpt-4.1*), or leave preference out",
    ),
    "none does": (
        "gpt-4o",
        [],
        "spec.preference: gpt-4o does not learn from two answers at this provider; leave preference out",
    ),
}


@pytest.mark.parametrize("name", PREFERENCES)
def test_which_base_models_learn_from_two_answers(name: str) -> None:
    base, known, message = PREFERENCES[name]
    told = facts(preferenceModels=known)
    assert cloud_policy.cannot_learn_preferences(spec(baseModel=base, preference={}), told) == message
    assert cloud_policy.cannot_learn_preferences(spec(baseModel=base), told) is None


def test_bedrock_learns_from_one_answer() -> None:
    asked = spec(baseModel=NOVA, preference={})
    message = cloud_policy.unsupported(asked, bedrock_connection())
    assert message is not None
    assert "spec.preference: Bedrock's jobs learn from one answer for each prompt" in message


def test_of_every_field_it_is_known_whether_a_provider_heeds_it() -> None:
    known = HEEDED | MEANINGLESS.keys()
    fields = {field.alias for field in FineTuneJobSpec.model_fields.values()}
    assert fields == {field.partition(".")[0] for field in known}
    hyperparameters = {f"hyperparameters.{field.alias}" for field in Hyperparameters.model_fields.values()}
    assert hyperparameters == {field for field in known if field.startswith("hyperparameters.")}


@pytest.mark.parametrize("field", MEANINGLESS)
def test_a_field_that_the_provider_could_not_heed_is_refused(field: str) -> None:
    message = cloud_policy.unsupported(spec(**MEANINGLESS[field]), openai_connection())
    assert message is not None
    assert f"spec.{field}:" in message
    assert cloud_policy.unsupported(spec(), openai_connection()) is None


@pytest.mark.parametrize("connect", [openai_connection, azure_connection, bedrock_connection])
def test_a_hubs_token_is_for_data_on_a_hub_alone(connect: Any) -> None:
    token = {"hubTokenSecretRef": {"name": "hub", "key": "token"}, "baseModel": NOVA}
    assert "spec.hubTokenSecretRef:" in str(cloud_policy.unsupported(spec(**token), connect()))
    assert cloud_policy.unsupported(spec(**token, dataset=HUB_DATA), connect()) is None
