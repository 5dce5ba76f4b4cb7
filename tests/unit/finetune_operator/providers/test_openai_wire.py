"""OpenAI's objects as they come, and what they mean."""

import base64
from typing import Any

import pytest
from openai.types.fine_tuning.job_create_params import JobCreateParams

from finetune_api.connection import LLMConnectionSpec
from finetune_api.openai import data_rules
from finetune_api.reasons import Reason
from finetune_operator.providers.catalogue import catalogue_name
from finetune_operator.providers.openai import wire
from tests.simulators.shapes import unknown_keys
from tests.unit.finetune_operator.decide.given import azure_connection, job_spec

JOB = {
    "id": "ftjob-1",
    "created_at": 1_800_000_000,
    "model": "gpt",
    "training_file": "file-1",
    "object": "fine_tuning.job",
    "fine_tuned_model": "ft:gpt:x",
}

STATES = {
    "validating_files": "Queued",
    "pending": "Queued",
    "queued": "Queued",
    "running": "Active",
    "pausing": "Active",
    "paused": "Active",
    "something new": "Active",
    "timed_out": "Failed",
    "user_error": "Failed",
    "stopped": "Cancelled",
    "succeeded": "Succeeded",
    "failed": "Failed",
    "cancelled": "Cancelled",
}


@pytest.mark.parametrize("status", STATES)
def test_a_state_that_nobody_knows_goes_on(status: str) -> None:
    job = wire.job(JOB | {"status": status})
    assert job.state == STATES[status]
    assert job.ended == (STATES[status] in {"Succeeded", "Failed", "Cancelled"})


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("ft:gpt:x", "ft:gpt:x"),
        (" ft:gpt:x\n", "ft:gpt:x"),
        ({"id": "ft:gpt:x"}, "ft:gpt:x"),
        ({"name": "ft:gpt:x", "object": "model"}, "ft:gpt:x"),
        ({}, None),
        (["ft:gpt:x"], None),
        (True, None),
        ("  ", None),
    ],
)
def test_a_model_has_a_name_that_a_request_can_have_or_none_yet(told: Any, name: str | None) -> None:
    job = wire.job(JOB | {"status": "succeeded", "fine_tuned_model": told})
    assert (job.model, job.nameless, job.state) == (name, name is None, "Succeeded" if name else "Active")


@pytest.mark.parametrize("told", [{"id": None}, {"id": ""}, {}])
def test_an_answer_without_an_id_does_not_tell_what_was_made(told: dict[str, Any]) -> None:
    with pytest.raises(LookupError):
        wire.job({"status": "running"} | told)
    with pytest.raises(LookupError):
        wire.file(told)


@pytest.mark.parametrize("told", ["file-9", {"id": "file-9"}, [None, "file-9"], [{"id": "file-9"}]])
def test_results_are_found_however_they_are_named(told: Any) -> None:
    assert wire.job(JOB | {"status": "succeeded", "result_files": told}).results == ("file-9",)


@pytest.mark.parametrize("told", [{"error": {"code": "c", "message": "said"}}, {"code": "c", "detail": "said"}])
def test_why_a_job_failed_is_read_wherever_a_service_says_it(told: dict[str, Any]) -> None:
    assert wire.failure(told).message == "c: said"


def test_what_a_service_leaves_out_is_no_error() -> None:
    job = wire.job({"id": "j"})
    assert (job.state, job.model, job.tokens, job.failure, job.labels, job.results) == (
        "Queued",
        None,
        None,
        None,
        {},
        (),
    )
    nulls = {"result_files": None, "metadata": None, "error": {"code": None, "message": None, "param": None}}
    assert wire.job(JOB | nulls | {"status": "running"}).failure is None


ERRORS: dict[str, tuple[dict[str, Any], Reason, str]] = {
    "bad file": (
        {"code": "invalid_training_file", "message": "Line 17: 'my secret text'", "param": "training_file"},
        Reason.DATASET_INVALID,
        "the provider refuses the training_file at line 17 (invalid_training_file)",
    ),
    "too few": (
        {"code": "invalid_n_examples", "message": "Training file has 3 example(s)", "param": "training_file"},
        Reason.DATASET_INVALID,
        "the provider refuses the training_file (invalid_n_examples)",
    ),
    "only the field": (
        {"code": "x", "message": "my secret text", "param": "validation_file"},
        Reason.DATASET_INVALID,
        "the provider refuses the validation_file (x)",
    ),
    "a bad row by its number": (
        {
            "code": "invalid_training_file",
            "message": "Invalid file format. Example 6174 message contains an invalid token",
            "param": "training_file",
        },
        Reason.DATASET_INVALID,
        "the provider refuses the training_file at example 6174 (invalid_training_file)",
    ),
    "unsafe": (
        {
            "code": "invalid_training_file",
            "param": "training_file",
            "message": "The job failed due to an unsafe training "
            "file. This training file was blocked by our moderation system because it contains 'my secret text'",
        },
        Reason.DATASET_INVALID,
        "the provider refuses the training_file (invalid_training_file): its moderation blocks what is in it",
    ),
    "harmful, as Azure says": (
        {"code": "invalidTrainingFile", "message": "exceeds the content filter's threshold for harmful content: hate"},
        Reason.DATASET_INVALID,
        "the provider refuses the training_file (invalidTrainingFile): its moderation blocks what is in it",
    ),
    "the model is unsafe": (
        {"code": "model_safety", "message": "Error while running moderation eval refusals_v3"},
        Reason.PROVIDER_FAILED,
        "model_safety: Error while running moderation eval refusals_v3",
    ),
    "a file that is gone": (
        {"code": "file_not_found", "message": "No such File object: file-abc", "param": "training_file"},
        Reason.PROVIDER_FAILED,
        "the provider has no such file any more: training_file (file_not_found)",
    ),
    "a row that speaks of one": (
        {"code": "x", "message": "Line 3: 'no such file'", "param": "training_file"},
        Reason.DATASET_INVALID,
        "the provider refuses the training_file at line 3 (x)",
    ),
    "quota of Azure": (
        {"code": "quotaExceeded", "message": "hard limit"},
        Reason.QUOTA_EXCEEDED,
        "quotaExceeded: hard limit",
    ),
    "quota": (
        {"code": "exceeded_quota", "message": "hard limit"},
        Reason.QUOTA_EXCEEDED,
        "exceeded_quota: hard limit",
    ),
    "their fault": ({"code": "server_error", "message": "oops"}, Reason.PROVIDER_FAILED, "server_error: oops"),
    "a key in it": (
        {"code": "c", "message": "key sk-abcdefghijklmnopqrstuv was used"},
        Reason.PROVIDER_FAILED,
        "c: key [redacted] was used",
    ),
    "nothing": ({}, Reason.PROVIDER_FAILED, "the provider gives no reason"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_failure_has_its_reason_and_never_quotes_the_data(name: str) -> None:
    error, reason, message = ERRORS[name]
    failure = wire.job(JOB | {"status": "failed", "error": error}).failure
    assert failure is not None
    assert (failure.reason, failure.message) == (reason, message)
    assert failure.next_step


CSV = b"step,train_loss,train_accuracy,valid_loss,valid_accuracy\n1,2.5,0.1,,\n2,1.5,0.2,1.75,0.3\n3,nan,,-1,\n"


@pytest.mark.parametrize("content", [CSV, b"\xef\xbb\xbf" + CSV, base64.b64encode(CSV)], ids=["plain", "BOM", "base64"])
def test_the_results_file_gives_both_curves(content: bytes) -> None:
    found = wire.metrics_of_results(content)
    assert [(p.step, p.value) for p in found.train] == [(1, 2.5), (2, 1.5)]
    assert [(p.step, p.value) for p in found.validation] == [(2, 1.75)]
    assert (found.step, found.total_steps) == (3, 3)


@pytest.mark.parametrize(
    "head",
    [
        b"Step,Training Loss,Validation Loss",
        b"global_step,loss,eval_loss",
        b"step-number,train-loss,full-valid-loss",
        b"step;training_loss;valid_loss",
    ],
)
def test_columns_are_known_by_the_names_that_others_give_them(head: bytes) -> None:
    row = b"1;2.5;1.5" if b";" in head else b"1,2.5,1.5"
    found = wire.metrics_of_results(head + b"\n" + row + b"\n")
    assert [(p.step, p.value) for p in (*found.train, *found.validation)] == [(1, 2.5), (1, 1.5)]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"a,b\n1,2\n", b"not base64!"])
def test_a_results_file_that_cannot_be_read_is_no_error(content: bytes) -> None:
    assert wire.metrics_of_results(content).train == ()


METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "completions": (
        {"hyperparameters": {"epochs": 2, "batchSize": 4, "learningRateMultiplier": 1.8}},
        {
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 1.8}},
        },
    ),
    "pairs": (
        {"preference": {}, "hyperparameters": {"epochs": 1, "batchSize": 4}},
        {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 1, "batch_size": 4, "beta": 0.1}}},
    ),
    "pairs, further from the base": (
        {"preference": {"beta": 0.05}, "hyperparameters": {"learningRateMultiplier": 0.5}},
        {
            "type": "dpo",
            "dpo": {
                "hyperparameters": {"n_epochs": 3, "batch_size": 16, "beta": 0.05, "learning_rate_multiplier": 0.5}
            },
        },
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_job_says_how_it_is_to_learn_in_the_words_of_the_sdk(name: str) -> None:
    fields, said = METHODS[name]
    request = {"model": "gpt", "training_file": "file-1", "method": wire.method(job_spec(**fields))}
    assert request["method"] == said
    assert unknown_keys(JobCreateParams, request) == []


PAIRS = (
    b"step,train_loss,train_reward_accuracy,train_reward_margin,valid_loss,valid_reward_accuracy,colour\n"
    b"1,0.69,0.5,-0.25,,,red\n2,0.5,0.75,0.5,0.6,0.625,red\n"
)


def test_rewards_of_pairs_are_taken_where_they_are_sent() -> None:
    found = wire.metrics_of_results(PAIRS)
    assert [(p.step, p.value, p.reward_accuracy, p.reward_margin) for p in (*found.train, *found.validation)] == [
        (1, 0.69, 0.5, -0.25),
        (2, 0.5, 0.75, 0.5),
        (2, 0.6, 0.625, None),
    ]


def test_events_give_steps_in_order_whatever_order_they_come_in() -> None:
    events = [
        {"type": "metrics", "message": "Step 2/9: training loss=1.50", "data": {"step": 2, "train_loss": 1.5}},
        {"type": "message", "message": "Fine-tuning job started", "data": {}},
        {"type": "metrics", "message": "", "data": {"step": 1, "train_loss": 2.5, "total_steps": 9, "valid_loss": 3}},
    ]
    found = wire.metrics_of_events(events)
    assert [p.step for p in found.train] == [1, 2]
    assert [p.value for p in found.validation] == [3]
    assert (found.step, found.total_steps) == (2, 9)


def test_checkpoints_stand_in_where_there_is_no_other_record() -> None:
    found = wire.metrics_of_checkpoints([{"step_number": 4, "metrics": {"train_loss": 0.5, "full_valid_loss": 0.7}}])
    assert [(p.step, p.value) for p in (*found.train, *found.validation)] == [(4, 0.5), (4, 0.7)]


@pytest.mark.parametrize(
    ("status", "ready"), [("uploaded", True), ("processed", True), (None, True), ("pending", False)]
)
def test_a_file_is_ready_unless_the_provider_still_looks_at_it(status: str | None, ready: bool) -> None:
    assert wire.file({"id": "f", "filename": "a.jsonl", "bytes": 3, "status": status}).ready is ready


ADDRESSES = {
    "https://api.openai.com/v1": ("api.openai.com", "openAI"),
    "https://API.OpenAI.com:443/v1/": ("api.openai.com", "openAI"),
    "https://eu.api.openai.com/v1": ("api.openai.com", "openAI"),
    "https://api.openai.com.example/v1": ("api.openai.com.example", "openAICompatible"),
    "https://notapi.openai.com.example/v1": ("notapi.openai.com.example", "openAICompatible"),
    "https://xapi.openai.com/v1": ("xapi.openai.com", "openAICompatible"),
    "http://gateway.svc:8080/v1": ("gateway.svc:8080", "openAICompatible"),
}


CLOUDS = {
    "https://res.openai.azure.com": "azureOpenAI",
    "https://res.openai.azure.us": "azureOpenAI-us",
    "https://res.openai.azure.cn/": "azureOpenAI-cn",
    "https://gateway.example.us": "azureOpenAI",
}


@pytest.mark.parametrize("endpoint", CLOUDS)
def test_prices_of_one_of_azures_clouds_are_none_of_another(endpoint):
    azure = azure_connection().azure_open_ai.model_copy(update={"endpoint": endpoint})
    assert catalogue_name(LLMConnectionSpec(azure_open_ai=azure)) == CLOUDS[endpoint]


@pytest.mark.parametrize("address", ADDRESSES)
def test_openais_own_addresses_have_its_rules_dates_and_prices_and_no_others_have(address):
    reference = {"apiKeySecretRef": {"name": "openai", "key": "api-key"}}
    spec = LLMConnectionSpec.model_validate({"openAI": {"baseURL": address} | reference})
    assert (catalogue_name(spec), data_rules(spec)) == ADDRESSES[address]
